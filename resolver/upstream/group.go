package upstream

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"smartdns/resolver/wire"
)

// Mode is how a group chooses among its servers.
type Mode uint8

const (
	Fastest Mode = iota // ask the one with the best latency, the next after a short while
	InOrder             // ask the first that is up, the next after a short while
	Race                // ask the two best at once
)

const (
	groupTotal = 5 * time.Second
	leastHedge = 50 * time.Millisecond
	mostHedge  = 300 * time.Millisecond
	// lesson is how long a server that was overtaken may go on, so that it is
	// known whether it was slow or dead; glance is enough for one that is known
	// to be down, which can only surprise.
	lesson    = enoughToBlame
	glance    = 750 * time.Millisecond
	probeTime = 2 * time.Second
)

// Group makes one Exchanger of several. It asks the best server first, by the
// replies that real queries got, and the next one when that is silent for
// twice its usual latency (at most 300 ms), when it fails, and as soon as it
// is in trouble. The first reply that is an answer wins; where every server
// replies with an error code the first of those is returned, and where none
// replies all their errors are. A server that failed is tried again, beside a
// query that others answer, after 1 s and then at most every 5 s; one that was
// not asked for a minute, to know its latency, unless the mode is InOrder.
//
// All servers together spend at most 6 packets and 3 connections and 5 s on a
// query. Queries go on for up to 2 s after Exchange has returned, to learn
// how the slower servers are: Query.Suspect must be safe to call until then,
// and from several goroutines.
func Group(members []Exchanger, mode Mode) Exchanger {
	if len(members) == 1 {
		return alone{members[0]}
	}
	g := &group{mode: mode}
	for _, ex := range members {
		g.members = append(g.members, &member{
			Exchanger: ex, health: newHealth(ex.String(), "", slog.New(slog.DiscardHandler)),
		})
	}
	return g
}

// alone is a group of one, which has nothing to choose.
type alone struct{ Exchanger }

// Exchange says of an error, too, whose it is.
func (a alone) Exchange(ctx context.Context, q Query) (Reply, error) {
	r, err := a.Exchanger.Exchange(ctx, q)
	if err != nil {
		err = fmt.Errorf("%s: %w", a.Exchanger, err)
	}
	return r, err
}

// Members returns the servers of a group, or of a single one; nil when ex is of
// another package.
func Members(ex Exchanger) []Exchanger {
	switch g := ex.(type) {
	case alone:
		return []Exchanger{g.Exchanger}
	case *group:
		var all []Exchanger
		for _, m := range g.members {
			all = append(all, m.Exchanger)
		}
		return all
	}
	return nil
}

func (a alone) report() []Status { return Health(a.Exchanger) }

type group struct {
	members []*member
	mode    Mode
}

// member is a server with its record as this group sees it.
type member struct {
	Exchanger
	health *health
}

func (g *group) String() string {
	names := make([]string, len(g.members))
	for i, m := range g.members {
		names[i] = m.String()
	}
	return strings.Join(names, " ")
}

func (g *group) report() []Status {
	var all []Status
	for _, m := range g.members {
		if seen := Health(m.Exchanger); seen != nil {
			all = append(all, seen...)
		} else {
			all = append(all, m.health.status())
		}
	}
	return all
}

// ranked returns the members, best first.
func (g *group) ranked() []*member {
	type entry struct {
		m     *member
		score time.Duration
	}
	entries := make([]entry, len(g.members))
	for i, m := range g.members {
		s := m.health.status()
		e := entry{m, s.Latency}
		if g.mode == InOrder {
			e.score = 0
		}
		if !s.Up {
			e.score += time.Hour
		}
		entries[i] = e
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.score, b.score) })
	ranked := make([]*member, len(entries))
	for i, e := range entries {
		ranked[i] = e.m
	}
	return ranked
}

// hedge returns how long m may take before the next member is asked too.
func (m *member) hedge() time.Duration {
	latency := m.health.status().Latency
	if latency == 0 {
		return mostHedge
	}
	return min(max(2*latency, leastHedge), mostHedge)
}

// round is one query to a group.
type round struct {
	query    Query
	left     []*member
	running  map[*member]time.Time
	outcomes chan outcome
	stuck    chan struct{}
	spent    *spending
	prepaid  int             // members whose first packet is counted already
	ctx      context.Context // outlives the caller's
	reply    *Reply          // the first error code
	tries    []Try
	errs     several
}

type outcome struct {
	from  *member
	reply Reply
	err   error
}

func (g *group) Exchange(ctx context.Context, q Query) (Reply, error) {
	ctx, done := context.WithTimeoutCause(ctx, groupTotal, errNoReply)
	defer done()
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	q.Msg = bytes.Clone(q.Msg)
	r := &round{
		query: q, left: g.ranked(), running: make(map[*member]time.Time),
		outcomes: make(chan outcome, len(g.members)), stuck: make(chan struct{}, 1),
		spent: q.trip(ctx).spent, ctx: inner,
	}
	// One packet is kept for each member, so that the resends of the first do
	// not use up what the last would need.
	r.prepaid = min(len(g.members), maxPackets)
	r.spent.packets.Add(int32(r.prepaid))
	reply, err := r.run(ctx, g.mode == Race)
	g.probe(r)
	if ctx.Err() != nil || len(r.running) == 0 {
		cancel()
	} else {
		time.AfterFunc(r.lesson(), cancel)
	}
	return reply, err
}

// lesson returns how long the members that were overtaken may go on.
func (r *round) lesson() time.Duration {
	for m := range r.running {
		if m.health.status().Up {
			return lesson
		}
	}
	return glance
}

func (r *round) run(ctx context.Context, race bool) (Reply, error) {
	hedge := time.NewTimer(r.left[0].hedge())
	defer hedge.Stop()
	next := func() {
		if len(r.left) > 0 {
			hedge.Reset(r.left[0].hedge())
			r.ask()
		}
	}
	r.ask()
	if race {
		next()
	}
	for len(r.running) > 0 {
		select {
		case o := <-r.outcomes:
			delete(r.running, o.from)
			if r.took(o) {
				return r.finish(o.reply), nil
			}
			next()
		case <-r.stuck:
			next()
		case <-hedge.C:
			next()
		case <-ctx.Done():
			r.errs = append(r.errs, context.Cause(ctx))
			return r.conclude()
		}
	}
	return r.conclude()
}

// ask sends the query to the best member left.
func (r *round) ask() {
	m := r.left[0]
	r.left = r.left[1:]
	r.running[m] = time.Now()
	t := r.spent.next(r.prepaid > 0, r.nudge)
	r.prepaid--
	go func() { r.outcomes <- m.ask(r.ctx, r.query, t) }()
}

// nudge lets the group ask its next member now.
func (r *round) nudge() {
	select {
	case r.stuck <- struct{}{}:
	default:
	}
}

// ask exchanges q and notes how it went.
func (m *member) ask(ctx context.Context, q Query, t trip) (o outcome) {
	defer func() {
		// This goroutine is nobody's but ours: a panic would end the process.
		if p := recover(); p != nil {
			o = outcome{from: m, err: &PanicError{Value: p, Stack: debug.Stack()}}
		}
	}()
	start := time.Now()
	m.health.asked(start)
	reply, err := m.Exchange(withTrip(ctx, t), q)
	took := time.Since(start)
	switch {
	case err == nil:
		m.health.replied(took, isError(wire.RCode(reply.Msg)))
	case errors.Is(err, errSpent):
	case ctx.Err() == nil || took >= enoughToBlame:
		m.health.failed(err)
	}
	return outcome{m, reply, err}
}

// PanicError is what a server of a group broke down with.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// took notes an outcome and reports whether it is an answer.
func (r *round) took(o outcome) bool {
	r.tries = append(r.tries, o.reply.Tries...)
	if o.err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", o.from, o.err))
		return false
	}
	if !isError(wire.RCode(o.reply.Msg)) {
		return true
	}
	if r.reply == nil {
		r.reply = &o.reply
	}
	return false
}

// finish completes the tries of the reply that is returned: those of members
// that were asked and did not answer in time come before its own, which are
// the last ones in r.tries.
func (r *round) finish(reply Reply) Reply {
	own := r.tries[len(r.tries)-len(reply.Tries):]
	tries := slices.Clone(r.tries[:len(r.tries)-len(own)])
	tries = append(tries, r.unfinished()...)
	reply.Tries = append(tries, own...)
	return reply
}

// unfinished returns a try for each member that is still silent.
func (r *round) unfinished() []Try {
	var tries []Try
	for m, start := range r.running {
		elapsed := time.Since(start)
		m.health.overtaken(elapsed)
		tries = append(tries, Try{Server: m.String(), Took: elapsed, Note: "no reply yet"})
	}
	slices.SortFunc(tries, func(a, b Try) int { return cmp.Compare(b.Took, a.Took) })
	return tries
}

// conclude returns what there is when no member has an answer.
func (r *round) conclude() (Reply, error) {
	tries := append(r.tries, r.unfinished()...)
	if r.reply != nil {
		reply := *r.reply
		reply.Tries = tries
		return reply, nil
	}
	return Reply{Tries: tries}, r.errs.or(errNoReply)
}

// probe asks those members that nobody has heard of for a while, without
// waiting for them and at their own expense.
func (g *group) probe(r *round) {
	now := time.Now()
	for _, m := range r.left {
		if !m.health.due(now, g.mode != InOrder) {
			continue
		}
		q := r.query
		q.Suspect = nil
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), probeTime)
		go func() {
			defer cancel()
			m.ask(ctx, q, newTrip())
		}()
	}
}
