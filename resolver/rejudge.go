package resolver

import (
	"context"
	"net/netip"
	"runtime/debug"
	"time"

	"smartdns/geo"
	"smartdns/resolver/wire"
)

// maxRejudging is how many verdicts are judged again at the same time.
const maxRejudging = 8

// judgeAgain judges t.name anew, while its verdict v goes on deciding. What
// comes to nothing leaves v as it is, to be tried again after an hour.
func (r *Resolver) judgeAgain(ctx context.Context, t *task, v Verdict) {
	if r.rejudging.Add(1) > maxRejudging {
		r.rejudging.Add(-1)
		return
	}
	again := &task{
		q: Ask(t.name, wire.TypeA, netip.Addr{}), pol: t.pol, name: t.name, governed: governed{rule: t.rule}, room: new(room),
		Decision: &Decision{Time: time.Now(), Steps: []Step{{Name: t.name.String(), Auto: &Story{}}}},
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.limits.Total)
	go func() {
		defer r.rejudging.Add(-1)
		defer cancel()
		defer r.end(again)
		defer func() {
			if p := recover(); p != nil {
				r.log.Error("resolver: panic in a judgement", "panic", p, "stack", string(debug.Stack()))
			}
		}()
		r.rejudge(ctx, again, v)
	}()
}

func (r *Resolver) rejudge(ctx context.Context, t *task, v Verdict) {
	var judge *asking
	if t.pol.Auto.Judge != nil {
		judge = r.judge(t)
	}
	plain := t.take(ctx, r.ask(t, Foreign, wire.TypeA, forAnswer), foreignPatience)
	if plain.err != nil || plain.kind == kindStale { // where the name is now, that cannot say
		return
	}
	region, why := r.region(ctx, t, judge, plain)
	switch {
	case region == geo.Unknown:
	case region == geo.Home && v.Region != geo.Home:
		// Only the domestic side's answer makes a name one at home: whoever asks
		// next finds out.
		r.contradict(t, why+" is home")
	case region != v.Region:
		r.count.auto.contradicted.Add(1)
		r.learn(t, region, why)
	default:
		r.learn(t, region, why)
	}
}
