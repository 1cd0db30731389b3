package resolver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

// lookup is one question to one side: what the cache keys by, and what an
// exchange needs.
type lookup struct {
	r       *Resolver
	pol     *Policy
	side    string // its name, for people
	id      string // what the cache knows it by
	to      Side
	name    dnsname.FQDN
	qtype   uint16
	do, cd  bool
	anew    bool // whatever the cache has
	ahead   bool // nobody waits for it
	options []byte
	buffers
}

// buffers is what a lookup writes.
type buffers struct {
	question, key []byte // set by identify
	query         []byte // as an upstream gets it
}

// stored reads a cache entry.
func (l *lookup) stored(e cache.Entry) outcome {
	out := outcome{kind: e.Kind.String(), aged: aged{age: e.Age, prefetched: e.Prefetched}}
	switch e.Kind {
	case cache.Failure:
		out.err = readFailure(e.Body)
	case cache.Doubt:
		out.suspect.why = string(e.Body)
	default:
		var m message
		if m, out.err = unpackStored(e.Body, l.question, l.name, l.qtype, l.do); out.err == nil {
			if l.bogus(m) { // it was not yet when the answer came
				m = message{rcode: wire.NXDomain}
			}
			m.keepWithin(l.pol.Keep)
			m.age(e.Age)
			out.msg = m
			out.lasts = e.Left - (e.Age+e.Left)/prefetchPart
		}
	}
	return out
}

// exchange asks, judges the reply and keeps it.
func (l *lookup) exchange(ctx context.Context, f *flight, purse *upstream.Purse) outcome {
	begun := time.Now()
	out := l.send(ctx, f, purse)
	out.took = time.Since(begun)
	switch {
	case out.err != nil && errors.Is(ctx.Err(), context.Canceled): // that says nothing of the side
	case out.err != nil:
		if f.shared.Load() {
			l.r.testLoop(*l)
		}
		if l.r.flights.loops.has(l.side) {
			out.err = fmt.Errorf("%w (its server sends our questions back to us: a forwarding loop)", out.err)
		}
		l.failed(out.err)
	case out.suspect.why == "":
		kind, life := out.msg.life(l.qtype)
		life = min(life, kind.MaxLife())
		out.lasts = life - life/prefetchPart
		l.keep(kind, out.msg, life)
	}
	return out
}

func (l *lookup) send(ctx context.Context, f *flight, purse *upstream.Purse) outcome {
	l.query = wire.AppendQuery(l.query[:0], l.question[:len(l.question)-4], l.qtype, l.do, l.cd, l.options)
	l.query[3] |= 0x20 // AD: we want to know whether it validated (RFC 6840 section 5.7)
	q := upstream.Query{Msg: l.query, Purse: purse}
	if l.side == Domestic {
		q.Hold = l.pol.Poison.Hold
		q.Suspect = func(server string, reply []byte) bool {
			odd := l.odd(server, reply)
			if odd {
				f.suspect()
			}
			return odd
		}
	}
	reply, err := l.to.Exchanger.Exchange(ctx, q)
	out := outcome{tries: reply.Tries, err: err}
	if err != nil {
		return out
	}
	release, ok := l.r.parsing.take(len(reply.Msg))
	if !ok {
		l.r.count.overloaded.Add(1)
		out.err = errMemory
		return out
	}
	defer release()
	if wire.Truncated(reply.Msg) {
		out.err = fmt.Errorf("%s: %w", l.side, errMalformed)
		return out
	}
	if out.msg, out.err = parse(reply.Msg, l.name, l.qtype, l.do); out.err != nil {
		out.err = fmt.Errorf("%s: %w", l.side, out.err)
		return out
	}
	out.msg.keepWithin(l.r.policy.Load().Keep) // as it is kept when a reload came meanwhile
	if code := out.msg.rcode; code != wire.NoError && code != wire.NXDomain {
		out.err = fmt.Errorf("%s %w %s", l.side, errRefused, rcodeName(code))
		return out
	}
	if len(out.msg.answer) > 0 {
		l.r.testHijack(l)
	}
	if l.bogus(out.msg) {
		l.r.count.poison.bogus.Add(1)
		out.msg = message{rcode: wire.NXDomain}
		return out
	}
	if l.side == Domestic {
		if out.suspect = l.suspicious(out.msg, reply.Server(), reply.Msg); out.suspect.why != "" {
			f.suspect()
			l.r.count.poison.suspicious.Add(1)
		} else {
			l.r.servers.saw(reply)
		}
	}
	return out
}
