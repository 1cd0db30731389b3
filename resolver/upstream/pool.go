package upstream

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"smartdns/resolver/wire"
)

const (
	maxStreams   = 4  // connections kept to one server
	maxPipelined = 64 // queries on one of them while another may be opened
)

// patience is how long a connection that was open already may take to reply
// before a new one is tried beside it: its far end may have forgotten it.
const patience = time.Second

var errSpent = errors.New("query has used up its packets or connections")

// pool keeps a server's streams.
type pool struct {
	dial     func(context.Context) (net.Conn, error)
	timeouts Timeouts

	mu      sync.Mutex
	streams []*stream
}

func newPool(c Config) *pool {
	return &pool{dial: dialer(c), timeouts: c.Timeouts}
}

// get returns a stream for one more query: the least busy one of those that
// began to connect after the given time, or a new one where there is none or
// all are busy. reused tells which.
func (p *pool) get(ctx context.Context, t trip, after time.Time) (s *stream, reused bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.streams[:0]
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

// exchange asks over a pooled stream. When that is lost, or was open already
// and stays silent, it asks once more over a new one; note says so.
func (p *pool) exchange(ctx context.Context, msg []byte, t trip) (reply []byte, note string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, 2)
	ask := func(after time.Time) (*stream, bool, error) {
		s, reused, err := p.get(ctx, t, after)
		if err == nil {
			go func() {
				reply, err := s.ask(ctx, msg, t)
				answers <- answer{reply, err}
			}()
		}
		return s, reused, err
	}
	begun := time.Now()
	first, reused, err := ask(time.Time{})
	if err != nil {
		return nil, "", err
	}
	var silent <-chan time.Time
	if reused {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		silent = timer.C
	}
	for pending := 1; pending > 0; {
		select {
		case a := <-answers:
			if a.err == nil {
				return a.msg, note, nil
			}
			pending--
			err = a.err
			if note == "" && errors.Is(err, errLost) {
				if _, _, again := ask(begun); again == nil {
					note, pending = "connection was lost, asked over a new one", pending+1
				}
			}
		case <-silent:
			first.retire()
			if note == "" {
				if _, _, again := ask(begun); again == nil {
					note, pending = "connection was silent, asked over a new one", pending+1
				}
			}
		case <-ctx.Done():
			return nil, note, context.Cause(ctx)
		}
	}
	return nil, note, err
}

// exchangeEDNS is exchange for servers that may not know EDNS: FORMERR is
// answered by asking once without OPT (RFC 6891 section 7). That is not
// remembered, so that no reply can switch EDNS off for the next query.
func (p *pool) exchangeEDNS(ctx context.Context, msg []byte, t trip) (reply []byte, note string, err error) {
	reply, note, err = p.exchange(ctx, msg, t)
	bare := errors.Is(err, errBare)
	if !wire.HasOPT(msg) || !bare && (err != nil || wire.RCode(reply) != wire.FormErr) {
		return reply, note, err
	}
	plain, _, again := p.exchange(ctx, wire.AppendWithoutOPT(nil, msg), t)
	if again != nil {
		return reply, note, err
	}
	return plain, "FORMERR to EDNS, asked without", nil
}

// streamServer is a server asked over TCP or TLS only.
type streamServer struct{ *server }

func (s *streamServer) Exchange(ctx context.Context, q Query) (Reply, error) {
	if wire.Question(q.Msg) == nil {
		return Reply{}, errNoQuestion
	}
	start := time.Now()
	s.health.asked()
	limited, cancel := context.WithTimeoutCause(ctx, s.config.Timeouts.Total, errNoReply)
	defer cancel()
	msg, note, err := s.pool.exchangeEDNS(limited, q.Msg, tripOf(ctx))
	reply := Reply{Tries: []Try{{
		Server: s.config.Text, Proto: s.config.Scheme, Took: time.Since(start), Note: note, Err: err,
	}}}
	if err == nil {
		wire.CopyQuestion(msg, q.Msg)
		reply.Msg = msg
		reply.Suspicious = q.Suspect != nil && q.Suspect(s.config.Text, msg)
	}
	s.settle(ctx, start, &reply, err)
	return reply, err
}
