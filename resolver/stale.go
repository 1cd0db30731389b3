package resolver

import (
	"fmt"
	"time"

	"smartdns/resolver/cache"
	"smartdns/resolver/wire"
)

const (
	// clientPatience is how long a client waits before it gets a stale answer
	// (RFC 8767 section 5).
	clientPatience = 1800 * time.Millisecond
	// staleTTL is what a stale answer is given with, in seconds (RFC 8767
	// section 4).
	staleTTL = 30
	// failureLife is for how long nobody is asked again after a failure (RFC
	// 9520 section 3.2), and staleFailureLife is it where there is a stale
	// answer to give meanwhile (RFC 8767 section 5).
	failureLife      = 5 * time.Second
	staleFailureLife = 30 * time.Second
)

// Keep says how answers are kept. The zero value gives none after it expired,
// fetches none before, and takes TTLs as they come.
type Keep struct {
	Stale          time.Duration // for how long after its end an answer may stand for one that is not to be had
	Prefetch       bool          // fetch what is asked for again and again before it expires
	MinTTL, MaxTTL time.Duration // of records; MaxTTL 0 is a day
}

// kindStale is what the story says of an answer that expired.
const kindStale = "stale"

// stale returns the answer that the cache had, as it may be given when there is
// no other. Which region a name is in is nothing to guess from old answers.
func (l *lookup) stale() (outcome, bool) {
	if l.pol.Keep.Stale <= 0 || l.anew || l.id == l.pol.judgeID {
		return outcome{}, false
	}
	e, ok := l.r.cache.Stale(l.key, l.pol.Keep.Stale)
	if !ok || e.Left > 0 {
		return outcome{}, false
	}
	out := l.stored(e)
	out.kind = kindStale
	out.msg.bound(func(uint32) uint32 { return staleTTL })
	return out, out.err == nil
}

// instead returns old, given because of err.
func instead(old outcome, err error) outcome {
	old.why = err.Error()
	return old
}

// orStale returns a flight that lands as f does, but with old where f fails, or
// has not landed when the client has waited long enough. f goes on.
func (t *task) orStale(f *flight, old outcome) *flight {
	s := &flight{done: make(chan struct{}), suspected: f.suspected}
	patience := max(0, clientPatience-time.Since(t.Time))
	go func() {
		defer close(s.done)
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-f.done:
			if s.out = f.out; s.out.err != nil {
				s.out = instead(old, s.out.err)
			}
		case <-timer.C:
			s.out = instead(old, errWaited)
		}
	}()
	return s
}

// fromCache writes into the story how old out is, and tells the client when it
// is too old.
func (t *task) fromCache(out outcome) {
	s := t.step()
	s.Cached, s.Age, s.Prefetched = out.kind, out.age, out.prefetched
	if out.kind != kindStale {
		return
	}
	code := edeStale
	if out.msg.rcode == wire.NXDomain {
		code = edeStaleNXDomain
	}
	t.explain(code, fmt.Sprintf("the %s side's last answer, %s old: %s", t.side, out.age.Round(time.Second), out.why))
}

// keepWithin puts the TTLs of m between those of k. That there is nothing is not
// said for longer than its zone wants. The records must be m's own.
func (m message) keepWithin(k Keep) {
	if k.MinTTL == 0 && k.MaxTTL == 0 {
		return
	}
	low, high := uint32(k.MinTTL/time.Second), uint32(maxTTL)
	if k.MaxTTL > 0 {
		high = min(high, uint32(k.MaxTTL/time.Second))
	}
	for i := range m.answer {
		m.answer[i].ttl = min(max(m.answer[i].ttl, low), high)
	}
	for i := range m.authority {
		m.authority[i].ttl = min(m.authority[i].ttl, high)
	}
}

// relife makes cached answers live as k has it, which were kept as old had it. An
// answer whose life is the old MinTTL may have been to live for less: where that
// is lower now, it is as good as expired.
func (k Keep) relife(c *cache.Cache, old Keep) {
	if k.MinTTL == old.MinTTL && k.MaxTTL == old.MaxTTL {
		return
	}
	high := k.MaxTTL
	if high == 0 {
		high = maxTTL * time.Second
	}
	c.Relife(func(kind cache.Kind, life time.Duration) time.Duration {
		switch {
		case kind == cache.Positive && k.MinTTL < old.MinTTL && life <= old.MinTTL:
			return 0
		case kind == cache.Positive:
			return min(max(life, k.MinTTL), high)
		case kind == cache.Negative, kind == cache.Bare:
			return min(life, high)
		}
		return life
	})
}

// failed remembers that the answer could not be had.
func (l *lookup) failed(err error) {
	life := failureLife
	if _, ok := l.stale(); ok {
		life = staleFailureLife
	}
	l.r.cache.Put(l.key, cache.Failure, failureOf(err).append(nil), life)
}
