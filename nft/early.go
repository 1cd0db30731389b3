package nft

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// early sees packets before conntrack. What comes out of a tunnel carries its
// mark until steer, so that a strict reverse path filter finds the tunnel.
func (r Ruleset) early() []chain {
	c := chain{name: "early", base: &hook{"filter", "prerouting", unix.NF_INET_PRE_ROUTING, -300, "raw"},
		about: "before conntrack: our DNS is not tracked, tunnels cannot be spoofed"}
	c.rules = r.untracked(in(), protocol.dport, toAddr)
	for _, t := range r.Tunnels {
		for _, p := range t.Addresses {
			c.rules = append(c.rules, on(toAddr(p.Addr()), in().not(t.name()), notFromType(local()), count(countSpoof), drop()).because("CVE-2019-14899"))
		}
	}
	if len(r.Tunnels) == 0 {
		return []chain{c}
	}
	c.rules = append(c.rules, on(in().among(setTunnels), goTo(chainEarlyIn)))
	inside := chain{name: chainEarlyIn, about: "before conntrack: out of a tunnel"}
	for _, f := range families() {
		inside.rules = append(inside.rules, on(f.from(setLAN), count(countSpoof), drop()))
	}
	for _, t := range r.Tunnels {
		inside.rules = append(inside.rules, on(in().is(t.name()), r.packet().set(t.Mark)).because("for strict reverse path filters; see steer"))
	}
	return []chain{c, inside}
}

func (r Ruleset) earlyOutput() chain {
	return chain{name: "early_output", base: &hook{"filter", "output", unix.NF_INET_LOCAL_OUT, -300, "raw"},
		about: "before conntrack: our DNS is not tracked",
		rules: r.untracked(out(), protocol.sport, fromAddr)}
}

// untracked exempts DNS over lo, and DNS between the LAN and our own LAN
// addresses, from conntrack: at 20,000 queries/s its table overflows.
func (r Ruleset) untracked(iface side, ours func(protocol, uint16) term, addr func(netip.Addr) term) []rule {
	var out []rule
	var ports []uint16
	for _, l := range r.DNS.Listen {
		ports = append(ports, l.Port())
	}
	slices.Sort(ports)
	for _, n := range slices.Compact(ports) {
		for _, p := range []protocol{udp(), tcp()} {
			out = append(out, on(p.dport(n), iface.is("lo"), notrack()), on(p.sport(n), iface.is("lo"), notrack()))
		}
	}
	for _, l := range r.DNS.Listen {
		if a := l.Addr().Unmap(); a.IsLoopback() || a.IsUnspecified() || l.Port() == r.DNS.Redirect {
			continue
		}
		for _, p := range []protocol{udp(), tcp()} {
			out = append(out, on(addr(l.Addr().Unmap().WithZone("")), ours(p, l.Port()), iface.among(setLANIfs), notrack()))
		}
	}
	return out
}
