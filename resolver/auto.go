package resolver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"smartdns/geo"
	"smartdns/resolver/wire"
)

const (
	// foreignPatience is how long the foreign side may take before the
	// domestic one is asked in its place, so that a query still gets an answer
	// in its time.
	foreignPatience = 2500 * time.Millisecond
	// judgePatience is how long a name's region is waited for when its foreign
	// answer is there already.
	judgePatience = 1500 * time.Millisecond
	// nearPatience is how long a nearby answer is waited for when a foreign one
	// is there already.
	nearPatience = 1500 * time.Millisecond
	// fallbackPatience is how long the domestic side may take in place of the
	// foreign one, which may still answer late.
	fallbackPatience = 1500 * time.Millisecond
)

// contradiction is a domestic answer that a name at home does not have, unlike
// a failure to get any.
type contradiction string

func (c contradiction) Error() string { return string(c) }

// auto decides which side answers for t.name, which no rule gives to one.
func (r *Resolver) auto(ctx context.Context, t *task) outcome {
	story := &Story{Mode: t.pol.Auto.Mode}
	t.step().Auto = story
	if t.pol.Auto.Mode == ForeignOnly {
		t.side = Foreign
		return r.settle(ctx, t, Foreign, forAnswer)
	}
	r.relies(t)
	if v, due, ok := r.learned.Use(t.name); ok {
		story.Region, story.Why, story.Learned, story.Age, story.Pinned = v.Region.String(), v.Why, true, v.Age, v.Pinned
		if due {
			r.judgeAgain(ctx, t, v)
		}
		return r.known(ctx, t, v)
	}
	if t.pol.Auto.Mode == Race && (t.q.Type == wire.TypeA || t.q.Type == wire.TypeAAAA) {
		return r.race(ctx, t)
	}
	return r.unknown(ctx, t, nil)
}

// known decides a name by what was learned about it.
func (r *Resolver) known(ctx context.Context, t *task, v Verdict) outcome {
	if v.Region != geo.Home {
		far := r.ask(t, Foreign, t.q.Type, forAnswer)
		out := t.take(ctx, far, foreignPatience)
		t.side = Foreign
		switch addrs := out.msg.addresses(); {
		case out.err != nil && v.Pinned:
			return t.late(ctx, far, out) // whoever pinned it abroad wants nobody at home to know it
		case out.err != nil:
			return r.foreignDown(ctx, t, far, out, nil)
		case len(addrs) > 0 && t.pol.allHome(out.msg):
			r.contradict(t, "every address of it is home")
		}
		return out
	}
	near := r.near(ctx, t, nil)
	if near.err == nil {
		return near
	}
	if why := contradiction(""); errors.As(near.err, &why) {
		r.contradict(t, string(why))
	}
	return r.unknown(ctx, t, &near)
}

// contradict drops the verdict for t.name, so that it is judged again.
func (r *Resolver) contradict(t *task, why string) {
	r.count.auto.contradicted.Add(1)
	if r.learned.contradict(t.name) {
		r.sealed.Turned(string(t.name)) // what was decided by it goes this way again
		t.note("forgot the verdict for %s: %s", t.name, why)
	} else {
		t.note("%s stays pinned, although %s", t.name, why)
	}
}

// learn remembers that t.name is in region.
func (r *Resolver) learn(t *task, region geo.Region, why string) {
	if r.learned.Learn(t.name, region, why) {
		r.sealed.Turned(string(t.name))
	}
}

// relies notes that the answer holds for as long as what is known about t.name.
func (r *Resolver) relies(t *task) {
	l, state := r.sealed.Learned(string(t.name))
	t.learned = append(t.learned, l)
	t.generation += state
}

// unknown asks the foreign side, and which region the name is in; a name at
// home then gets the nearby answer of the domestic side. tried is what the
// domestic side said before, nil when it was not asked.
func (r *Resolver) unknown(ctx context.Context, t *task, tried *outcome) outcome {
	var judge *asking
	if t.pol.Auto.Judge != nil {
		judge = r.judge(t)
	}
	far := r.ask(t, Foreign, t.q.Type, forAnswer)
	plain := t.take(ctx, far, foreignPatience)
	if plain.err != nil {
		t.leave(judge)
		return r.foreignDown(ctx, t, far, plain, tried)
	}
	t.side = Foreign
	if plain.kind == kindStale { // where the name is now, it cannot say
		t.leave(judge)
		return plain
	}
	region, why := r.region(ctx, t, judge, plain)
	if region == geo.Unknown {
		return plain
	}
	if story := t.step().Auto; !story.Pinned {
		*story = Story{Mode: story.Mode, Region: region.String(), Why: why}
	}
	if region == geo.Home {
		if tried != nil {
			return plain
		}
		near := r.near(ctx, t, &plain)
		if near.err != nil {
			t.note("kept the foreign answer: %s", near.err)
			t.side = Foreign
			return plain
		}
		r.learn(t, region, why)
		return near
	}
	r.learn(t, region, why)
	return plain
}

// region says which region t.name is in, and why: by the answer for a client
// at home, or, where that says nothing, by the foreign answer itself.
func (r *Resolver) region(ctx context.Context, t *task, judge *asking, plain outcome) (geo.Region, string) {
	r.count.auto.judged.Add(1)
	if judge != nil {
		out := t.take(ctx, judge, judgePatience)
		if addrs := out.msg.addresses(); out.err == nil && len(addrs) > 0 {
			region, addr := t.pol.region(addrs)
			return region, fmt.Sprintf("%s, for a client in %s", addr, t.pol.Auto.Home)
		}
	}
	addrs := plain.msg.addresses()
	if len(addrs) == 0 {
		return geo.Unknown, ""
	}
	region, addr := t.pol.region(addrs)
	return region, fmt.Sprintf("%s, for a client abroad", addr)
}

// near returns the domestic side's answer for a name at home, or an error that
// says why it is not to be believed. plain is the foreign answer, when there
// is one.
func (r *Resolver) near(ctx context.Context, t *task, plain *outcome) outcome {
	patience := foreignPatience
	if plain != nil {
		patience = nearPatience
	}
	out := t.take(ctx, r.ask(t, Domestic, t.q.Type, forAnswer), patience)
	t.side = Domestic
	switch {
	case out.err != nil:
	case out.suspect.why != "":
		out.err = contradiction("the domestic answer looks forged: " + out.suspect.why)
		if plain != nil {
			r.count.poison.replaced.Add(1)
			r.doubt(t, out)
		}
	case !t.pol.nearby(out.msg):
		out.err = contradiction("the domestic answer is not at home")
	case out.msg.rcode == wire.NXDomain, t.q.Type == wire.TypeA && len(out.msg.addresses()) == 0:
		if plain == nil || len(plain.msg.addresses()) > 0 {
			out.err = contradiction("the domestic side says there is nothing")
		}
	}
	return out
}

// nearby reports whether m is what a name at home may answer.
func (p *Policy) nearby(m message) bool {
	region, _ := p.region(m.addresses())
	return region != geo.Abroad
}

// race asks both sides at once and takes the domestic answer when all of it is
// home; else it waits for the foreign one.
func (r *Resolver) race(ctx context.Context, t *task) outcome {
	near := r.ask(t, Domestic, t.q.Type, forAnswer)
	far := r.ask(t, Foreign, t.q.Type, forAnswer)
	isHome := func(out outcome) bool {
		return out.err == nil && out.suspect.why == "" && len(out.msg.addresses()) > 0 && t.pol.allHome(out.msg)
	}
	story := t.step().Auto
	taken := func(out outcome) outcome {
		t.side = Domestic
		story.Region, story.Why = geo.Home.String(), "every address of the domestic answer is home"
		if out.kind != kindStale {
			r.learn(t, geo.Home, story.Why)
		}
		return out
	}
	var domestic *outcome
	select {
	case <-near.done:
		out := t.take(ctx, near, 0)
		if isHome(out) {
			t.leave(far)
			return taken(out)
		}
		domestic = &out
	case <-far.done:
	case <-ctx.Done():
	}
	if domestic == nil {
		// The foreign answer is here first. A nearby answer is worth the time
		// that a forged one would be held for.
		out := t.take(ctx, near, max(t.pol.Poison.Hold, 100*time.Millisecond))
		if isHome(out) {
			t.leave(far)
			return taken(out)
		}
		domestic = &out
	}
	out := t.take(ctx, far, foreignPatience)
	t.side = Foreign
	if out.err != nil {
		return r.foreignDown(ctx, t, far, out, domestic)
	}
	if addrs := out.msg.addresses(); len(addrs) > 0 {
		region, addr := t.pol.region(addrs)
		story.Region, story.Why = region.String(), fmt.Sprintf("%s, for a client abroad", addr)
		if region == geo.Abroad && out.kind != kindStale {
			r.learn(t, region, story.Why)
		}
	}
	return out
}

// foreignDown answers in place of the foreign side, which failed with down, or
// did not answer far in its time. Where nobody there can be reached, that is
// the domestic side's answer if it could do no harm; domestic is what that one
// said before, nil when it was not asked. Else a name that may be foreign is
// nobody else's to know: a late answer is waited for, and an error stays one.
func (r *Resolver) foreignDown(ctx context.Context, t *task, far *asking, down outcome, domestic *outcome) outcome {
	if t.pol.Sides[Foreign].unreachable(down.err) {
		if domestic == nil {
			out := t.take(ctx, r.ask(t, Domestic, t.q.Type, forFallback), fallbackPatience)
			domestic = &out
		}
		if t.passes(*domestic) {
			r.count.auto.fallback.Add(1)
			t.note("the foreign side is unreachable: took the domestic answer, as all of it is home")
			t.side = Domestic
			return *domestic
		}
		r.count.auto.refused.Add(1)
	}
	t.side = Foreign
	return t.late(ctx, far, down)
}

// late waits on for far, where down is only that it did not answer in its time.
func (t *task) late(ctx context.Context, far *asking, down outcome) outcome {
	if errors.Is(down.err, errWaited) {
		return t.take(ctx, far, 0)
	}
	return down
}

// passes reports whether a domestic answer may stand for a foreign one: every
// address of it is home, or it says of another type than A that there is
// nothing. A name that may be foreign fails rather than being answered by those
// who forge.
func (t *task) passes(out outcome) bool {
	switch {
	case out.err != nil, out.suspect.why != "", out.msg.rcode != wire.NoError:
		return false
	case len(out.msg.addresses()) > 0:
		return t.pol.allHome(out.msg)
	}
	return t.q.Type != wire.TypeA && len(out.msg.answer) == 0
}
