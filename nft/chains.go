package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// Names of our sets and chains that do not come from the file.
const (
	setLANIfs    = "lan_ifs"
	setUplinks   = "uplinks"
	setSkip      = "skip_ifs"
	setTunnels   = "tunnel_ifs"
	setLAN       = "lan"
	setLocal     = "local"
	setHome      = "home"
	chainDirect  = "new_direct"
	chainDetour  = "new_revocable"
	chainDecide  = "classify"
	chainEarlyIn = "early_tunnels"
	chainArmFlow = "arm_flows"
	chainArmWay  = "arm_steer"
	chainLANWay  = "steer_lan"
	chainRecall  = "recall"
	countInvalid = "invalid"
	countSpoof   = "spoofed"
	countInbound = "inbound"
)

func newChain(p routing.Path) string   { return "new_" + ident(string(p)) }
func toChain(p routing.Path) string    { return "to_" + ident(string(p)) }
func fromChain(p routing.Path) string  { return "from_" + ident(string(p)) }
func askewChain(p routing.Path) string { return "askew_" + ident(string(p)) }
func strayCount(p routing.Path) string { return "stray_" + ident(string(p)) }
func downCount(p routing.Path) string  { return "rejected_" + ident(string(p)) }
func lockCount(p routing.Path) string  { return "locked_" + ident(string(p)) }

func (r Ruleset) direct() uint32    { return r.field().Value(routing.MarkDirect) }
func (r Ruleset) revocable() uint32 { return r.field().Value(routing.MarkRevocable) }
func (r Ruleset) flow() marking     { return flow(r.field()) }
func (r Ruleset) packet() marking   { return packet(r.field()) }
func (t Tunnel) name() string       { return string(t.Path) }

func rules(rs ...rule) []rule { return rs }

func on(terms ...term) rule { return rule{terms: terms} }

// because gives the rule a comment that nft lists too.
func (r rule) because(text string) rule {
	r.comment = text
	return r
}

// chains builds the table's chains in the order in which a packet meets them.
func (r Ruleset) chains() []chain {
	if r.KillSwitch.Level == Lockdown {
		return r.strict()
	}
	out := append(r.early(), r.earlyOutput())
	if r.DNS.Redirect != 0 {
		out = append(out, r.dstnat())
	}
	out = append(out, r.flows(), r.steer(), r.output(), r.input(), r.forward(), r.postrouting())
	if len(r.Tunnels) > 0 {
		out = append(out, r.srcnat())
	}
	if r.lanApart() {
		out = append(out, r.steerLAN())
	}
	if r.oneArmed() {
		out = append(out,
			chain{name: chainArmFlow, about: "from the LAN, by an interface that is an uplink too", rules: r.decideFlows()},
			chain{name: chainArmWay, about: "from the LAN, by an interface that is an uplink too", rules: r.steerFlows()})
	}
	if r.Decide.Routed {
		out = append(out, r.routed(), r.routedOwn())
	} else {
		out = append(out, r.classify())
	}
	out = append(out, r.decided(routing.Direct, r.direct()))
	if slices.ContainsFunc(r.Tunnels, Tunnel.detours) {
		out = append(out, chain{name: chainDetour, about: "direct only while the tunnel is down",
			rules: rules(on(count(chainDetour), r.flow().set(r.revocable())))})
	}
	for _, t := range r.Tunnels {
		out = append(out, r.begin(t), r.into(t), r.outOf(t))
		if t.Up {
			out = append(out, r.askew(t))
		}
	}
	if len(r.Tunnels) > 0 {
		out = append(out, r.recall())
	}
	return slices.Concat(out, r.gatewayChains(), r.strict())
}

// recall gives flows of a tunnel the mark back that other software took when it
// saved all of the packet's mark as the flow's: their translation says which
// tunnel it was.
func (r Ruleset) recall() chain {
	c := chain{name: chainRecall, about: "a flow with a tunnel's address is the tunnel's, whoever took its mark"}
	for _, t := range r.Tunnels {
		for _, p := range t.Addresses {
			for _, direction := range []uint32{replying, original} {
				c.rules = append(c.rules, on(flowTo(direction, p.Addr()), r.flow().set(t.Mark)))
			}
		}
	}
	return c
}

// recalled sends flows without a mark to recall.
func (r Ruleset) recalled() []rule {
	if len(r.Tunnels) == 0 {
		return nil
	}
	return rules(on(r.flow().is(0), isKnown(), jump(chainRecall)))
}

func (t Tunnel) detours() bool { return !t.Up && t.StandIn == routing.Direct }

// decided gives a new flow its path.
func (r Ruleset) decided(p routing.Path, mark uint32) chain {
	return chain{name: newChain(p), about: "a new flow goes by " + string(p), rules: rules(on(count(newChain(p)), r.flow().set(mark)))}
}

// begin gives a new flow the tunnel as its path. A TCP segment in the middle of
// a connection that conntrack does not know has been on its way elsewhere: it
// is never re-routed. One that is invalid may have the ports of a flow that
// lives: a reset would end that.
func (r Ruleset) begin(t Tunnel) chain {
	c := r.decided(t.Path, t.Mark)
	if t.detours() {
		c.rules = rules(on(goTo(chainDetour)).because("when_down = direct"))
	} else if other, ok := r.standIn(t); ok {
		c.rules = rules(on(count(newChain(t.Path)), r.flow().set(r.stood(t))).because(other.name() + " stands in"))
	}
	// What belongs to no flow gets no translation and keeps no mark.
	c.rules = slices.Concat(rules(
		on(isInvalid(), count(strayCount(t.Path)), drop()),
		on(isStray(), count(strayCount(t.Path)), rejectTCP()),
		on(isUntracked(), count(strayCount(t.Path)), drop()),
	), c.rules)
	return c
}

// into sends a packet into the tunnel, or says at once that it is down.
func (r Ruleset) into(t Tunnel) chain {
	c := chain{name: toChain(t.Path), about: "a packet goes into " + string(t.Path)}
	if t.Up {
		for _, f := range families() {
			if t.lacks(f) {
				c.rules = append(c.rules, t.refuse(f.only())...)
			}
		}
		c.rules = append(c.rules,
			on(append(isUntranslated(), goTo(askewChain(t.Path)))...).because("masqueraded, unless it began elsewhere"),
			on(r.packet().set(t.Mark)))
		return c
	}
	c.about = string(t.Path) + " is down: fail in milliseconds"
	c.rules = t.refuse()
	return c
}

// askew lets packets with t's own address in. A flow with another one has begun
// past the tunnel, while somebody had taken our table or a mark away: nobody
// would answer it, and its sender had better begin anew.
func (r Ruleset) askew(t Tunnel) chain {
	c := chain{name: askewChain(t.Path), about: "goes into " + string(t.Path) + ", and will not be translated"}
	for _, a := range t.Addresses {
		c.rules = append(c.rules, on(fromAddr(a.Addr()), r.packet().set(t.Mark), ret()))
	}
	c.rules = append(c.rules, t.between(r.packet().set(t.Mark), ret())...)
	c.rules = append(c.rules, t.refuse()...)
	return c
}

// refuse tells senders at once that t does not carry what matches.
func (t Tunnel) refuse(matches ...term) []rule {
	return rules(
		on(slices.Concat(matches, []term{tcp().only(), count(downCount(t.Path)), rejectTCP()})...),
		on(slices.Concat(matches, []term{count(downCount(t.Path)), reject()})...),
	)
}

func (t Tunnel) lacks(f family) bool { return f == v4() && t.NoIPv4 || f == v6() && t.NoIPv6 }

// outOf is what happens to packets that come out of the tunnel.
func (r Ruleset) outOf(t Tunnel) chain {
	c := chain{name: fromChain(t.Path), about: "a packet came out of " + string(t.Path)}
	c.rules = append(c.rules, t.clamps(t.fitting())...)
	c.rules = append(c.rules, on(isNew(), r.flow().set(t.Mark)).because("answered the way it came"))
	return c
}

func (r Ruleset) dstnat() chain {
	c := chain{name: "dstnat", base: &hook{"nat", "prerouting", unix.NF_INET_PRE_ROUTING, -100, "dstnat"},
		about: "LAN clients that ask another DNS server ask us"}
	for _, p := range []protocol{udp(), tcp()} {
		for _, f := range families() {
			c.rules = append(c.rules, on(p.dport(53), in().among(setLANIfs), f.notTo(setLocal), redirect(r.DNS.Redirect)))
		}
	}
	return c
}

// flows decides new flows that come in. It writes conntrack marks only, and
// sees destinations after their translation: a redirected query stays here.
func (r Ruleset) flows() chain {
	c := chain{name: "flows", base: &hook{"filter", "prerouting", unix.NF_INET_PRE_ROUTING, -90, "dstnat + 10"},
		about: "new flows from the LAN, containers and virtual machines get their path"}
	c.rules = rules(on(r.flow().is(r.direct()), ret()))
	for _, t := range r.Tunnels {
		c.rules = append(c.rules, on(in().is(t.name()), goTo(fromChain(t.Path))))
	}
	c.rules = append(c.rules, on(r.flow().isNot(0), ret()).because("decided"), on(in().is("lo"), ret()))
	c.rules = append(c.rules, r.skipped(in())...)
	c.rules = append(c.rules, r.armed(goTo(chainArmFlow), family.from)...)
	c.rules = append(c.rules, on(in().among(setUplinks), ret()).because("answered the way it came"))
	c.rules = append(c.rules, r.decideFlows()...)
	return c
}

// oneArmed reports whether an interface is the LAN's and an uplink: a gateway
// beside the router. Addresses then say who is who.
func (r Ruleset) oneArmed() bool {
	return slices.ContainsFunc(r.Interfaces.LAN, func(i string) bool { return slices.Contains(r.Interfaces.Uplinks, i) })
}

// armed does what then says with packets of the LAN on such interfaces.
func (r Ruleset) armed(then term, lan func(f family, set string) term) []rule {
	if !r.oneArmed() {
		return nil
	}
	var out []rule
	for _, f := range families() {
		out = append(out, on(in().among(setUplinks), in().among(setLANIfs), lan(f, setLAN), then))
	}
	return out
}

// decideFlows gives new flows their path.
func (r Ruleset) decideFlows() []rule {
	return append(r.recalled(),
		on(isInvalid(), in().among(setLANIfs), count(countInvalid), drop()).because("would leave with its private source"),
		on(isNew(), r.flow().is(0), goTo(r.decides())),
		on(isInvalid(), goTo(r.decides())).because("of no flow: a tunnel's is dropped"),
		on(isUntracked(), tcp().only(), goTo(r.decides())),
		on(isUntracked(), udp().only(), goTo(r.decides())),
	)
}

// steer is the only place where packets passing through get marks: those
// heading for a tunnel its mark, all others of the LAN direct. An unmarked
// packet of the LAN is routed into the tunnel by a rule: the third lock, which
// holds without this table.
func (r Ruleset) steer() chain {
	c := chain{name: "steer", base: &hook{"filter", "prerouting", unix.NF_INET_PRE_ROUTING, 300, "300"},
		about: "packets passing through are marked for the way of their flow"}
	if r.lanApart() {
		c.rules = rules(on(in().among(setLANIfs), goTo(chainLANWay)))
	}
	c.rules = append(c.rules, on(in().is("lo"), ret()))
	c.rules = append(c.rules, r.skipped(in())...)
	c.rules = append(c.rules, r.outOfTunnels())
	c.rules = append(c.rules, r.armed(goTo(chainArmWay), family.from)...)
	c.rules = append(c.rules, on(in().among(setUplinks), r.packet().set(r.direct()), ret()).because("for reverse path filters: its answers go direct"))
	if r.lanApart() && !r.Decide.Routed {
		c.rules = append(c.rules, r.steerOthers()...)
	} else {
		c.rules = append(c.rules, r.steerFlows(in().among(setLANIfs))...)
	}
	return c
}

// lanApart reports whether interfaces of the LAN are nothing else: then what
// they are is the only question about their packets.
func (r Ruleset) lanApart() bool {
	i := r.Interfaces
	return len(i.LAN) > 0 && !slices.ContainsFunc(i.LAN, func(l string) bool {
		return l == "lo" || slices.Contains(i.Uplinks, l) || slices.Contains(i.Skip, l) ||
			slices.ContainsFunc(r.Tunnels, func(t Tunnel) bool { return t.name() == l })
	})
}

// skipped leaves packets of interfaces alone that are none of ours.
func (r Ruleset) skipped(s side) []rule {
	if len(r.Interfaces.Skip) == 0 {
		return nil
	}
	return rules(on(s.among(setSkip), ret()))
}

// steerLAN marks packets of the LAN.
func (r Ruleset) steerLAN() chain {
	c := chain{name: chainLANWay, about: "from the LAN"}
	if !r.Decide.Routed {
		c.rules = rules(on(r.flow().is(r.direct()), r.packet().set(r.direct()), ret()))
	}
	c.rules = append(c.rules, r.steerFlows()...)
	return c
}

// steerFlows marks packets of the LAN, which these terms match, for the way of
// their flow.
func (r Ruleset) steerFlows(lan ...term) []rule {
	out := r.steerOthers()
	if r.Decide.Routed {
		return append(out, r.keepDirect()...)
	}
	direct := func(flows ...term) rule { return on(slices.Concat(lan, flows, []term{r.packet().set(r.direct())})...) }
	return append(out, direct(r.flow().is(r.direct())), direct(r.flow().is(r.revocable())),
		direct(isKnown(), r.flow().is(0)).because("from before us, or from outside"))
}

// steerOthers marks packets for the tunnel of their flow.
func (r Ruleset) steerOthers() []rule {
	out := rules(on(isNew(), r.flow().is(0), jump(r.decides())).because("others have taken the mark since"))
	out = append(out, r.recalled()...)
	for _, t := range r.Tunnels {
		out = append(out, on(r.flow().is(t.Mark), goTo(toChain(t.Path))))
	}
	return append(out, r.standing()...)
}

// output decides and marks what this host itself sends. Sockets of ours carry
// the mark of their path from the start; they also probe a tunnel that is down.
func (r Ruleset) output() chain {
	c := chain{name: "output", base: &hook{"route", "output", unix.NF_INET_LOCAL_OUT, -150, "mangle"},
		about: "this host's own flows get their path, and their packets its mark"}
	c.rules = rules(
		on(out().is("lo"), ret()),
	)
	c.rules = append(c.rules, r.portalOutput()...)
	if r.oneArmed() {
		for _, p := range redirects() {
			c.rules = append(c.rules, on(out().among(setUplinks), out().among(setLANIfs), p, drop()).because("clients would go round us"))
		}
	}
	c.rules = append(c.rules,
		on(out().among(setLANIfs), isReply(), ret()).because("answers to clients"),
		on(out().among(setLANIfs), isRelated(), ret()).because("errors and resets to clients"),
		on(out().among(setLANIfs), v4().to(setLAN), ret()),
		on(out().among(setLANIfs), v6().to(setLAN), ret()),
	)
	c.rules = append(c.rules, r.skipped(out())...)
	c.rules = append(c.rules, on(r.packet().is(r.direct()), r.flow().set(r.direct()), ret()).because("our own sockets"))
	for _, t := range r.Tunnels {
		c.rules = append(c.rules, on(r.packet().is(t.Mark), r.flow().set(t.Mark), ret()).because("our own sockets"))
	}
	if !r.Decide.Routed {
		c.rules = append(c.rules, on(r.flow().is(r.direct()), ret()))
	}
	c.rules = append(c.rules, r.recalled()...)
	if r.Decide.Routed {
		c.rules = append(c.rules, r.keepDirect()...)
	}
	c.rules = append(c.rules,
		on(isRelated(), out().outside(setUplinks), ret()).because("errors and resets to containers"),
		on(udp().sport(68), udp().dport(67), goTo(chainDirect)).because("DHCP"),
		on(udp().sport(546), udp().dport(547), goTo(chainDirect)).because("DHCPv6"),
	)
	c.rules = append(c.rules, r.clockOut()...)
	c.rules = append(c.rules,
		on(isNew(), r.flow().is(0), jump(r.decidesOwn())),
		on(isInvalid(), jump(r.decidesOwn())).because("of no flow: a tunnel's is dropped"),
		on(isUntracked(), tcp().only(), jump(r.decidesOwn())),
		on(isUntracked(), udp().only(), jump(r.decidesOwn())),
	)
	for _, t := range r.Tunnels {
		c.rules = append(c.rules, on(r.flow().is(t.Mark), goTo(toChain(t.Path))))
	}
	c.rules = append(c.rules, r.standing()...)
	return c
}

// classify is the order of addresses.
func (r Ruleset) classify() chain {
	c := chain{name: chainDecide, about: "which way a new flow goes: the first match wins"}
	add := func(why, target string, matches ...term) {
		c.rules = append(c.rules, on(append(matches, goTo(target))...).because(why))
	}
	both := func(why, target, set string) {
		for _, f := range families() {
			add(why, target, f.to(set))
		}
	}
	c.rules = rules(on(toType(local()), ret()), on(toType(broadcast()), ret()))
	both("LAN", chainDirect, setLAN)
	for _, p := range onLink() {
		add("link-local, multicast", chainDirect, toPrefix(p))
	}
	o := r.order()
	written := func(lines []AddressRule) {
		for _, l := range lines {
			if l.Match.Kind == MatchList {
				both(l.Text, newChain(l.Via), ident(l.Match.List))
			} else {
				add(l.Text, newChain(l.Via), toPrefix(l.Match.Prefix.Masked()))
			}
		}
	}
	written(o.early)
	for _, t := range r.Tunnels {
		for _, p := range t.own() {
			add(string(t.Path)+"'s own", newChain(t.Path), toPrefix(p))
		}
	}
	both("private", newChain(o.private), setLocal)
	written(o.middle)
	for _, p := range r.Paths() {
		both("marks", newChain(p), ident(string(p)))
	}
	if o.home != "" {
		both("home", newChain(o.home), setHome)
	}
	written(o.late)
	add("everything else", newChain(r.defaultPath()))
	return c
}

// onLink returns what never leaves a link.
func onLink() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{"169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8"} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// own returns the subnets that always go through t, without repetition.
func (t Tunnel) own() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range slices.Concat(t.Addresses, t.Own) {
		if p = p.Masked(); p.Bits() > 0 && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// ordering is where the lines of the file stand among the other addresses.
type ordering struct {
	early, middle, late []AddressRule // before private; between private and the marks; after home
	private, home       routing.Path  // home is "" when no line says home
}

// order keeps "first match wins" among the lines of the file, as far as marks
// have to stand between private and home. A line after home is tested after
// home.
func (r Ruleset) order() ordering {
	o := ordering{}
	for _, l := range r.Decide.Rules {
		switch {
		case l.Match.Kind == MatchPrivate:
			if o.private == "" {
				o.private = l.Via
			}
		case l.Match.Kind == MatchHome:
			if o.home == "" {
				o.home = l.Via
			}
		case o.home != "":
			o.late = append(o.late, l)
		case o.private != "":
			o.middle = append(o.middle, l)
		default:
			o.early = append(o.early, l)
		}
	}
	if o.private == "" {
		o.private = routing.Direct
	}
	return o
}

func (r Ruleset) input() chain {
	return chain{name: "input", base: &hook{"filter", "input", unix.NF_INET_LOCAL_IN, 0, "filter"},
		about: "inbound = block", rules: r.blocked()}
}

// blocked drops new connections out of tunnels with inbound = block.
func (r Ruleset) blocked() []rule {
	var out []rule
	for _, t := range r.Tunnels {
		if t.Inbound == InboundBlock {
			out = append(out, on(isNew(), in().is(t.name()), count(countInbound), drop()))
		}
	}
	return out
}

func (r Ruleset) forward() chain {
	c := chain{name: "forward", base: &hook{"filter", "forward", unix.NF_INET_FORWARD, 0, "filter"},
		about: "inbound = block; nobody outside uses the forwarding that we turned on"}
	c.rules = append(rules(on(isKnown(), ret())), r.blocked()...)
	// The answer to a flow whose translation is forgotten, with the tunnel's
	// address: it would leave in the clear.
	c.rules = append(c.rules, on(isInvalid(), in().among(setTunnels), count(countInvalid), drop()))
	i := r.Interfaces
	c.rules = append(c.rules, r.armed(ret(), family.from)...)
	if i.Forwarding4 || i.Forwarding6 {
		c.rules = append(c.rules, on(isForwardedPort(), in().among(setUplinks), ret()).because("port forwards of the admin"))
	}
	for _, f := range families() {
		if f == v4() && i.Forwarding4 || f == v6() && i.Forwarding6 {
			c.rules = append(c.rules,
				on(isNew(), f.only(), in().among(setUplinks), count(countInbound), drop()),
				on(isInvalid(), f.only(), in().among(setUplinks), count(countInvalid), drop()))
		}
	}
	return c
}

// postrouting is the lock that holds whatever routed the packet here. On the
// uplinks it asks the flow too: other software may have taken the packet's mark.
func (r Ruleset) postrouting() chain {
	c := chain{name: "postrouting", base: &hook{"filter", "postrouting", unix.NF_INET_POST_ROUTING, -150, "mangle"},
		about: "the lock: what belongs into a tunnel leaves by it or not at all"}
	for _, t := range r.Tunnels {
		c.rules = append(c.rules, on(isSYN(), out().is(t.name()), clampToRoute()))
		c.rules = append(c.rules, t.clamps(t.Fits, out().is(t.name()))...)
	}
	c.rules = append(c.rules, on(out().is("lo"), ret()))
	for _, t := range r.Tunnels {
		c.rules = append(c.rules, on(r.packet().is(t.Mark), out().not(t.name()), count(lockCount(t.Path)), drop()))
	}
	if r.oneArmed() {
		for _, f := range families() {
			c.rules = append(c.rules, on(out().among(setUplinks), out().among(setLANIfs), f.to(setLAN), ret()).because("answers to clients"))
		}
	}
	for _, t := range r.Tunnels {
		c.rules = append(c.rules, on(r.flow().is(t.Mark), out().among(setUplinks), count(lockCount(t.Path)), drop()))
	}
	if r.stands() {
		c.rules = append(c.rules, on(r.stoodFlows(), out().among(setUplinks), count(lockStood), drop()))
	}
	return c
}

func (r Ruleset) srcnat() chain {
	c := chain{name: "srcnat", base: &hook{"nat", "postrouting", unix.NF_INET_POST_ROUTING, 100, "srcnat"},
		about: "into a tunnel only with its own address", rules: r.clockSource()}
	for _, t := range r.Tunnels {
		c.rules = append(c.rules, t.between(out().is(t.name()), ret())...)
		c.rules = append(c.rules, on(out().is(t.name()), masquerade()))
	}
	if r.oneArmed() {
		for _, f := range families() {
			c.rules = append(c.rules, on(out().among(setUplinks), out().among(setLANIfs), f.from(setLAN), masquerade()).because("the router would answer the client, past us"))
		}
	}
	c.rules = append(c.rules, r.masqueraded()...)
	return c
}

// ident makes a name that nft takes without quotes.
func ident(s string) string {
	b := []byte(s)
	for i, c := range b {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || c == '-' || c == '.')) {
			b[i] = '_'
		}
	}
	if len(s) > 0 && '0' <= s[0] && s[0] <= '9' {
		return fmt.Sprintf("_%s%s", s[:1], b[1:])
	}
	return string(b)
}
