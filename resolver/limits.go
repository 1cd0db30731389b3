package resolver

import (
	"errors"
	"net/netip"
	"sync"
)

var errOverload = errors.New("too many queries are waiting")

// slots counts the queries that wait for upstreams.
type slots struct {
	limits Limits
	mu     sync.Mutex // guards the rest
	total  int
	client map[netip.Addr]int
}

// take reports whether client may wait.
func (s *slots) take(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= s.limits.InFlight || s.client[client] >= s.limits.PerClient {
		return false
	}
	if s.client == nil {
		s.client = map[netip.Addr]int{}
	}
	s.total++
	s.client[client]++
	return true
}

// give ends a wait.
func (s *slots) give(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.client[client]--; s.client[client] == 0 {
		delete(s.client, client)
	}
}
