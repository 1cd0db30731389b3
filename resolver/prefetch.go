package resolver

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"smartdns/resolver/cache"
	"smartdns/resolver/upstream"
)

// maxPrefetch is how many answers are fetched ahead at a time. What is over it
// is not: it expires, and the next query fetches it.
const maxPrefetch = 64

// prefetch asks for what the cache has anew. Nobody waits for it.
func (r *Resolver) prefetch(l lookup) {
	if !l.pol.Keep.Prefetch {
		return
	}
	if r.ahead.Add(1) > maxPrefetch {
		r.ahead.Add(-1)
		return
	}
	l.ahead = true
	l.buffers = buffers{}
	l.identify()
	f, shared, room := r.flights.join(l.key, zoneOf(l.name), l.side == Domestic, r.limits)
	if shared || !room {
		r.ahead.Add(-1)
		return
	}
	r.count.prefetches.Add(1)
	r.flights.start(func() {
		defer r.ahead.Add(-1)
		r.fly(r.flights.ends.Context(), f, nil, &l)
	})
}

// fly fills f with the outcome of l, at the cost of purse, and lands it.
func (r *Resolver) fly(ctx context.Context, f *flight, purse *upstream.Purse, l *lookup) {
	defer r.flights.land(f)
	defer func() {
		// Nobody above this goroutine would turn it into a SERVFAIL.
		if p := recover(); p != nil {
			r.log.Error("resolver: panic in an exchange", "panic", p, "stack", string(debug.Stack()))
			f.out = outcome{err: errPanic}
		}
	}()
	if e, ok := r.cache.Peek(l.key); ok && !l.anew && !l.ahead {
		f.out = l.stored(e) // an equal exchange ended between our look at the cache and this one
		return
	}
	f.out = l.exchange(ctx, f, purse)
	if f.out.err == nil {
		return
	}
	if p := (*upstream.PanicError)(nil); errors.As(f.out.err, &p) {
		r.log.Error("resolver: panic in a server", "panic", p.Value, "stack", string(p.Stack))
	}
}

// identify writes down what the cache keeps the answer to l under.
func (l *lookup) identify() {
	l.question = appendQuestion(l.question[:0], l.name, l.qtype)
	l.key = cache.AppendKey(l.key[:0], l.id, l.question, l.do, l.cd)
}

// flown is what equal exchanges share. One past the cache shares none that may
// end with what the cache has.
func (l *lookup) flown() []byte {
	if l.anew {
		return append(l.key[:len(l.key):len(l.key)], '!') // no key: those end with the type
	}
	return l.key
}

// keep puts the answer into the cache.
func (l *lookup) keep(kind cache.Kind, m message, life time.Duration) {
	var room [512]byte
	body := m.stored(room[:0], l.question, l.name)
	if l.ahead {
		l.r.cache.Prefetched(l.key, kind, body, life)
	} else {
		l.r.cache.Put(l.key, kind, body, life)
	}
}
