package update

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxRedirects is how often a mirror may send us on.
const maxRedirects = 3

// assetHosts are the hosts that hold the files of others, by whose site they
// belong to: only there may a mirror send us on to another name.
func assetHosts(site string) []string {
	if site == "github.com" {
		return []string{
			"codeload.github.com", "objects.githubusercontent.com", "raw.githubusercontent.com",
			"release-assets.githubusercontent.com",
		}
	}
	return nil
}

// guard lets requests go to the mirrors of one list, and nowhere else that they
// could do harm.
type guard struct {
	mirrors []*url.URL // as the user wrote them
	path    Path
	private func(netip.Addr) bool
	now     func() time.Time // for certificates; nil: the system's clock
}

// redirect is the policy of an http.Client: what the user has not written goes
// by https to the mirror's own site or to another mirror's.
func (g guard) redirect(req *http.Request, via []*http.Request) error {
	first, to := via[0].URL, req.URL
	req.Header.Del("Referer") // a query is a secret between the user and the first host
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case to.Scheme != "https" && (to.Scheme != "http" || first.Scheme != "http" || to.Host != first.Host):
		return fmt.Errorf("redirects to %s: only https is followed", shown(to))
	case to.User != nil:
		return errors.New("redirects to an address with a password in it")
	case !g.sameSite(first, to):
		return fmt.Errorf("redirects to another host, %s: write that URL if it is meant", to.Host)
	}
	return nil
}

func (g guard) sameSite(first, to *url.URL) bool {
	host, a := strings.ToLower(to.Hostname()), strings.ToLower(first.Hostname())
	if _, err := netip.ParseAddr(host); err == nil {
		return to.Host == first.Host
	}
	return host == a || strings.HasSuffix(host, "."+a) || strings.HasSuffix(a, "."+host) && strings.Contains(host, ".") ||
		slices.Contains(assetHosts(a), host) ||
		slices.ContainsFunc(g.mirrors, func(u *url.URL) bool { return strings.EqualFold(u.Hostname(), host) })
}

// dial connects to a host, at an address that is somebody's on the Internet,
// or to the very address that the user wrote.
func (g guard) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if a, err := netip.ParseAddr(host); err == nil {
		own := slices.ContainsFunc(g.mirrors, func(u *url.URL) bool { return u.Hostname() == host })
		if g.private(a) && !own {
			return nil, fmt.Errorf("%s is a private address, and no URL of the list names it", a)
		}
		return g.path.Dial(ctx, "tcp", address)
	}
	addrs, err := g.path.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		a = a.Unmap()
		if g.private(a) {
			errs = append(errs, fmt.Errorf("%s has the private address %s: write the address itself if it is meant", host, a))
			continue
		}
		conn, err := g.path.Dial(ctx, "tcp", net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	return nil, errors.Join(errs...)
}

// Limits of one request. That of the whole update is maxTime.
const (
	dialTime   = 10 * time.Second
	headerTime = 15 * time.Second
	maxHeader  = 64 << 10 // bytes
)

// client returns an HTTP client for one update: its connections end with it.
func (g guard) client(roots *x509.CertPool) (c *http.Client, done func()) {
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTime)
			defer cancel()
			return g.dial(ctx, network, address)
		},
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, Time: g.now},
		TLSHandshakeTimeout:    dialTime,
		ResponseHeaderTimeout:  headerTime,
		MaxResponseHeaderBytes: maxHeader,
		ForceAttemptHTTP2:      true,
	}
	return &http.Client{Transport: t, CheckRedirect: g.redirect}, t.CloseIdleConnections
}

// shown is a URL for people: without passwords, and without a query, in which
// keys of accounts are.
func shown(u *url.URL) string {
	c := *u
	c.User, c.RawQuery, c.Fragment = nil, "", ""
	return c.String()
}

// Shown is the same of a URL as text.
func Shown(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return shown(u)
}
