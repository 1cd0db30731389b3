package resolver

import (
	"slices"
	"time"

	"smartdns/resolver/cache"
	"smartdns/resolver/wire"
	"smartdns/routing"
)

const (
	// prefetchPart is the part of its life that an answer is near its end for:
	// then queries for it go through Resolve, which may ask again in time.
	prefetchPart = 10
	forever      = maxTTL * time.Second
)

// seal gives the answer to the fast lane, for as long as nothing has to be
// looked at again: its TTLs, its marks, and everything whose change advances
// the generation.
func (r *Resolver) seal(t *task) {
	if !t.sealable() {
		return
	}
	asked := *t.q // as one that takes the whole answer
	asked.Transport, asked.Flags.AD, asked.Flags.EDNS = "", true, true
	msg := t.pack(t.room.packed[:0], &asked)
	t.room.packed = msg
	life := t.lasts
	if ttl, ok := wire.MinTTL(msg); ok {
		life = min(life, seconds(ttl))
	}
	if until := t.Marked.Until; !until.IsZero() {
		life = min(life, time.Until(until)-routing.MarkGrace)
	}
	s := cache.Seal{View: cache.View(t.view.ID), DO: t.q.Flags.DO, CD: t.q.Flags.CD, Msg: msg, Life: life, Generation: t.generation, Learned: t.learned}
	if r.sealed.Put(s) {
		t.Sealed = life
	}
}

// Sealed reports whether the fast lane answers q now.
func (r *Resolver) Sealed(q *Query) bool {
	return r.sealed.Holds(q.Question, cache.View(r.policy.Load().Views.Of(q.From).ID), q.Flags.DO, q.Flags.CD)
}

// sealable reports whether the same question would get the same answer again:
// everything went as it should, and every address is marked or needs no mark.
func (t *task) sealable() bool {
	if !t.q.Flags.RD || t.rcode != wire.NoError && t.rcode != wire.NXDomain || t.doubtful || t.personal || t.Marked.Err != "" {
		return false
	}
	loose := func(a Address) bool { return !a.Marked && a.Note == "" && a.Dropped == "" }
	odd := func(v Visit) bool { return v.Err != "" || v.Suspect != "" }
	return !slices.ContainsFunc(t.Addresses, loose) &&
		!slices.ContainsFunc(t.Steps, func(s Step) bool { return slices.ContainsFunc(s.Lookup, odd) })
}
