package resolver

import (
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
func (r *Resolver) prefetch(l lookup, key []byte) {
	if !l.pol.Keep.Prefetch {
		return
	}
	if r.ahead.Add(1) > maxPrefetch {
		r.ahead.Add(-1)
		return
	}
	l.ahead = true
	fly := r.fly(nil, l, key)
	_, shared, room := r.flights.join(string(key), zoneOf(l.name), r.limits, func(f *flight) {
		defer r.ahead.Add(-1)
		fly(f)
	})
	if shared || !room {
		r.ahead.Add(-1)
		return
	}
	r.count.prefetches.Add(1)
}

// fly returns what fills a flight with the outcome of l, at the cost of purse.
func (r *Resolver) fly(purse *upstream.Purse, l lookup, key []byte) func(*flight) {
	return func(f *flight) {
		// The exchange outlives the query that began it: others may wait for
		// it, and the cache wants the answer anyway.
		ctx := upstream.WithPurse(r.flights.ends.Context(), purse)
		defer func() {
			// Nobody above this goroutine would turn it into a SERVFAIL.
			if p := recover(); p != nil {
				r.log.Error("resolver: panic in an exchange", "panic", p, "stack", string(debug.Stack()))
				f.out = outcome{err: errPanic}
			}
		}()
		if e, ok := r.cache.Peek(key); ok && !l.anew && !l.ahead {
			f.out = l.stored(e) // an equal exchange ended between our look at the cache and this one
			return
		}
		f.out = l.exchange(ctx, key, f)
		if p := (*upstream.PanicError)(nil); errors.As(f.out.err, &p) {
			r.log.Error("resolver: panic in a server", "panic", p.Value, "stack", string(p.Stack))
		}
	}
}

// key is what the cache keeps the answer to l under.
func (l lookup) key() []byte {
	return cache.AppendKey(make([]byte, 0, len(l.id)+len(l.question)+2), l.id, l.question, l.do, l.cd)
}

// keep puts the answer into the cache.
func (l lookup) keep(key []byte, kind cache.Kind, m message, life time.Duration) {
	put := l.r.cache.Put
	if l.ahead {
		put = l.r.cache.Prefetched
	}
	put(key, kind, m.stored(l.question, l.name), life)
}
