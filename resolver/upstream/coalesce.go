package upstream

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"smartdns/resolver/wire"
)

// Coalesce makes equal queries in flight one query to ex, so that nobody can
// make many chances to guess its ID by asking the same often (RFC 5452
// section 5). Equal are queries with the same question but for its case, the
// same header flags, DO bit and EDNS options. Each asker gets a reply of its
// own with its ID and its spelling. A query ends when all who asked have gone,
// whoever was first. The first asker's Suspect and Hold serve all: Suspect may
// be called after the Exchange that brought it has returned.
func Coalesce(ex Exchanger) Exchanger {
	return &coalescer{Exchanger: ex, flights: make(map[string]*flight)}
}

type coalescer struct {
	Exchanger
	mu      sync.Mutex
	flights map[string]*flight
}

// flight is one query that several may wait for.
type flight struct {
	done    chan struct{} // closed when reply and err are set
	reply   Reply
	err     error
	waiting int
	cancel  context.CancelFunc
}

func (c *coalescer) report() []Status { return Health(c.Exchanger) }

func (c *coalescer) Exchange(ctx context.Context, q Query) (Reply, error) {
	key := flightKey(q.Msg)
	if key == "" {
		return Reply{}, errNoQuestion
	}
	f := c.join(ctx, key, q)
	select {
	case <-f.done:
	case <-ctx.Done():
		c.leave(key, f)
		return Reply{}, context.Cause(ctx)
	}
	reply := Reply{Suspicious: f.reply.Suspicious, Tries: slices.Clone(f.reply.Tries)}
	if f.err == nil {
		reply.Msg = bytes.Clone(f.reply.Msg)
		wire.CopyQuestion(reply.Msg, q.Msg)
	}
	return reply, f.err
}

// join returns the flight for key, starting it if there is none.
func (c *coalescer) join(ctx context.Context, key string, q Query) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[key]; f != nil {
		f.waiting++
		return f
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{done: make(chan struct{}), waiting: 1, cancel: cancel}
	c.flights[key] = f
	q.Msg = bytes.Clone(q.Msg)
	go func() {
		defer cancel()
		f.reply, f.err = c.Exchanger.Exchange(ctx, q)
		c.land(key, f)
		close(f.done)
	}()
	return f
}

// land lets nobody join f any more.
func (c *coalescer) land(key string, f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[key] == f {
		delete(c.flights, key)
	}
}

// leave ends f when nobody waits for it.
func (c *coalescer) leave(key string, f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiting--; f.waiting > 0 {
		return
	}
	if c.flights[key] == f {
		delete(c.flights, key)
	}
	f.cancel()
}

// flightKey is what two queries must have in common to share a reply; "" when
// msg has no question.
func flightKey(msg []byte) string {
	question := wire.Question(msg)
	if question == nil {
		return ""
	}
	options, do, edns := wire.Options(msg)
	key := make([]byte, 0, 4+len(question)+len(options))
	key = append(key, msg[2], msg[3], bit(do), bit(edns))
	key = wire.Key(key, question)
	return string(append(key, options...))
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}
