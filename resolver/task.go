package resolver

import (
	"context"
	"fmt"
	"time"

	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

// maxAsks is how many questions one query may cost (SECURITY R-18).
const maxAsks = 12

// task is one query being resolved. Only the goroutine of its Resolve touches
// it.
type task struct {
	*Decision
	governed
	sealing
	spent
	q     *Query
	room  *room
	pol   *Policy
	name  dnsname.FQDN // being decided: the asked name, or the target of a cut CNAME
	side  string       // whose answer was taken last
	links int

	doubtful bool // the answer has a part that looked forged, and is used for want of a better one
}

// room is where a task writes. The next one uses it again, unless somebody keeps
// the story.
type room struct {
	records []record // of the answer
	packed  []byte   // the answer
	asking  asking   // the first one, where it does not outlive its task
}

// sealing is for how long the answer may be given again.
type sealing struct {
	lasts      time.Duration   // without looking again
	generation uint64          // of all that the answer depends on
	learned    []cache.Learned // of the names that auto decided
	personal   bool            // another client may get another answer
}

// governed is what the rules say of the chain so far.
type governed struct {
	view  policy.View // of the client
	rule  policy.Rule // that decides the name
	pin   policy.Rule // the first rule with a path of its own, if any
	shape shape       // by the first rules that say one
	stay  string      // the side that the rest of a chain is asked at; "" as rules say
}

// spent is what the query has cost others so far.
type spent struct {
	asks   int
	purse  *upstream.Purse
	seated bool // holds one of the slots
}

func (t *task) step() *Step { return &t.Steps[len(t.Steps)-1] }

// next makes s the current step.
func (t *task) next(s Step) {
	if n := len(t.Steps); n < cap(t.Steps) {
		t.Steps = t.Steps[:n+1]
		s.Lookup = t.Steps[n].Lookup[:0]
		t.Steps[n] = s
		return
	}
	t.Steps = append(t.Steps, s)
}

// visited writes v into the story, with what servers were tried.
func (t *task) visited(v Visit, tries []upstream.Try) {
	all := &t.step().Lookup
	if n := len(*all); n < cap(*all) {
		*all = (*all)[:n+1]
		v.Tries = (*all)[n].Tries[:0]
		(*all)[n] = v
	} else {
		*all = append(*all, v)
	}
	last := &(*all)[len(*all)-1]
	for _, try := range tries {
		last.Tries = append(last.Tries, tryOf(try))
	}
}

func (t *task) note(format string, a ...any) { t.Notes = append(t.Notes, fmt.Sprintf(format, a...)) }

// asking is a question to one side, on its way.
type asking struct {
	*flight
	lookup
	visit Visit
}

// purpose is why a side is asked.
type purpose string

const (
	forAnswer   purpose = "answer"
	forJudging  purpose = "judge"
	forOpinion  purpose = "second opinion"
	forFallback purpose = "fallback"
	forDoubt    purpose = "a doubt, again" // past the cache
)

// ask starts asking side about t.name, unless the cache knows.
func (r *Resolver) ask(t *task, side string, qtype uint16, why purpose) *asking {
	a := new(asking)
	r.aim(a, t, side, qtype, why)
	if !r.remembered(a) {
		r.depart(t, a, r.join(t, a))
	}
	return a
}

// settle asks side about t.name and waits for its answer for as long as ctx
// lasts. The first exchange of a query, unless somebody makes it already or
// there is a stale answer for who cannot wait, is made here and ends with ctx;
// later ones have too little left of that for others who may join them.
func (r *Resolver) settle(ctx context.Context, t *task, side string, why purpose) outcome {
	if t.asks > 0 || side == Domestic { // whose servers may show us replies when this is over
		return t.take(ctx, r.ask(t, side, t.q.Type, why), 0)
	}
	a := &t.room.asking
	r.aim(a, t, side, t.q.Type, why)
	if !r.remembered(a) {
		begun := r.join(t, a)
		if _, stale := a.stale(); begun && !stale {
			r.fly(ctx, a.flight, t.purse, &a.lookup)
		} else {
			away := &asking{flight: a.flight, lookup: a.lookup, visit: a.visit}
			away.buffers = buffers{}
			away.identify()
			r.depart(t, away, begun)
			a = away
		}
	}
	return t.take(ctx, a, 0)
}

// aim makes a the question to side about t.name, which nobody asks yet.
func (r *Resolver) aim(a *asking, t *task, name string, qtype uint16, why purpose) {
	side := t.pol.Sides[name]
	t.personal = t.personal || side.Subnet.Client
	subnet := side.Subnet.of(t.q.Client)
	*a = asking{
		lookup: lookup{
			r: r, pol: t.pol, side: name, id: t.sideID(name), to: side,
			name: t.name, qtype: qtype, do: t.q.Flags.DO, cd: t.q.Flags.CD, anew: why == forDoubt,
			options: subnet.option(), buffers: a.buffers,
		},
		visit: Visit{Side: name, Path: side.Path, Why: string(why)},
	}
}

// sideID is what the cache knows a side by, for the client of t.
func (t *task) sideID(name string) string {
	return t.pol.ids[name] + t.pol.Sides[name].Subnet.of(t.q.Client).key()
}

// judge starts asking which region t.name is in: the address of the name for
// a client at home.
func (r *Resolver) judge(t *task) *asking {
	auto := t.pol.Auto
	side := Side{Exchanger: auto.Judge, Path: t.pol.Sides[Foreign].Path, Trusted: true}
	a := &asking{
		lookup: lookup{
			r: r, pol: t.pol, side: Foreign, id: t.pol.judgeID, to: side, name: t.name, qtype: wire.TypeA,
			options: wire.AppendECS(nil, auto.Home),
		},
		visit: Visit{Side: Foreign, Path: side.Path, Why: string(forJudging)},
	}
	if !r.remembered(a) {
		r.depart(t, a, r.join(t, a))
	}
	return a
}

// depart makes the exchange of a, if it was begun for a, in a goroutine of its
// own: it outlives its query, since others may wait for it, and the cache wants
// the answer anyway.
func (r *Resolver) depart(t *task, a *asking, begun bool) {
	if f, purse := a.flight, t.purse; begun {
		r.flights.await(f)
		r.flights.start(func() { r.fly(r.flights.ends.Context(), f, purse, &a.lookup) })
	}
	if old, ok := a.stale(); ok {
		a.flight = t.orStale(a.flight, old)
	}
}

// remembered answers a out of the cache, and reports whether it did.
func (r *Resolver) remembered(a *asking) bool {
	if a.to.Exchanger == nil {
		a.flight = r.flights.landed(outcome{err: fmt.Errorf("there is no side %s", a.side)})
		return true
	}
	a.identify()
	e, ok := r.cache.Get(a.key)
	if !ok || a.anew {
		return false
	}
	known := a.stored(e)
	if known.err != nil && e.Kind != cache.Failure {
		return false
	}
	if known.err != nil {
		if old, ok := a.stale(); ok {
			known = instead(old, known.err)
		}
	}
	if e.Refresh {
		r.prefetch(a.lookup)
	}
	a.flight = r.flights.landed(known)
	a.visit.Cached = known.kind
	return true
}

// join joins the exchange of a, or reports that there is none yet and that it is
// the caller's to make.
func (r *Resolver) join(t *task, a *asking) (begun bool) {
	switch {
	case t.asks >= maxAsks:
		a.flight = r.flights.landed(outcome{err: errTooMany})
		return false
	case r.cameBack(a.lookup, t.q.Client):
		a.flight = r.flights.landed(outcome{err: errCameBack})
		return false
	case !t.seated && !r.slots.take(t.q.Client):
		r.count.overloaded.Add(1)
		a.flight = r.flights.landed(outcome{err: errOverload})
		return false
	}
	t.seated = true
	t.asks++
	if t.purse == nil {
		t.purse = new(upstream.Purse)
	}
	// An exchange lives on when its query has ended, so that exchanges need a
	// limit of their own.
	f, shared, room := r.flights.join(a.flown(), zoneOf(a.name), a.side == Domestic, r.limits)
	if !room {
		r.count.overloaded.Add(1)
		a.flight = r.flights.landed(outcome{err: errOverload})
		return false
	}
	a.flight = f
	if a.visit.Shared = shared; shared {
		r.count.shared.Add(1)
		if time.Since(f.begun) > loopDoubt {
			r.testLoop(a.lookup)
		}
	}
	if a.side == Domestic && t.rule.Action == policy.AskAuto {
		r.count.auto.exposed.add(a.name)
	}
	return !shared
}

// take waits for the outcome of a, at most until ctx ends or for patience, and
// writes it into the story. 0 is patience without an end.
func (t *task) take(ctx context.Context, a *asking, patience time.Duration) outcome {
	out := a.wait(ctx, patience)
	v := a.visit
	v.Suspect, v.Took = out.suspect.why, out.took
	v.Cached, v.Age, v.Prefetched = out.kind, out.age, out.prefetched
	if out.err != nil {
		v.Err = out.err.Error()
	} else {
		v.RCode = rcodeName(out.msg.rcode)
	}
	t.visited(v, out.tries)
	return out
}

// wait prefers an outcome that is there to the end of ctx.
func (f *flight) wait(ctx context.Context, patience time.Duration) outcome {
	select {
	case <-f.done:
		return f.out
	default:
	}
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	select {
	case <-f.done:
		return f.out
	case <-ctx.Done():
		return outcome{err: errWaited}
	}
}

// leave writes into the story that nobody waited for a.
func (t *task) leave(a *asking) {
	if a == nil {
		return
	}
	v := a.visit
	v.Err = "not waited for"
	t.visited(v, nil)
}

func tryOf(try upstream.Try) Try {
	t := Try{Server: try.Server, Proto: try.Proto, Took: try.Took, Note: try.Note}
	if try.Err != nil {
		t.Err = try.Err.Error()
	}
	return t
}
