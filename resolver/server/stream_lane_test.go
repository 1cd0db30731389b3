package server

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"
)

// loop is a connection whose client sends one query again and again, and drops
// what it gets.
type loop struct {
	net.Conn
	query []byte
	left  int // queries
	at    int
}

func (l *loop) Read(b []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	n := copy(b, l.query[l.at:])
	if l.at += n; l.at == len(l.query) {
		l.at = 0
		l.left--
	}
	return n, nil
}

func (l *loop) Write(b []byte) (int, error)      { return len(b), nil }
func (l *loop) SetReadDeadline(time.Time) error  { return nil }
func (l *loop) SetWriteDeadline(time.Time) error { return nil }

// A connection costs a few allocations, its sealed answers none: not even with
// the options of its transport.
func TestASealedAnswerOverAStreamDoesNotAllocate(t *testing.T) {
	s := New(nil, DefaultLimits(), slog.New(slog.DiscardHandler))
	defer s.Close()
	msg := []byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 'w', 'w', 'w', 2, 'c', 'n', 0, 0, 1, 0, 1}
	if !sealForTest(s, msg) {
		t.Fatal("not sealed")
	}
	withOptions := append(bytes.Clone(msg), 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 8, 0, 11, 0, 0, 0, 12, 0, 0)
	withOptions[11] = 1
	lane, err := s.lane.forStreams()
	if err != nil {
		t.Fatal(err)
	}
	const queries = 500
	for what, msg := range map[string][]byte{"plain": msg, "with keepalive and padding": withOptions} {
		before := s.Stats().Sealed
		n := testing.AllocsPerRun(10, func() {
			c := &loop{query: append([]byte{0, byte(len(msg))}, msg...), left: queries}
			s.serveConn(c, Client{Addr: netip.MustParseAddrPort("127.0.0.1:4000"), Transport: TLS}, lane)
		})
		if n > 20 {
			t.Errorf("%s: %v allocations for %d answers", what, n, queries)
		}
		if got := s.Stats().Sealed - before; got != 11*queries {
			t.Errorf("%s: %d of %d answers by the fast lane", what, got, 11*queries)
		}
	}
}
