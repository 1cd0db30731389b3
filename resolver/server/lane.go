package server

import (
	"fmt"
	"sync/atomic"

	"smartdns/resolver/cache"
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
	s.udp.lane = l
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
