package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/proxy"
)

// SOCKS5 is a proxy for connections over TCP (RFC 1928). User is empty where it
// asks for no password (RFC 1929).
type SOCKS5 struct {
	Addr           netip.AddrPort
	User, Password string
}

// String returns the proxy without its password.
func (s SOCKS5) String() string {
	if s.User != "" {
		return s.User + "@" + s.Addr.String()
	}
	return s.Addr.String()
}

// Through returns a Dial that has the proxy connect. It reaches the proxy itself by dial.
// Only "tcp" can be dialed so.
func (s SOCKS5) Through(dial Dial) Dial {
	var auth *proxy.Auth
	if s.User != "" {
		auth = &proxy.Auth{User: s.User, Password: s.Password}
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if network != "tcp" {
			return nil, fmt.Errorf("a SOCKS5 proxy carries no %s", network)
		}
		d, err := proxy.SOCKS5("tcp", s.Addr.String(), auth, forward(dial))
		if err != nil {
			return nil, err
		}
		return d.(proxy.ContextDialer).DialContext(ctx, network, address)
	}
}

// forward is a Dial as package proxy wants it.
type forward Dial

func (f forward) Dial(network, address string) (net.Conn, error) {
	return f(context.Background(), network, address)
}

func (f forward) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}
