package nft

import (
	"fmt"
	"slices"

	"smartdns/routing"
)

// lockStood counts flows that stand in and were kept from an uplink.
const lockStood = "locked_standing"

// standIn returns the tunnel that carries t's flows while t is down.
func (r Ruleset) standIn(t Tunnel) (Tunnel, bool) {
	if t.Up || !t.StandIn.IsTunnel() {
		return Tunnel{}, false
	}
	i := slices.IndexFunc(r.Tunnels, func(o Tunnel) bool { return o.Path == t.StandIn })
	if i < 0 {
		return Tunnel{}, false
	}
	return r.Tunnels[i], true
}

func (r Ruleset) checkStandIn(t Tunnel) error {
	if t.StandIn == t.Path {
		return fmt.Errorf("it cannot stand in for itself")
	}
	if t.StandIn == "" {
		return nil
	}
	return r.checkPath(t.StandIn)
}

// stood is the flow mark of what goes by t's stand-in. A mark of its own tells
// these flows from the stand-in's: they alone end when t is back.
func (r Ruleset) stood(t Tunnel) uint32 {
	for n := range routing.MaxTunnels {
		if r.field().Tunnel(n) == t.Mark {
			return r.field().Stood(n)
		}
	}
	return t.Mark
}

// stands reports whether one tunnel can stand in for another.
func (r Ruleset) stands() bool { return len(r.Tunnels) > 1 }

func (r Ruleset) stoodFlows() term {
	mask, value := r.field().Standing()
	return flow(routing.Field(mask)).is(value)
}

// standing sends the packets of flows that stand in into the tunnel that carries
// them now. Those of nobody's are between two states of the table: their
// translation is that of a tunnel that no longer carries them.
func (r Ruleset) standing() []rule {
	if !r.stands() {
		return nil
	}
	var out []rule
	for _, t := range r.Tunnels {
		if other, ok := r.standIn(t); ok {
			out = append(out, on(r.flow().is(r.stood(t)), goTo(toChain(other.Path))).because(other.name()+" stands in for "+t.name()))
		}
	}
	return append(out,
		on(r.stoodFlows(), tcp().only(), rejectTCP()).because("their tunnel is back"),
		on(r.stoodFlows(), drop()))
}

// moves says which flows end when t's state changes: those that went the way of
// the state before.
func (r Ruleset) moves(t Tunnel) []move {
	name, field := newChain(t.Path), r.field()
	var out []move
	if t.detours() {
		out = append(out, move{chain: name, mark: t.Mark, field: field})
	} else if _, ok := r.standIn(t); ok {
		out = append(out, move{chain: name, mark: t.Mark, field: field})
	}
	if r.stands() {
		out = append(out, move{chain: name, mark: r.stood(t), field: field, unless: []chain{r.begin(t.with(""))}})
	}
	if !t.detours() {
		revocable := move{chain: name, mark: r.revocable(), field: field, unless: []chain{r.begin(t.with(""))}}
		for _, o := range r.Tunnels {
			if o.Path != t.Path {
				revocable.unless = append(revocable.unless, r.begin(t.with(o.Path)))
			}
		}
		out = append(out, revocable)
	}
	return out
}

// with returns t as it is while standIn carries its flows.
func (t Tunnel) with(standIn routing.Path) Tunnel {
	t.Up, t.StandIn = false, standIn
	return t
}
