package server

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// maxTCPQuery is the longest query we read over TCP (SECURITY 6.2).
const maxTCPQuery = 4096

// streamLimits count what streams of any transport hold.
type streamLimits struct {
	conns   *tcpLimiter
	queries *tcpLimiter // in flight
}

func newStreamLimits(l Limits) streamLimits {
	return streamLimits{newTCPLimiter(l.TCPConns, l.TCPPerClient), newTCPLimiter(l.InFlight, l.PerClient)}
}

// tcpLimiter counts connections, or their queries, in total and by address.
type tcpLimiter struct {
	total, perClient int

	mu    sync.Mutex // guards following
	n     int
	count map[netip.Addr]int
}

func newTCPLimiter(total, perClient int) *tcpLimiter {
	return &tcpLimiter{total: total, perClient: perClient, count: map[netip.Addr]int{}}
}

func (t *tcpLimiter) take(a netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n >= t.total || t.count[a] >= t.perClient {
		return false
	}
	t.n++
	t.count[a]++
	return true
}

func (t *tcpLimiter) release(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.count[a]--; t.count[a] == 0 {
		delete(t.count, a)
	}
}

// serveTCP serves the connections of a plain listener.
func (s *Server) serveTCP(g *gate) {
	g.serve(func(c *gated) {
		from := client(c, TCP)
		from.Listener = g.addr
		s.serveConn(c, from)
	})
}

// serveConn reads queries one after another and answers them in any order
// (RFC 7766 section 6.2.1.1). It returns when the client is done, too slow, or
// sends something that is not a query.
func (s *Server) serveConn(c net.Conn, from Client) {
	w := &connWriter{conn: c, timeout: s.limits.TCPWrite}
	concurrent := make(chan struct{}, s.limits.TCPConcurrent)
	var answers sync.WaitGroup
	defer answers.Wait()
	wait := s.limits.TCPFirst
	for range s.limits.TCPPerLifetime {
		// One deadline for the whole message, so that a byte now and then
		// does not keep the connection.
		_ = c.SetReadDeadline(time.Now().Add(wait))
		msg, err := readMessage(c)
		if err != nil {
			return
		}
		wait = s.idle()
		from := from // the answer is made while the next query is read
		q, reply, ok := s.accept(nil, msg, &from)
		if !ok {
			// Who may not ask is told so once, and gives the connection back.
			if len(reply) == 0 || w.write(s.withOptions(reply, q, from)) != nil || !s.knows(&from) {
				return
			}
			continue
		}
		s.count.counter(from.Transport).Add(1)
		select {
		case concurrent <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		if !s.tcp.queries.take(from.Addr.Addr()) {
			s.count.dropped.Add(1)
			return
		}
		if !s.take() {
			s.tcp.queries.release(from.Addr.Addr())
			return
		}
		answers.Go(func() {
			defer func() { <-concurrent }()
			defer s.tcp.queries.release(from.Addr.Addr())
			defer s.release()
			if reply := s.answer(q, from); reply != nil && w.write(s.withOptions(reply, q, from)) != nil {
				hangUp(c)
			}
		})
	}
}

// hangUp closes the connection of a client that does not take its answers. A
// goodbye of TLS would wait for it while its next queries are read.
func hangUp(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	c.Close()
}

// readMessage reads one length-prefixed message (RFC 1035 section 4.2.2).
func readMessage(r io.Reader) ([]byte, error) {
	var prefix [2]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(prefix[:]))
	if n == 0 || n > maxTCPQuery {
		return nil, errors.New("reading a query: its length is out of bounds")
	}
	msg := make([]byte, n)
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// connWriter writes one whole message at a time.
type connWriter struct {
	conn    net.Conn
	timeout time.Duration
	mu      sync.Mutex // guards the connection's write side
}

func (w *connWriter) write(msg []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
	// One write, one segment where it fits: some clients read the prefix and
	// the message in one go.
	b := make([]byte, 0, 2+len(msg))
	b = binary.BigEndian.AppendUint16(b, uint16(len(msg)))
	_, err := w.conn.Write(append(b, msg...))
	return err
}
