package server

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"smartdns/resolver/wire"
)

// pressedShare is how much shorter connections may idle when three quarters of
// their places are taken (SECURITY 6.2: 10 s, then 0.2 s).
const pressedShare = 50

// idle returns how long a connection may wait for its next query now.
func (s *Server) idle() time.Duration {
	if s.tcp.conns.pressed() {
		return s.limits.TCPIdle / pressedShare
	}
	return s.limits.TCPIdle
}

// pressed reports whether three quarters of the places are taken.
func (t *tcpLimiter) pressed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return 4*t.n >= 3*t.total
}

// withOptions adds to a reply the EDNS options of its transport that the query
// asks for: how long the connection may idle (RFC 7828), and padding where the
// transport hides what is in it (RFC 7830).
func (s *Server) withOptions(reply []byte, q wire.Query, from Client) []byte {
	if !q.EDNS.Present {
		return reply
	}
	options := q.Options()
	if _, asked := wire.Option(options, wire.OptionKeepalive); asked && (from.Transport == TCP || from.Transport == TLS) {
		var units [2]byte
		binary.BigEndian.PutUint16(units[:], uint16(min(s.idle()/(100*time.Millisecond), 0xffff)))
		reply = wire.AppendOption(reply, wire.OptionKeepalive, units[:])
	}
	if _, asked := wire.Option(options, wire.OptionPadding); asked && (from.Transport == TLS || from.Transport == HTTPS) {
		reply = wire.Pad(reply)
	}
	return reply
}

// counter returns the count of a stream transport's queries.
func (c *counters) counter(transport string) *atomic.Uint64 {
	switch transport {
	case TLS:
		return &c.tls
	case HTTPS:
		return &c.https
	}
	return &c.tcp
}

func parseAddrPort(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("reading the client's address: %w", err)
	}
	return unmap(a), nil
}
