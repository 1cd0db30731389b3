package server

import (
	"fmt"
	"sync"
	"sync/atomic"

	"smartdns/resolver/cache"
	"smartdns/resolver/wire"
)

// Lane is the fast lane: sealed answers leave without the handler, straight
// from the packet that asked to the packet that answers.
type Lane struct {
	Sealed *cache.Sealed // holds the answers
	// Watch opens a Watch for one worker; nil: nobody can change the sets that
	// sealed answers rely on without the generation being advanced.
	Watch func() (Watch, error)
}

// Watch tells that somebody else changed the sets in the kernel.
type Watch interface {
	// Foreign reports, without waiting, whether somebody did since the last
	// call. It sees every change that was complete before it was called.
	Foreign() bool
	Close() error
}

// SetLane opens the fast lane for listeners that are opened from now on.
func (s *Server) SetLane(l Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lane = l
}

// streamLane is the fast lane of the connections of one listener.
type streamLane struct {
	sealed *cache.Sealed

	mu     sync.Mutex // guards following
	watch  Watch      // nil: nothing to watch
	closed bool
}

func (l Lane) forStreams() (*streamLane, error) {
	w, err := l.watch()
	return &streamLane{sealed: l.Sealed, watch: w}, err
}

// answer appends the sealed answer to q to dst, if there is one that holds.
func (l *streamLane) answer(dst []byte, q wire.Query, view cache.View) (reply []byte, ok bool) {
	if !l.look() {
		return dst, false
	}
	return l.sealed.Answer(dst, q, view, wire.MaxMessage, l.sealed.Now())
}

// look advances the generation when somebody else changed the sets, before
// anybody else gets a sealed answer. It reports false when nobody watches any
// more.
func (l *streamLane) look() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch != nil && !l.closed && l.watch.Foreign() {
		l.sealed.Generation().Advance()
	}
	return !l.closed
}

func (l *streamLane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed = true; l.watch != nil {
		_ = l.watch.Close()
	}
}

// watch opens a worker's Watch.
func (l Lane) watch() (Watch, error) {
	if l.Watch == nil {
		return nil, nil
	}
	w, err := l.Watch()
	if err != nil {
		return nil, fmt.Errorf("watching the sets for the fast lane: %w", err)
	}
	return w, nil
}

// workerCounts is what one worker did. Only the worker writes.
type workerCounts struct {
	sealed, resolved, receives, sends atomic.Uint64
}

// udpCounts is a sum of workerCounts.
type udpCounts struct{ sealed, resolved, receives, sends uint64 }

func (u *udpCounts) add(l *listener) {
	for _, w := range l.workers {
		u.sealed += w.count.sealed.Load()
		u.resolved += w.count.resolved.Load()
		u.receives += w.count.receives.Load()
		u.sends += w.count.sends.Load()
	}
}
