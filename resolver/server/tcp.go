package server

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"smartdns/resolver/cache"
	"smartdns/resolver/wire"
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
		s.serveConn(c, from, g.lane)
	})
}

// serveConn reads queries one after another and answers them in any order
// (RFC 7766 section 6.2.1.1), sealed answers at once. It returns when the
// client is done, too slow, or sends something that is not a query.
func (s *Server) serveConn(c net.Conn, from Client, lane *streamLane) {
	w := &connWriter{conn: c, timeout: s.limits.TCPWrite}
	r := newConnReader(c)
	t := &talk{server: s, writer: w, places: make(chan struct{}, s.limits.TCPConcurrent)}
	defer t.answers.Wait()
	wait := s.limits.TCPFirst
	for range s.limits.TCPPerLifetime {
		// One deadline for the whole message, so that a byte now and then
		// does not keep the connection.
		_ = c.SetReadDeadline(time.Now().Add(wait))
		msg, err := r.read()
		if err != nil {
			return
		}
		wait = s.idle()
		q, reply, ok := s.accept(r.room(), msg, &from)
		if !ok {
			// Who may not ask is told so once, and gives the connection back.
			if len(reply) == 0 || w.write(s.withOptions(reply, q, from)) != nil || !s.knows(&from) {
				return
			}
			continue
		}
		s.count.counter(from.Transport).Add(1)
		if reply, ok := lane.answer(r.room(), q, from.View); ok { // the fast lane, or Resolve
			s.count.sealed.Add(1)
			if w.write(s.withOptions(reply, q, from)) != nil {
				return
			}
			continue
		}
		if !t.handOver(q.In(bytes.Clone(msg)), from) {
			return
		}
	}
}

// talk is what the handler has of a connection.
type talk struct {
	server  *Server
	writer  *connWriter
	places  chan struct{} // one for each query
	answers sync.WaitGroup
}

// handOver has the handler answer q while the next query is read. It reports
// false when the limits do not allow that, or the server closes.
func (t *talk) handOver(q wire.Query, from Client) bool {
	s := t.server
	select {
	case t.places <- struct{}{}:
	case <-s.ctx.Done():
		return false
	}
	if !s.tcp.queries.take(from.Addr.Addr()) {
		s.count.dropped.Add(1)
		return false
	}
	if !s.take() {
		s.tcp.queries.release(from.Addr.Addr())
		return false
	}
	t.answers.Go(func() {
		defer func() { <-t.places }()
		defer s.tcp.queries.release(from.Addr.Addr())
		defer s.release()
		if reply := s.answer(nil, q, from); reply != nil && t.writer.write(s.withOptions(reply, q, from)) != nil {
			hangUp(t.writer.conn)
		}
	})
	return true
}

// hangUp closes the connection of a client that does not take its answers. A
// goodbye of TLS would wait for it while its next queries are read.
func hangUp(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	c.Close()
}

// connReader reads length-prefixed messages (RFC 1035 section 4.2.2) into the
// same memory again and again.
type connReader struct {
	in    *bufio.Reader
	msg   []byte
	reply []byte
}

// queryRoom holds any query that a stub resolver sends.
const queryRoom = 512

func newConnReader(c net.Conn) *connReader {
	return &connReader{in: bufio.NewReaderSize(c, queryRoom), msg: make([]byte, queryRoom)}
}

// read returns the next message, which stays until the call after it.
func (r *connReader) read() ([]byte, error) {
	prefix := r.msg[:2]
	if _, err := io.ReadFull(r.in, prefix); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(prefix))
	if n == 0 || n > maxTCPQuery {
		return nil, errors.New("reading a query: its length is out of bounds")
	}
	if n > len(r.msg) {
		r.msg = make([]byte, n)
	}
	_, err := io.ReadFull(r.in, r.msg[:n])
	return r.msg[:n], err
}

// room returns where an answer can be made that is written before the next
// message is read.
func (r *connReader) room() []byte {
	if r.reply == nil {
		r.reply = make([]byte, 0, answerRoom)
	}
	return r.reply
}

// answerRoom is for a sealed answer with the options of its transport.
const answerRoom = cache.MaxSealed + 512

// connWriter writes one whole message at a time.
type connWriter struct {
	conn    net.Conn
	timeout time.Duration
	mu      sync.Mutex // guards the connection's write side, and out
	out     []byte
}

func (w *connWriter) write(msg []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
	// One write, one segment where it fits: some clients read the prefix and
	// the message in one go.
	b := append(binary.BigEndian.AppendUint16(w.out[:0], uint16(len(msg))), msg...)
	if cap(b) <= 2*answerRoom { // an idle connection keeps no large answer
		w.out = b
	}
	_, err := w.conn.Write(b)
	return err
}
