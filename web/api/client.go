package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// ErrNoDaemon means that nobody listens at the control socket.
var ErrNoDaemon = errors.New("the daemon is not running")

// BadRequest is the error of a request that makes no sense: a sentence that
// says why. It comes back from the Client as it was made by the daemon.
type BadRequest string

func (e BadRequest) Error() string { return string(e) }

// Client asks a daemon over its control socket.
type Client struct {
	socket string
	http   http.Client
}

// Dial returns a Client of the daemon whose control socket is at path. It
// connects with the first request.
func Dial(path string) *Client {
	c := &Client{socket: path}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	return c
}

// Status asks whether all is fine.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return do[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Query resolves name as a client's query would, and explains it. An empty
// from means: as this host.
func (c *Client) Query(ctx context.Context, name, qtype, from string) (Decision, error) {
	return do[Decision](ctx, c, http.MethodPost, "/v1/query", url.Values{"name": {name}, "type": {qtype}, "from": {from}})
}

// Route says which way an address, or those of a name, leave. No from means: from
// this host.
func (c *Client) Route(ctx context.Context, to, from string) (Route, error) {
	return do[Route](ctx, c, http.MethodPost, "/v1/route", url.Values{"to": {to}, "from": {from}})
}

// Marks lists the marks in the kernel.
func (c *Client) Marks(ctx context.Context) (Marks, error) {
	return do[Marks](ctx, c, http.MethodGet, "/v1/marks", nil)
}

// Forget removes an address from all dynamic sets.
func (c *Client) Forget(ctx context.Context, addr string) (Done, error) {
	return do[Done](ctx, c, http.MethodPost, "/v1/marks/forget", url.Values{"addr": {addr}})
}

// Reload reads the file again.
func (c *Client) Reload(ctx context.Context) (Done, error) {
	return do[Done](ctx, c, http.MethodPost, "/v1/reload", nil)
}

// How long a daemon may be away after a restart that began: a service manager
// starts it anew.
const (
	awayTime  = 10 * time.Second
	awayCheck = 100 * time.Millisecond
)

// Restart has the program on disk take the daemon's place, and returns the
// status of that when it serves. On an error of the daemon's it runs on as it was.
func (c *Client) Restart(ctx context.Context) (Status, error) {
	_, err := do[Done](ctx, c, http.MethodPost, "/v1/restart", nil)
	// The connection ends with the program that was asked.
	if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		return Status{}, err
	}
	c.http.CloseIdleConnections()
	tick := time.NewTicker(awayCheck)
	defer tick.Stop()
	for begun := time.Now(); ; {
		s, err := c.Status(ctx)
		if err == nil {
			return s, nil
		}
		if time.Since(begun) > awayTime {
			return s, fmt.Errorf("the new program does not serve; its log says why: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}

// Portal opens the kill switch for a login, for a time as "10m", or closes it
// again: "off".
func (c *Client) Portal(ctx context.Context, word string) (Portal, error) {
	return do[Portal](ctx, c, http.MethodPost, "/v1/portal", url.Values{"for": {word}})
}

func do[T any](ctx context.Context, c *Client, method, path string, form url.Values) (T, error) {
	var v T
	req, err := http.NewRequestWithContext(ctx, method, "http://smartdns"+path, strings.NewReader(form.Encode()))
	if err != nil {
		return v, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return v, fmt.Errorf("%w (nobody answers at %s; start it with smartdns run)", ErrNoDaemon, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return v, fmt.Errorf("opening %s: permission denied (be root, or in the group smartdns)", c.socket)
	case err != nil:
		return v, fmt.Errorf("asking the daemon at %s: %w", c.socket, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return v, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var e Error
		if json.Unmarshal(body, &e) != nil || e.Error == "" {
			e.Error = resp.Status
		}
		if resp.StatusCode == http.StatusBadRequest {
			return v, BadRequest(e.Error)
		}
		return v, errors.New(e.Error)
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return v, nil
}
