package nft

import (
	"slices"

	"github.com/google/nftables/expr"
)

// chainDecideOwn is classify for what this host itself sends, where the routing
// table decides: it has been routed already.
const chainDecideOwn = "classify_own"

// decidesOwn is the chain that decides flows of this host.
func (r Ruleset) decidesOwn() string {
	if r.Decide.Routed {
		return chainDecideOwn
	}
	return chainDecide
}

// leadsTo matches packets without a mark that the routing table sends to an
// interface; fib sees only what is not yet routed.
func leadsTo(name string) term {
	return term{`fib daddr oifname "` + name + `"`,
		[]expr.Any{&expr.Fib{Register: reg, ResultOIFNAME: true, FlagDADDR: true}, equal(ifname(name))}}
}

// leadsSomewhere matches what the routing table has a way for.
func leadsSomewhere() term {
	return term{"fib daddr oif exists",
		[]expr.Any{&expr.Fib{Register: reg, ResultOIF: true, FlagDADDR: true, FlagPRESENT: true}, equal([]byte{1})}}
}

// routed gives a new flow that came in the path of its route. What has none is
// locked: it never goes another way than the default path.
func (r Ruleset) routed() chain {
	c := chain{name: chainDecide, about: "which way a new flow goes: that of its route"}
	c.rules = rules(on(toType(local()), ret()), on(toType(broadcast()), ret()))
	for _, f := range families() {
		c.rules = append(c.rules, on(f.to(setLAN), goTo(chainDirect)).because("LAN"))
	}
	for _, p := range onLink() {
		c.rules = append(c.rules, on(toPrefix(p), goTo(chainDirect)).because("link-local, multicast"))
	}
	for _, t := range r.Tunnels {
		c.rules = append(c.rules, on(leadsTo(t.name()), goTo(newChain(t.Path))))
	}
	c.rules = append(c.rules, on(leadsSomewhere(), goTo(r.routedDirect())))
	for _, t := range r.Tunnels {
		if t.Path == r.defaultPath() {
			return c.locked(t)
		}
	}
	c.rules = append(c.rules, on(goTo(chainDirect)))
	return c
}

// locked ends c for what has no way: were it given the default path, it might
// belong to another tunnel.
func (c chain) locked(t Tunnel) chain {
	c.rules = append(c.rules, t.refuse()...)
	return c
}

// routedOwn is the same for what this host sends.
func (r Ruleset) routedOwn() chain {
	c := chain{name: chainDecideOwn, about: "which way a new flow of this host goes: that of its route"}
	for _, t := range r.Tunnels {
		c.rules = append(c.rules, on(out().is(t.name()), goTo(newChain(t.Path))))
	}
	c.rules = append(c.rules, on(goTo(r.routedDirect())))
	return c
}

// routedDirect is what a flow gets that leaves directly. While a tunnel's
// routes lead around it, that is until the tunnel is back: then it is decided
// anew.
func (r Ruleset) routedDirect() string {
	if slices.ContainsFunc(r.Tunnels, Tunnel.detours) {
		return chainDetour
	}
	return chainDirect
}

// outOfTunnels says what packets out of tunnels carry after the reverse path
// filters: nothing, so that the main table leads them on; the direct mark where
// only that leads there.
func (r Ruleset) outOfTunnels() rule {
	mark := uint32(0)
	why := "out of a tunnel: never marked"
	if r.Decide.Routed {
		mark, why = r.direct(), "out of a tunnel: never back into it"
	}
	return on(in().among(setTunnels), r.packet().set(mark), ret()).because(why)
}

// keepDirect marks the packets of flows that are not a tunnel's, whatever their
// route says: from outside, from before us, from before a route changed, or
// direct while a tunnel is down.
func (r Ruleset) keepDirect() []rule {
	return rules(
		on(r.flow().is(r.direct()), r.packet().set(r.direct()), ret()),
		on(r.flow().is(r.revocable()), r.packet().set(r.direct()), ret()),
		on(isKnown(), r.flow().is(0), r.packet().set(r.direct()), ret()).because("from before us, or from outside"),
	)
}
