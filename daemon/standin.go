package daemon

import (
	"cmp"
	"fmt"
	"time"

	"smartdns/nft"
	"smartdns/routing"
	"smartdns/routing/wg"
	"smartdns/web/api"
)

// standIns says of each tunnel what its flows do while it is down.
func (p *Parts) standIns() map[routing.Path]routing.Path {
	all := make(map[routing.Path]routing.Path, len(p.Tunnels))
	for _, t := range p.Tunnels {
		all[t.Path] = t.WhenDown.Path()
	}
	return all
}

// via returns which path carries what belongs to path now; "" when none does.
func (p *Parts) via(l live, path routing.Path) routing.Path {
	return routing.StandIn(path, p.standIns(), func(t routing.Path) bool { return l.links[t].up })
}

// watchful reports whether a tunnel is one of several that stand in for one
// another: then it is good to know how it is before it is needed.
func (p *Parts) watchful(path routing.Path) bool {
	for of, by := range p.standIns() {
		if by.IsTunnel() && (of == path || by == path) {
			return true
		}
	}
	return false
}

// carriesNow is carriesV6 for whoever carries path now: addresses that a
// stand-in cannot reach are not worth an answer.
func (p *Parts) carriesNow(l live, path routing.Path) bool {
	by := p.via(l, path)
	return p.carriesV6(l.facts, path) && (!by.IsTunnel() || p.carriesV6(l.facts, by))
}

// standIn adds to n who carries its flows, if it does not.
func (p *Parts) standIn(l live, n *nft.Tunnel) {
	if !n.Up {
		n.StandIn = p.via(l, n.Path)
	}
}

const (
	firstWait = 10 * time.Second
	mostWait  = 5 * time.Minute
	calm      = 10 * time.Minute
)

// comeback says when a tunnel that was down carries its flows again: once it has
// been up for firstWait without a break. Each time it goes down within calm of
// that, the wait doubles, up to mostWait: each turn costs open connections.
// There is no wait where no other tunnel carries them meanwhile. It knows no
// clock.
type comeback struct {
	out  bool          // not in use
	up   time.Time     // since when it is up while it is out; zero: it is not
	used time.Time     // when it came back
	wait time.Duration // of this time
}

// in reports whether the tunnel, in state s, is in use. stoodIn is asked whether
// another tunnel carries its flows while it is not.
func (c *comeback) in(now time.Time, s wg.State, stoodIn func() bool) bool {
	switch {
	case s == wg.Down && !c.out:
		if c.used.IsZero() || now.Sub(c.used) >= calm {
			c.wait = firstWait
		} else {
			c.wait = min(max(2*c.wait, firstWait), mostWait)
		}
		c.out = true
	case !c.out:
		return true
	}
	if s != wg.Up {
		c.up = time.Time{}
	} else if c.up.IsZero() {
		c.up = now
	}
	switch {
	case s == wg.Down:
		return false
	case stoodIn() && (s != wg.Up || now.Sub(c.up) < c.wait):
		return false
	}
	*c = comeback{used: now, wait: c.wait}
	return true
}

// left returns how long until a tunnel that is up is in use again; 0 when it is,
// or when it is not up.
func (c *comeback) left(now time.Time) time.Duration {
	if !c.out || c.up.IsZero() {
		return 0
	}
	return max(0, c.wait-now.Sub(c.up))
}

// inUse returns who says of a tunnel whether flows may go into it. While it is
// connecting they may: WireGuard keeps them until the handshake, and whoever
// resolved a name through the new session can connect at once. One that is known
// to be down refuses them. of returns what a tunnel is like, nil for one that is
// not there.
func inUse(now time.Time, next map[routing.Path]routing.Path, of func(routing.Path) (*comeback, wg.State)) func(routing.Path) bool {
	known := map[routing.Path]bool{}
	var in func(routing.Path) bool
	in = func(p routing.Path) bool {
		if use, ok := known[p]; ok {
			return use
		}
		back, state := of(p)
		known[p] = back != nil && back.in(now, state, func() bool {
			return routing.StandIn(next[p], next, in).IsTunnel()
		})
		return known[p]
	}
	return in
}

// inUse is that of the tunnels that are open.
func (e *engine) inUse(now time.Time) func(routing.Path) bool {
	return inUse(now, e.parts.standIns(), func(p routing.Path) (*comeback, wg.State) {
		switch t := e.tunnels[p]; {
		case t == nil:
			return nil, wg.Down
		case t.monitor == nil:
			return &t.back, wg.Connecting
		default:
			return &t.back, t.monitor.Status().State
		}
	})
}

// returning reports whether a tunnel waits for being used again.
func (e *engine) returning() bool {
	for _, t := range e.tunnels {
		if t.back.out && !t.back.up.IsZero() {
			return true
		}
	}
	return false
}

// stateOf returns the state of what belongs into a tunnel.
func (v *view) stateOf(t shownTunnel) wg.State {
	return t.status().State.Carried(installed(v.fails), v.parts.via(v.live, t.part.Path) != "")
}

// installed reports whether what keeps tunnels' traffic from the uplinks could be
// put in place as it should be.
func installed(failures map[string]failure) bool {
	for _, what := range []string{"nft", "routes"} {
		if f, failed := failures[what]; failed && f.severity == severityError {
			return false
		}
	}
	return true
}

// tunnelCondition says what is not as it should be about a tunnel.
func (v *view) tunnelCondition(t shownTunnel) (c api.Condition, ok bool) {
	st := t.status()
	c = api.Condition{Severity: severityWarning, Since: st.Since}
	by := v.parts.via(v.live, t.part.Path)
	switch dead := fmt.Sprintf("tunnel %s is down: no answer from %s; ", t.part.Path, endpointText(t)); {
	case st.State == wg.Down && by.IsTunnel():
		c.What = dead + string(by) + " stands in"
	case st.State == wg.Down && by == routing.Direct:
		c.Severity, c.What = severityError, dead+"its traffic is going direct"
	case st.State == wg.Down:
		c.Severity, c.What = severityError, dead+"its traffic is blocked"
	case v.standing(t) != "":
		c.What = "tunnel " + v.standing(t)
	case st.State != wg.Up:
		c.What = fmt.Sprintf("tunnel %s is %s (%s)", t.part.Path, st.State, endpointText(t))
	default:
		return c, false
	}
	return c, true
}

// tellCarriers logs who carries a tunnel's flows, when that changes.
func (e *engine) tellCarriers(l live) {
	for _, part := range e.parts.Tunnels {
		t := e.tunnels[part.Path]
		if t == nil {
			continue
		}
		switch by := e.parts.via(l, part.Path); {
		case by == t.by:
			continue
		case by == part.Path && t.by != "":
			e.log.Info("the tunnel carries its flows again", "tunnel", string(part.Path))
		case by != part.Path:
			e.log.Warn("the tunnel's flows go another way", "tunnel", string(part.Path), "carried by", cmp.Or(string(by), "nobody"))
		}
		t.by = e.parts.via(l, part.Path)
	}
}

// standIn says why what belongs into a tunnel leaves another way, or not at all;
// "" when it leaves by the tunnel.
func (v *view) standIn(t shownTunnel) string {
	switch by := v.parts.via(v.live, t.part.Path); by {
	case t.part.Path:
		return ""
	case routing.Direct:
		return fmt.Sprintf("%s is down, its traffic is going direct", t.part.Path)
	case "":
		return fmt.Sprintf("%s is down, its traffic is blocked", t.part.Path)
	}
	return v.standing(t)
}

// flowPath says by the mark of a flow which way it goes.
func (v *view) flowPath(mark uint32) string {
	field := v.live.marks.field
	mark &= uint32(field)
	for p, n := range v.live.marks.numbers {
		switch mark {
		case field.Tunnel(n):
			return string(p)
		case field.Stood(n):
			return fmt.Sprintf("%s for %s", cmp.Or(string(v.parts.via(v.live, p)), "nobody"), p)
		}
	}
	if mark == field.Value(routing.MarkRevocable) {
		return "direct for now"
	}
	return string(routing.Direct)
}

// standing says who stands in for a tunnel, in words; "" when nobody does.
func (v *view) standing(t shownTunnel) string {
	switch by := v.parts.via(v.live, t.part.Path); {
	case !by.IsTunnel() || by == t.part.Path:
		return ""
	case t.status().State == wg.Down:
		return fmt.Sprintf("%s is down, %s stands in", t.part.Path, by)
	default:
		return fmt.Sprintf("%s was down, %s stands in for another %s", t.part.Path, by, t.wait.Round(time.Second))
	}
}
