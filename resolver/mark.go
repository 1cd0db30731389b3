package resolver

import (
	"context"
	"fmt"
	"hash/maphash"
	"net/netip"
	"time"

	"smartdns/resolver/wire"
	"smartdns/routing"
)

// markTime is what the kernel gets at least to acknowledge the marks of an
// answer, however long that took.
const markTime = time.Second

// mark ties every address of the answer to its path, and lowers TTLs so that
// none outlives its mark. Without the kernel's acknowledgement there is no
// answer, unless packets go the same way without marks.
func (r *Resolver) mark(ctx context.Context, t *task) {
	marks := t.marks()
	if len(marks) == 0 {
		return
	}
	begun := time.Now()
	if end, ok := ctx.Deadline(); ok && end.Sub(begun) < markTime {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), markTime)
		defer cancel()
	}
	until, err := r.paths.Marker.Mark(ctx, r.owner(t), marks)
	t.Marked.Took = time.Since(begun)
	for _, m := range marks {
		t.Marked.Marks = append(t.Marked.Marks, Mark{m.Addr, m.Path, m.Life})
	}
	if err != nil {
		r.unmarked(t, marks, err)
		return
	}
	r.count.marks.answers.Add(1)
	t.Marked.Until = until
	for i := range t.Addresses {
		a := &t.Addresses[i]
		a.Marked = a.Dropped == "" && a.Note == ""
	}
	t.limitTTL(time.Until(until) - routing.MarkGrace)
}

// owner returns on whose behalf the answer's addresses are marked: that of the
// zone of its name, or nobody's where the user said which way it leaves.
func (r *Resolver) owner(t *task) routing.Owner {
	if t.pin.Via != "" {
		return 0
	}
	return routing.Owner(maphash.String(r.owners, zoneOf(t.q.Name)) | 1)
}

// marks returns the marks of the answer, each address once, for the longest of
// its TTLs.
func (t *task) marks() []routing.Mark {
	var marks []routing.Mark
	at := map[netip.Addr]int{}
	for _, a := range t.Addresses {
		if a.Dropped != "" || a.Note != "" {
			continue
		}
		life := routing.MarkLife(seconds(a.TTL))
		if i, ok := at[a.Addr]; ok {
			marks[i].Life = max(marks[i].Life, life)
			continue
		}
		at[a.Addr] = len(marks)
		marks = append(marks, routing.Mark{Addr: a.Addr, Path: a.Path, Life: life})
	}
	return marks
}

// unmarked decides what to answer when the kernel did not take the marks.
func (r *Resolver) unmarked(t *task, marks []routing.Mark, err error) {
	r.count.marks.failed.Add(1)
	t.Marked.Err = err.Error()
	agreed := func(m routing.Mark) bool {
		return r.paths.StaticAgrees != nil && r.paths.StaticAgrees(m.Addr, m.Path)
	}
	for _, m := range marks {
		if agreed(m) {
			continue
		}
		if t.pol.AnswerUnmarked {
			r.count.marks.unmarked.Add(1)
			t.note("%s is not marked, and answered as on_error says", m.Addr)
			return
		}
		t.msg = message{rcode: wire.ServFail}
		t.explain(edePolicy, fmt.Sprintf("not marked: %s on %s: %s", m.Addr, m.Path, err))
		// The first reason is the one that clients get.
		t.EDE[0], t.EDE[len(t.EDE)-1] = t.EDE[len(t.EDE)-1], t.EDE[0]
		return
	}
	r.count.marks.agreed.Add(1)
	t.note("not marked (%s), but the static sets send every address the same way", err)
}

// limitTTL lowers the TTLs of the answer, and of what is said of it, to at
// most d.
func (t *task) limitTTL(d time.Duration) {
	limit := uint32(max(0, min(d/time.Second, maxTTL)))
	for i := range t.msg.answer {
		t.msg.answer[i].ttl = min(t.msg.answer[i].ttl, limit)
	}
	for i := range t.Addresses {
		t.Addresses[i].TTL = min(t.Addresses[i].TTL, limit)
	}
}
