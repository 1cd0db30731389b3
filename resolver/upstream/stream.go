package upstream

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"smartdns/resolver/wire"
)

const (
	maxReply     = 16 << 10 // octets of a reply over a stream
	maxLongReply = 64 << 10 // of types whose data are long
	maxStrays    = 100      // replies in a row that answer nothing we asked
	writeTimeout = 2 * time.Second
	maxCalls     = 1 << 14 // on one connection, so that a free ID is found soon
)

var (
	errConnecting = errors.New("connecting")
	errBusy       = errors.New("connection carries too many queries")
	errLost       = errors.New("connection was lost")
	errTooLong    = errors.New("reply is longer than allowed for its type")
	errMismatch   = errors.New("reply does not match the query")
	errBare       = errors.New("replied with a bare error code")
	errTruncated  = errors.New("reply is truncated over tcp")
)

// stream is one connection to a server, carrying many queries at a time
// (RFC 7766 section 6.2.1.1).
type stream struct {
	idle  time.Duration
	since time.Time     // when it began to connect
	ready chan struct{} // closed when conn or err is set

	conn  net.Conn
	write sync.Mutex // one message at a time

	mu      sync.Mutex
	err     error // why it is no longer usable
	calls   map[uint16]*call
	retired bool // takes no new queries, closes after the last one
	strays  int
}

// call is one query on a stream.
type call struct {
	sent  []byte // framed, with its ID on this stream
	limit int
	done  chan<- answer // takes at most one
	over  bool          // nobody waits for it
}

type answer struct {
	msg []byte
	err error
}

func (c *call) query() []byte { return c.sent[2:] }

// open connects; ctx is not that of any single query.
func (s *stream) open(ctx context.Context, dial func(context.Context) (net.Conn, error)) {
	defer close(s.ready)
	conn, err := dial(ctx)
	if err != nil {
		s.fail(fmt.Errorf("%w: %w", errConnecting, err))
		return
	}
	conn.SetReadDeadline(time.Now().Add(s.idle))
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	go s.read()
}

// usable reports whether a new query may go this way.
func (s *stream) usable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == nil && !s.retired
}

func (s *stream) load() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// start sends msg under an ID of its own.
func (s *stream) start(ctx context.Context, msg []byte, t trip, done chan<- answer) func() {
	c := &call{done: done, limit: replyLimit(msg)}
	c.sent = append(make([]byte, 2, 2+len(msg)), msg...)
	binary.BigEndian.PutUint16(c.sent, uint16(len(msg)))
	select {
	case <-s.ready:
		s.begin(c, t)
		return func() { s.forget(c) }
	default:
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-s.ready:
			s.begin(c, t)
		case <-ctx.Done():
		}
	}()
	return func() {
		cancel()
		s.forget(c)
	}
}

// begin sends c on a stream that is ready.
func (s *stream) begin(c *call, t trip) {
	if !t.packet() {
		c.done <- answer{err: errSpent}
		return
	}
	if err := s.register(c); err != nil {
		c.done <- answer{err: err}
		return
	}
	s.send(c)
}

// register gives c an ID that is free on this stream.
func (s *stream) register(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case c.over:
		return context.Canceled
	}
	if len(s.calls) >= maxCalls {
		return errBusy
	}
	id := randomID()
	for s.calls[id] != nil {
		id = randomID()
	}
	wire.SetID(c.query(), id)
	s.calls[id] = c
	s.conn.SetReadDeadline(time.Now().Add(s.idle))
	return nil
}

func (s *stream) send(c *call) {
	s.write.Lock()
	defer s.write.Unlock()
	s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := s.conn.Write(c.sent); err != nil {
		s.fail(fmt.Errorf("%w: %w", errLost, plain(err)))
	}
}

// forget ends a call, answered or not.
func (s *stream) forget(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.over = true
	id := wire.ID(c.query())
	if s.calls[id] == c {
		delete(s.calls, id)
	}
	s.closeIfDone()
}

// retire lets the stream take no more queries.
func (s *stream) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
	s.closeIfDone()
}

// closeIfDone closes a retired stream that nobody waits for; reading then
// fails and cleans up.
func (s *stream) closeIfDone() {
	if s.retired && len(s.calls) == 0 && s.conn != nil {
		s.conn.Close()
	}
}

// fail ends the stream and every call on it.
func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	if s.conn != nil {
		s.conn.Close()
	}
	for id, c := range s.calls {
		delete(s.calls, id)
		c.done <- answer{err: err}
	}
}

// read hands each message that comes to the call it answers.
func (s *stream) read() {
	r := bufio.NewReaderSize(s.conn, 4096)
	for {
		if err := s.readOne(r); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = errors.New("idle for too long")
			}
			s.fail(fmt.Errorf("%w: %w", errLost, plain(err)))
			return
		}
	}
}

func (s *stream) readOne(r *bufio.Reader) error {
	var prefix [2]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint16(prefix[:]))
	if size < wire.HeaderLen {
		return fmt.Errorf("message of %d octets", size)
	}
	head, err := r.Peek(2)
	if err != nil {
		return err
	}
	c := s.find(wire.ID(head))
	if c == nil || size > c.limit {
		if _, err := r.Discard(size); err != nil {
			return err
		}
		return s.deliver(c, answer{err: errTooLong})
	}
	msg := make([]byte, size)
	if _, err := io.ReadFull(r, msg); err != nil {
		return err
	}
	return s.deliver(c, judge(c.query(), msg))
}

func (s *stream) find(id uint16) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[id]
}

// deliver ends c with a. A server that keeps sending what nobody asked for
// loses its connection.
func (s *stream) deliver(c *call, a answer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil || s.calls[wire.ID(c.query())] != c {
		if s.strays++; s.strays > maxStrays {
			return errors.New("too many replies that answer nothing")
		}
		return nil
	}
	s.strays = 0
	delete(s.calls, wire.ID(c.query()))
	c.done <- a
	return nil
}

// judge checks a reply that came over a stream. Nobody but the server can
// have sent it, so what is wrong with it ends the call instead of being
// dropped.
func judge(query, msg []byte) answer {
	switch wire.MatchReply(query, msg) {
	case wire.Matches, wire.CaseDiffers:
	default:
		if wire.BareError(query, msg) {
			return answer{err: fmt.Errorf("%w %d", errBare, wire.RCode(msg))}
		}
		return answer{err: errMismatch}
	}
	if wire.Truncated(msg) {
		return answer{err: errTruncated}
	}
	if err := wire.CheckReply(msg); err != nil {
		return answer{err: fmt.Errorf("reply is malformed: %w", err)}
	}
	return answer{msg: msg}
}

// replyLimit returns how long the reply to msg may be.
func replyLimit(msg []byte) int {
	q := wire.Question(msg)
	switch binary.BigEndian.Uint16(q[len(q)-4:]) {
	case wire.TypeDNSKEY, wire.TypeRRSIG, wire.TypeTXT, wire.TypeHTTPS, wire.TypeSVCB:
		return maxLongReply
	}
	return maxReply
}
