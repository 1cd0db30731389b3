package upstream

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// Pin is the SHA-256 of a public key as a certificate holds it (its
// SubjectPublicKeyInfo), RFC 7858 section 4.2.
type Pin [sha256.Size]byte

var errPin = errors.New("the server's key is none of those pinned")

// settings returns how TLS is spoken with the server of c. Its certificate
// must be valid for the server's name or address; where keys are pinned, it
// must hold one of those, and who vouches for it does not matter. Sessions
// are resumed with this server only.
func (c *Config) settings(protocols ...string) *tls.Config {
	settings := &tls.Config{
		ServerName:         c.ServerName,
		MinVersion:         tls.VersionTLS12,
		RootCAs:            c.RootCAs,
		NextProtos:         protocols,
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
		Time:               c.Now,
	}
	if settings.ServerName == "" {
		settings.ServerName = c.authority()
	}
	if len(c.Pins) > 0 {
		pins := c.Pins
		settings.InsecureSkipVerify = true // VerifyConnection does it
		settings.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errPin
			}
			if !slices.Contains(pins, Pin(sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo))) {
				return errPin
			}
			return nil
		}
	}
	return settings
}

// authority returns the name or address by which the server is known.
func (c *Config) authority() string {
	if c.Where.host != "" {
		return c.Where.host
	}
	if all := c.Where.Known(); len(all) > 0 {
		return all[0].Addr().Unmap().WithZone("").String()
	}
	return ""
}

// secured opens a TLS connection to one address.
func (c *Config) secured(ctx context.Context, addr netip.AddrPort, settings *tls.Config) (net.Conn, error) {
	raw, err := c.Dial(ctx, "tcp", addr.String())
	if err != nil {
		return nil, plain(err)
	}
	conn := tls.Client(raw, settings)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("agreeing on tls: %w", plain(err))
	}
	return conn, nil
}

// dialer returns how the server's streams are opened, with TLS or without.
func (c *Config) dialer(encrypted bool, protocols ...string) func(context.Context) (net.Conn, error) {
	one := func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		conn, err := c.Dial(ctx, "tcp", addr.String())
		return conn, plain(err)
	}
	if encrypted {
		settings := c.settings(protocols...)
		one = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			return c.secured(ctx, addr, settings)
		}
	}
	return func(ctx context.Context) (net.Conn, error) {
		return connect(ctx, c.Where, one, func(conn net.Conn) { conn.Close() })
	}
}
