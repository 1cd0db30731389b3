package upstream

import (
	"context"
	"errors"
	"sync"
	"time"
)

// transport carries queries over one connection of a protocol that keeps
// them apart itself. It connects when first asked.
type transport interface {
	// carry sends msg, whose ID is 0, and returns the reply as it came, of at
	// most limit octets. Its error is errConnecting when there was no
	// connection, and errLost when it ended before the reply came.
	carry(ctx context.Context, msg []byte, limit int) ([]byte, error)
	close()
}

// sessions keeps one transport to a server, the newest. Older ones end with
// their last query.
type sessions struct {
	open func() transport

	mu  sync.Mutex
	now *session
}

func (k *sessions) get(_ context.Context, t trip, after time.Time) (way, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.now; s != nil && s.usable() && s.since.After(after) {
		return s, true, nil
	}
	if !t.connection() {
		return nil, false, errSpent
	}
	if k.now != nil {
		k.now.retire()
	}
	k.now = &session{transport: k.open(), since: time.Now()}
	return k.now, false, nil
}

// session is a transport that is closed when it is retired and nobody uses it.
type session struct {
	transport transport
	since     time.Time

	mu      sync.Mutex
	users   int
	retired bool
	closed  bool
}

func (s *session) usable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.retired
}

func (s *session) retire() {
	s.mu.Lock()
	s.retired = true
	s.mu.Unlock()
	s.closeIfDone(0)
}

// closeIfDone changes the number of users, and closes what nobody needs.
func (s *session) closeIfDone(change int) {
	s.mu.Lock()
	s.users += change
	end := s.retired && s.users <= 0 && !s.closed
	s.closed = s.closed || end
	s.mu.Unlock()
	if end {
		s.transport.close()
	}
}

func (s *session) start(ctx context.Context, msg []byte, t trip, done chan<- answer) func() {
	if !t.packet() {
		done <- answer{err: errSpent}
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	s.closeIfDone(1)
	// The ID says nothing where queries are kept apart, and would only hinder
	// caches on the way (RFC 8484 section 4.1, RFC 9250 section 4.2.1).
	sent := append([]byte{0, 0}, msg[2:]...)
	go func() {
		defer cancel()
		defer s.closeIfDone(-1)
		reply, err := s.transport.carry(ctx, sent, replyLimit(sent))
		a := answer{err: err}
		if err == nil {
			a = judge(sent, reply)
		}
		if errors.Is(err, errLost) || errors.Is(err, errConnecting) {
			s.retire()
		}
		done <- a
	}()
	return cancel
}
