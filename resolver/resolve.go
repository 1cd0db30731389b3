package resolver

import (
	"context"
	"errors"
	"time"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/wire"
)

// Resolve answers q. The Decision is complete, also when it says SERVFAIL, and
// comes within Limits.Total and the second that the kernel has for the marks, or
// soon after ctx ends. Others may wait for what q asks: ctx should end early only
// when everything does.
// Every address in its answer is tied to its path in the kernel for longer than
// the TTL it is given with, or the Decision says of it why that is not needed.
func (r *Resolver) Resolve(ctx context.Context, q *Query) *Decision {
	t := &task{Decision: new(Decision), room: new(room)}
	r.resolve(ctx, t, q)
	return t.Decision
}

// Answer appends the packed answer to an accepted query of client to dst. It is
// Resolve for who does not want the story: the next one is written over it. It
// keeps nothing of q.
func (r *Resolver) Answer(ctx context.Context, dst []byte, q wire.Query, client policy.Client, transport string) []byte {
	a := r.answers.Get().(*answering)
	if err := a.query.read(q, client, transport); err != nil {
		return wire.AppendError(dst, q, wire.FormErr, -1, "")
	}
	r.resolve(ctx, &a.task, &a.query)
	if dst == nil {
		dst = make([]byte, 0, wire.MaxUDP)
	}
	a.room.packed = a.pack(a.room.packed[:0], &a.query)
	dst = wire.Truncate(dst, a.room.packed, a.query.limit())
	r.answers.Put(a)
	return dst
}

// answering is a query whose story nobody wants.
type answering struct {
	task
	query    Query
	decision Decision
	room     room
}

func newAnswering() *answering {
	a := new(answering)
	a.task = task{Decision: &a.decision, room: &a.room}
	return a
}

func (r *Resolver) resolve(ctx context.Context, t *task, q *Query) {
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > r.limits.Total+markTime {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.limits.Total)
		defer cancel()
	}
	r.begin(t, q)
	defer r.end(t)
	r.lookup(ctx, t) // policy: whom to ask, or a local answer; then cache, else upstream
	r.classify(t)    // geo: each address → verdict → path; what may not be answered goes
	r.dns64(ctx, t)  // where that leaves no IPv6: the v4 addresses, in v6 clothing for a NAT64
	r.mark(ctx, t)   // nft: acknowledged by the kernel before we go on
	r.finish(t)      // rcode, counters
	r.seal(t)        // cache: the fast lane may say the same for as long as all of this holds
}

// begin makes t the task of q.
func (r *Resolver) begin(t *task, q *Query) {
	r.count.queries.Add(1)
	generation := r.sealed.Generation().Now() // before anything is read that advances it
	d := t.Decision
	*d = Decision{
		Time:  time.Now(),
		Asked: Asked{Name: q.Name.String(), Type: typeName(q.Type), Transport: q.Transport, Client: q.Client},
		Steps: d.Steps[:0], Addresses: d.Addresses[:0], EDE: d.EDE[:0], Notes: d.Notes[:0],
		Marked: Marked{Marks: d.Marked.Marks[:0]},
	}
	*t = task{
		q: q, sealing: sealing{lasts: forever, generation: generation},
		pol: r.policy.Load(), name: q.Name, Decision: d, room: t.room,
	}
	t.msg.answer = t.room.records[:0]
	t.view = t.pol.Views.Of(q.From)
	if t.view.Side != "" {
		t.note("the listener %s asks %s whatever the lines say", q.From.Listener, t.view.Side)
	}
}

func (r *Resolver) end(t *task) {
	if t.seated {
		r.slots.give(t.q.Client)
	}
	if t.purse != nil && t.purse.Empty() {
		r.count.capped.Add(1)
	}
}

// lookup finds what the asked name leads to: by its own rule, and where the
// answer is cut at a CNAME, by the rule of that one's target.
func (r *Resolver) lookup(ctx context.Context, t *task) {
	seen := map[dnsname.FQDN]bool{t.name: true}
	ad := true
	for {
		t.side = ""
		out := r.decide(ctx, t)
		step := t.step()
		step.Side = t.side
		t.fromCache(out)
		t.doubtful = t.doubtful || out.suspect.why != ""
		if step.Local != "" {
			out.lasts = localTTL * time.Second
		}
		t.lasts = min(t.lasts, out.lasts)
		if out.err != nil {
			t.fail(out.err)
			return
		}
		m := out.msg
		if m.rcode == wire.Refused {
			t.msg = message{rcode: wire.Refused}
			return
		}
		next, open := m.open(t.q.Type)
		if at, cut := t.cut(m); cut {
			m = message{answer: m.answer[:at]}
			next, open = lastTarget(m.answer), true
			step.Cut = next.String()
		}
		ad = ad && m.ad && t.pol.Sides[t.side].Trusted
		t.msg = message{rcode: m.rcode, ad: ad, answer: append(t.msg.answer, m.answer...), authority: m.authority}
		t.room.records = t.msg.answer // which are its own: others share m
		if err := t.follow(m, seen); err != nil {
			t.fail(err)
			return
		}
		if !open {
			return
		}
		if t.side == Foreign && t.pol.Auto.Mode == ForeignOnly {
			t.stay = Foreign // nobody at home learns where a foreign chain leads
		}
		t.name = next
	}
}

// cut reports whether the chain of m ends before its end for us, and behind how
// many records: where it leads to what a rule answers locally, and, of the
// domestic side, where it leaves that.
func (t *task) cut(m message) (records int, cut bool) {
	if t.side != "" {
		records, cut = t.pol.barred(m, t.q.Type, t.view.Lines)
	}
	if t.side == Domestic && t.view.Side == "" && !t.rule.Alone {
		if at, crosses := t.pol.crossing(m, t.name, t.q.Type, t.view.Lines); crosses && (!cut || at < records) {
			return at, true
		}
	}
	return records, cut
}

// follow counts the CNAMEs of m and reports when they lead nowhere.
func (t *task) follow(m message, seen map[dnsname.FQDN]bool) error {
	for _, r := range m.answer {
		if r.typ != wire.TypeCNAME || t.q.Type == wire.TypeCNAME {
			continue
		}
		if t.links++; t.links > maxLinks {
			return errTooLong
		}
		if seen[r.target()] {
			return errLoop
		}
		seen[r.target()] = true
	}
	return nil
}

// fail makes the answer a SERVFAIL that says why.
func (t *task) fail(err error) {
	t.msg = message{rcode: wire.ServFail}
	switch {
	case errors.Is(err, errOverload), errors.Is(err, errLoop), errors.Is(err, errTooLong), errors.Is(err, errTooMany), errors.Is(err, errMemory),
		errors.Is(err, errCameBack):
		t.explain(edeOther, err.Error())
	case errors.Is(err, errMalformed):
		t.explain(edeNetwork, err.Error())
	default:
		t.explain(edeUnreachable, err.Error())
	}
}

// finish completes the Decision by what is known now.
func (r *Resolver) finish(t *task) {
	d := t.Decision
	d.rcode = d.msg.rcode
	d.RCode = rcodeName(d.rcode)
	d.Took = time.Since(d.Time)
	last := t.step()
	switch {
	case d.rcode == wire.ServFail:
		r.count.failed.Add(1)
	case last.Local != "":
		r.count.local.Add(1)
	case last.Cached == kindStale:
		r.count.stale.Add(1)
	case last.Cached != "":
		r.count.hits.Add(1)
	}
}
