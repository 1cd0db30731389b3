package upstream

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	maxStreams   = 4  // connections kept to one server
	maxPipelined = 64 // queries on one of them while another may be opened
)

var errSpent = errors.New("query has used up its packets or connections")

// pool keeps a server's streams.
type pool struct {
	dial     func(context.Context) (net.Conn, error)
	timeouts Timeouts

	mu      sync.Mutex
	streams []*stream
}

func newPool(c *Config) *pool {
	return &pool{dial: c.dialer(c.Scheme == "tls"), timeouts: c.Timeouts}
}

// get returns a stream for one more query: the least busy one of those that
// began to connect after the given time, or a new one where there is none or
// all are busy. reused tells which.
func (p *pool) get(ctx context.Context, t trip, after time.Time) (w way, reused bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.streams[:0]
	var s *stream
	least := 0
	for _, candidate := range p.streams {
		if !candidate.usable() {
			continue
		}
		kept = append(kept, candidate)
		if n := candidate.load(); candidate.since.After(after) && (s == nil || n < least) {
			s, least = candidate, n
		}
	}
	clear(p.streams[len(kept):])
	p.streams = kept
	if s != nil && (least < maxPipelined || len(kept) >= maxStreams) {
		return s, true, nil
	}
	if !t.connection() {
		return nil, false, errSpent
	}
	s = &stream{idle: p.timeouts.Idle, since: time.Now(), ready: make(chan struct{}), calls: make(map[uint16]*call)}
	p.streams = append(p.streams, s)
	// Others may come to wait for this connection, so it does not end with
	// the query that happened to open it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.timeouts.Stream)
	go func() {
		defer cancel()
		s.open(ctx, p.dial)
	}()
	return s, false, nil
}
