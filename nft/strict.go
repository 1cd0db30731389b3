package nft

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Strictness says what else than the tunnels' own packets is kept from the ways
// out.
type Strictness uint8

// The values of [routing] strict, and what holds while nobody decides.
const (
	Lax      Strictness = iota // what nothing has decided goes by the main table
	Strict                     // only what was decided to go direct leaves past the tunnels
	Lockdown                   // nothing leaves but to the LAN; no other chain is there
)

// A KillSwitch is what keeps everything undecided in. Interfaces do not have to
// be known for it: whatever is neither lo, a tunnel's, a skipped one nor the
// LAN's is a way out, from the moment it appears.
type KillSwitch struct {
	Level Strictness
	Near  []netip.Prefix // what counts as LAN wherever it is, and needs no mark
}

// Names of the chains, sets and counters of the kill switch.
const (
	chainMayLeave    = "may_leave"
	chainStrictWay   = "strict_steer"
	chainStrictOwn   = "strict_output"
	chainStrictPass  = "strict_forward"
	chainStrict      = "strict"
	setNear          = "near"
	countStrict      = "strict"
	strictlyAfter    = 1   // behind the chain of the same hook that decides
	strictlyLast     = 300 // behind the translation of sources
	steerPriority    = 300
	decidePriority   = -150
	hopsOfNeighbours = 255 // RFC 4861: whoever is further away cannot send this
)

// strict builds the chains of the kill switch.
func (r Ruleset) strict() []chain {
	if r.KillSwitch.Level == Lax {
		return nil
	}
	all := []chain{r.mayLeave()}
	if r.KillSwitch.Level == Strict {
		all = append(all, r.strictSteer())
	}
	return append(all, r.strictOutput(), r.strictForward(), r.strictLock())
}

// mayLeave accepts what the kill switch lets out. Whoever jumps there goes on
// with what it does not.
func (r Ruleset) mayLeave() chain {
	c := chain{name: chainMayLeave, about: "all that leaves past the tunnels; the rest comes back from here"}
	c.rules = rules(
		on(out().is("lo"), accept()),
		on(out().among(setTunnels), accept()),
		on(out().among(setSkip), accept()),
	)
	if r.KillSwitch.Level == Strict {
		c.rules = append(c.rules, on(out().among(setLANIfs), out().outside(setUplinks), accept()))
	}
	for _, kind := range neighbourMessages() {
		c.rules = append(c.rules, on(kind, hopLimit(hopsOfNeighbours), accept()))
	}
	// The mark tells this host's own from what passes through.
	c.rules = append(c.rules,
		on(r.packet().is(r.direct()), udp().sport(68), udp().dport(67), accept()).because("DHCP"),
		on(r.packet().is(r.direct()), udp().sport(546), udp().dport(547), accept()).because("DHCPv6"))
	c.rules = append(c.rules, r.portalLeaves()...)
	for _, p := range toMany() {
		c.rules = append(c.rules, on(out().among(setLANIfs), toPrefix(p), accept()))
	}
	for _, p := range toMany() {
		c.rules = append(c.rules, on(toPrefix(p), count(countStrict), drop()).because("to nobody in particular"))
	}
	if r.KillSwitch.Level == Strict {
		c.rules = append(c.rules, on(r.packet().is(r.direct()), r.flow().is(r.direct()), accept()).because("decided"))
	}
	for _, f := range families() {
		c.rules = append(c.rules, on(f.to(setNear), accept()).because("LAN"))
	}
	return c
}

// strictSteer marks what passes through and was decided to go direct: the LAN's
// packets are marked already, those of containers are not.
func (r Ruleset) strictSteer() chain {
	return chain{name: chainStrictWay, base: &hook{"filter", "prerouting", unix.NF_INET_PRE_ROUTING, steerPriority + strictlyAfter, "301"},
		about: "strict: direct is a mark that was given",
		rules: rules(
			on(in().is("lo"), ret()),
			on(in().among(setTunnels), ret()),
			on(r.flow().is(r.direct()), r.packet().set(r.direct())),
		)}
}

// strictOutput does the same for what this host sends, and tells its programs
// at once what does not leave.
func (r Ruleset) strictOutput() chain {
	c := chain{name: chainStrictOwn, base: &hook{"filter", "output", unix.NF_INET_LOCAL_OUT, decidePriority + strictlyAfter, "mangle + 1"},
		about: "strict: this host's own"}
	if r.KillSwitch.Level == Strict {
		c.rules = append(c.rules, on(r.flow().is(r.direct()), r.packet().set(r.direct())))
		for _, t := range r.Tunnels {
			// Routed anew by its mark, and this hook still shows the old way.
			c.rules = append(c.rules, on(r.packet().is(t.Mark), ret()).because("locked elsewhere"))
		}
	} else {
		c.rules = append(c.rules,
			on(udp().sport(68), udp().dport(67), r.packet().set(r.direct())).because("DHCP"),
			on(udp().sport(546), udp().dport(547), r.packet().set(r.direct())).because("DHCPv6"))
	}
	c.rules = append(c.rules, on(jump(chainMayLeave)))
	c.rules = append(c.rules, refused()...)
	return c
}

// strictForward tells clients at once.
func (r Ruleset) strictForward() chain {
	return chain{name: chainStrictPass, base: &hook{"filter", "forward", unix.NF_INET_FORWARD, strictlyAfter, "filter + 1"},
		about: "strict: what passes through",
		rules: append(rules(on(jump(chainMayLeave))), refused()...)}
}

// refused ends what does not leave.
func refused() []rule {
	return rules(
		on(tcp().only(), count(countStrict), rejectTCP()),
		on(count(countStrict), reject()),
	)
}

// strictLock is the lock itself: it sees what others have made of a packet.
func (r Ruleset) strictLock() chain {
	return chain{name: chainStrict, base: &hook{"filter", "postrouting", unix.NF_INET_POST_ROUTING, strictlyLast, "300"},
		about: "strict: nothing leaves undecided",
		rules: rules(
			on(jump(chainMayLeave)),
			on(count(countStrict), drop()),
		)}
}

// toMany returns the destinations that are nobody in particular.
func toMany() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("ff00::/8")}
}

// neighbourMessages match what a host needs to say to be on a link: solicit
// routers, solicit neighbours, answer them (RFC 4861 4.1, 4.3, 4.4).
func neighbourMessages() []term {
	icmp6 := protocol{"icmpv6", unix.IPPROTO_ICMPV6}
	kind := func(name string, n byte) term {
		return term{"icmpv6 type " + name, append(icmp6.header(0, 1), equal([]byte{n}))}
	}
	return []term{kind("nd-router-solicit", 133), kind("nd-neighbor-solicit", 135), kind("nd-neighbor-advert", 136)}
}

// hopLimit needs a match on IPv6 before it.
func hopLimit(n byte) term {
	const offset = 7 // in the header of IPv6
	exprs := append(v6().exprs(), &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1}, equal([]byte{n}))
	return term{fmt.Sprintf("ip6 hoplimit %d", n), exprs}
}

func accept() term { return verdict("accept", expr.VerdictAccept) }

// Strict reports whether the kernel's table has the kill switch, whoever left it
// there.
func (t *Table) Strict(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	have, err := t.marks.table()
	if err == nil && have.exists {
		have.chains, err = t.marks.chains()
	}
	return have.chains[chainStrict].base != nil, explain("reading table inet "+TableName, err)
}
