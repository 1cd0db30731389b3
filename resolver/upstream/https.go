package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const (
	messageType = "application/dns-message" // RFC 8484 section 6
	maxHeader   = 16 << 10                  // octets of a reply's header
)

// httpTransport asks by HTTP (RFC 8484), whichever version trip speaks.
type httpTransport struct {
	trip  http.RoundTripper
	url   *url.URL
	end   func()
	ready func() bool // whether it had a connection once
}

func (h *httpTransport) close() { h.end() }

func (h *httpTransport) carry(ctx context.Context, msg []byte, limit int) ([]byte, error) {
	body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(msg)), nil }
	first, _ := body()
	req := &http.Request{
		Method: http.MethodPost, URL: h.url, Host: h.url.Host,
		Header:        http.Header{"Accept": {messageType}, "Content-Type": {messageType}, "User-Agent": {""}},
		Body:          first,
		GetBody:       body,
		ContentLength: int64(len(msg)),
	}
	// A RoundTripper follows no redirects: whoever is asked is who answers.
	resp, err := h.trip.RoundTrip(req.WithContext(ctx))
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case h.ready():
		return nil, fmt.Errorf("%w: %w", errLost, shortened(err))
	default:
		return nil, fmt.Errorf("%w: %w", errConnecting, shortened(err))
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("replied with HTTP status %d", resp.StatusCode)
	case !isMessage(resp.Header.Get("Content-Type")):
		return nil, errors.New("replied with something else than " + messageType)
	case resp.ContentLength > int64(limit):
		return nil, errTooLong
	}
	reply, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errLost, shortened(err))
	case len(reply) > limit:
		return nil, errTooLong
	}
	return reply, nil
}

func isMessage(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == messageType
}

// shortened returns err without what package http puts around it.
func shortened(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return plain(op)
	}
	return err
}

// target is the URL of c's server.
func (c *Config) target(port uint16) *url.URL {
	name := c.authority()
	host := name
	if c.Where.port != port {
		host = net.JoinHostPort(name, strconv.Itoa(int(c.Where.port)))
	} else if strings.Contains(name, ":") {
		host = "[" + name + "]"
	}
	return &url.URL{Scheme: "https", Host: host, Path: c.Path}
}

// newHTTPS keeps connections of HTTP/2, or of HTTP/1.1 where the server knows
// no better.
func newHTTPS(c *Config) kept {
	dial := c.dialer(true, "h2", "http/1.1")
	target := c.target(443)
	return &sessions{open: func() transport {
		up := new(latch)
		t := &http.Transport{
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := dial(ctx)
				if err == nil {
					up.set()
				}
				return conn, err
			},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxConnsPerHost:        maxStreams,
			MaxIdleConnsPerHost:    maxStreams,
			IdleConnTimeout:        c.Timeouts.Idle,
			MaxResponseHeaderBytes: maxHeader,
			HTTP2: &http.HTTP2Config{
				MaxReceiveBufferPerConnection: 1 << 20,
				MaxReceiveBufferPerStream:     maxLongReply,
			},
		}
		return &httpTransport{trip: t, url: target, end: t.CloseIdleConnections, ready: up.isSet}
	}}
}

// newHTTP3 keeps connections of HTTP/3.
func newHTTP3(c *Config) kept {
	dial := c.quicDialer(http3.NextProtoH3)
	target := c.target(443)
	return &sessions{open: func() transport {
		up := new(latch)
		t := &http3.Transport{
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
			Dial: func(ctx context.Context, _ string, _ *tls.Config, _ *quic.Config) (*quic.Conn, error) {
				ctx, cancel := context.WithTimeoutCause(ctx, c.Timeouts.Stream, errNoReply)
				defer cancel()
				conn, err := dial(ctx)
				if err == nil {
					up.set()
				}
				return conn, err
			},
		}
		return &httpTransport{trip: t, url: target, end: func() { t.Close() }, ready: up.isSet}
	}}
}
