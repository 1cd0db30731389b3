package daemon

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"smartdns/configs"
	"smartdns/nft"
	"smartdns/routing"
)

// live is what the wanted kernel state depends on beside the Config: what the
// kernel shows, and how far we have come. It is a value.
type live struct {
	facts    routing.Facts
	marks    marks
	links    map[routing.Path]link
	marking  bool // our nft table is in place
	locked   bool // rules keep everything in until it is
	forwards opened
	listen   []netip.AddrPort
	waiting  bool // for the clock to be set
	offloads bool // the kernel has flowtables
}

// opened says for which families it was us who turned forwarding on.
type opened struct{ v4, v6 bool }

// link is a tunnel as it runs.
type link struct {
	index int  // 0: no link yet
	mtu   int  // bytes
	fits  int  // the largest packet that arrives; 0: as mtu says
	up    bool // packets can go through it
}

// tunnelMTU is WireGuard's over a path of 1500 bytes.
const tunnelMTU = 1420

func (l live) mtu(p routing.Path) int {
	if m := l.links[p].mtu; m > 0 {
		return m
	}
	return tunnelMTU
}

// fwmark is what a tunnel's own packets carry.
func (l live) fwmark(t Tunnel) uint32 {
	return t.WG.Mark(l.marks.of(routing.Direct), uint32(l.marks.field))
}

// input is what package routing should hold.
func (p *Parts) input(l live) routing.Input {
	in := routing.Input{Field: l.marks.field, Default: p.Sets.Decide.Default, LAN: p.Config.Listen.LAN, Ways: p.ways(l), Marking: l.marking, Discreet: p.strict()}
	if l.locked {
		in.Locked, in.Near = true, p.near(l)
	}
	for _, t := range p.Tunnels {
		in.Tunnels = append(in.Tunnels, routing.Tunnel{
			Path: t.Path, Number: l.marks.numbers[t.Path], Index: l.links[t.Path].index,
			Addrs: t.WG.Addresses, AllowedIPs: t.allowed(), MTU: l.mtu(t.Path), Fits: l.links[t.Path].fits,
		})
	}
	return in
}

// allowed returns what may go into the tunnel: all peers' AllowedIPs.
func (t Tunnel) allowed() []netip.Prefix {
	var all []netip.Prefix
	for _, peer := range t.WG.Peers {
		all = append(all, peer.AllowedIPs...)
	}
	return all
}

// own returns the addresses that always go through the tunnel, whatever the
// policy says: its subnets, its DNS servers, and AllowedIPs where they select a
// part. AllowedIPs that take most of the Internet (0.0.0.0/0, its two halves, or
// everything but the LAN in many pieces) select nothing: the policy does. Beside
// 0.0.0.0/0 itself, whatever is longer is there because it is meant.
func (t Tunnel) own() []netip.Prefix {
	all := slices.Clone(t.WG.Addresses)
	allowed := t.allowed()
	if t.WG.Quick.Table == "off" {
		allowed = nil // no route of the file's own: the policy says what goes there
	}
	for _, p := range allowed {
		beside := p.Bits() > 1 && slices.Contains(allowed, routing.FamilyOf(p.Addr()).All())
		if beside || !most(allowed, p.Addr().Is4()) {
			all = append(all, p)
		}
	}
	for i := range all {
		all[i] = all[i].Masked()
	}
	for _, a := range t.WG.DNS {
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	return all
}

// most reports whether prefixes hold half of the public addresses of a family.
func most(prefixes []netip.Prefix, v4 bool) bool {
	half := 0.5
	if !v4 {
		half = 1.0 / 16 // public v6 addresses are an eighth: 2000::/3
	}
	share := 0.0
	for _, p := range prefixes {
		if p.Addr().Is4() == v4 {
			share += math.Ldexp(1, -p.Bits())
		}
	}
	return share >= half
}

// carries reports whether a family can go through the tunnel: it has an address
// to come from, and its peer takes something of the other side's.
func (t Tunnel) carries(f routing.Family) bool {
	of := func(p netip.Prefix) bool { return routing.FamilyOf(p.Addr()) == f }
	return slices.ContainsFunc(t.WG.Addresses, of) && slices.ContainsFunc(t.allowed(), of)
}

// ruleset is what our nft table should hold.
func (p *Parts) ruleset(l live) nft.Ruleset {
	c := p.Config
	r := nft.Ruleset{
		Field: l.marks.field,
		Interfaces: nft.Interfaces{
			LAN: c.Listen.LAN, Uplinks: l.facts.Uplinks(), Skip: c.Routing.Skip,
			Forwarding4: l.forwards.v4, Forwarding6: l.forwards.v6,
		},
		Addresses: nft.Addresses{LAN: lanPrefixes(c, l.facts), Home: p.Sets.Home, Lists: p.Sets.Lists},
		Decide:    p.Sets.Decide,
		DNS:       nft.DNS{Listen: l.listen},
		SetSize:   c.Marks.Size, ClockFirst: l.waiting,
		Gateway: p.gateway(l),
	}
	if p.strict() {
		r.KillSwitch = nft.KillSwitch{Level: nft.Strict, Near: p.near(l)}
	}
	if c.Routing.Mode == configs.ModeRoutes {
		r.Decide = nft.Decide{Default: p.Sets.Decide.Default, Routed: true}
		r.Addresses.Home, r.Addresses.Lists = nil, nil
	}
	if c.Listen.Redirect {
		r.DNS.Redirect = redirectTo(c, l)
	}
	for _, t := range p.Tunnels {
		n := nft.Tunnel{
			Path: t.Path, Mark: l.marks.of(t.Path), Up: l.links[t.Path].up,
			Addresses: t.WG.Addresses, Own: t.own(), MTU: l.mtu(t.Path), Fits: l.links[t.Path].fits,
			NoIPv4: !t.carries(routing.V4), NoIPv6: !t.carries(routing.V6),
			Known: t.Translate == configs.TranslatePublic,
		}
		p.standIn(l, &n)
		if t.Inbound == configs.InboundAllow {
			n.Inbound = nft.InboundAllow
		}
		r.Tunnels = append(r.Tunnels, n)
	}
	return r
}

const (
	dnsPort = 53
	// redirectPort is where redirected queries arrive: before conntrack, a port
	// of their own is all that tells their answers, which must be tracked, from
	// those of queries that were sent to us. It is below the range that the
	// kernel gives to clients.
	redirectPort = 5953
)

// onLAN calls f with each address of the LAN interfaces.
func onLAN(c *configs.Config, f routing.Facts, visit func(netip.Prefix)) {
	for _, i := range f.Links {
		if slices.Contains(c.Listen.LAN, i.Name) {
			for _, a := range i.Addrs {
				visit(a)
			}
		}
	}
}

// lanPrefixes returns the prefixes of the LAN, without link-local ones.
func lanPrefixes(c *configs.Config, f routing.Facts) []netip.Prefix {
	var all []netip.Prefix
	onLAN(c, f, func(p netip.Prefix) {
		if !p.Addr().IsLinkLocalUnicast() {
			all = append(all, p.Masked())
		}
	})
	return all
}

// listenAddrs returns where we serve: the addresses of the file, and port 53
// of every address of the LAN interfaces, with the port for redirected queries. Link-local v6 ones are left out: they
// need a zone, and clients are told the others.
func listenAddrs(c *configs.Config, f routing.Facts) []netip.AddrPort {
	all := slices.Clone(c.Listen.DNS)
	onLAN(c, f, func(p netip.Prefix) {
		if p.Addr().IsLinkLocalUnicast() {
			return
		}
		all = append(all, netip.AddrPortFrom(p.Addr(), dnsPort))
		if c.Listen.Redirect {
			all = append(all, netip.AddrPortFrom(p.Addr(), redirectPort))
		}
	})
	// A wildcard of the same family and port has them already.
	all = slices.DeleteFunc(all, func(a netip.AddrPort) bool {
		return slices.ContainsFunc(c.Listen.DNS, func(w netip.AddrPort) bool {
			return w != a && w.Addr().IsUnspecified() && w.Port() == a.Port() && w.Addr().Is4() == a.Addr().Is4()
		})
	})
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// redirectTo returns the port at which a listener takes what LAN clients send to
// port 53 of others, 0 while there is none: an address of the LAN interface
// that they came in by.
func redirectTo(c *configs.Config, l live) uint16 {
	for _, port := range []uint16{redirectPort, dnsPort} {
		found := false
		onLAN(c, l.facts, func(p netip.Prefix) {
			found = found || slices.ContainsFunc(l.listen, func(a netip.AddrPort) bool {
				return a.Port() == port && (a.Addr() == p.Addr() || a.Addr().IsUnspecified())
			})
		})
		if found {
			return port
		}
	}
	return 0
}

// ownServer returns an error when a side's server is this very resolver: each
// question would come back as another one.
func (p *Parts) ownServer(f routing.Facts) error {
	for _, s := range p.Config.Sides {
		for _, server := range slices.Concat(s.Servers, s.Bootstrap) {
			if slices.ContainsFunc(server.Known(), func(a netip.AddrPort) bool { return p.isOwn(a, f) }) {
				return fmt.Errorf("%s: [side.%s] servers: %s is where this program listens; name another server", s.Pos, s.Name, server.Text)
			}
		}
	}
	return nil
}

// isOwn reports whether a query to a would come to this program.
func (p *Parts) isOwn(a netip.AddrPort, f routing.Facts) bool {
	for _, own := range listenAddrs(p.Config, f) {
		mine := own.Addr() == a.Addr()
		if own.Addr().IsUnspecified() {
			for _, i := range f.Links {
				mine = mine || slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr() == a.Addr() })
			}
		}
		if mine && own.Port() == a.Port() {
			return true
		}
	}
	return false
}

// carriesV6 says of a path whether it carries IPv6 now.
func (p *Parts) carriesV6(f routing.Facts, path routing.Path) bool {
	if !f.IPv6 {
		return false
	}
	for _, t := range p.Tunnels {
		if t.Path == path {
			return t.carries(routing.V6)
		}
	}
	return f.HasDefault(routing.V6)
}

// turnedForwardingOn says for which families forwarding was off before us.
func turnedForwardingOn(s routing.State) opened {
	off := func(key string) bool {
		return slices.ContainsFunc(s.Sysctls, func(c routing.Sysctl) bool { return c.Key == key && c.Was == "0" })
	}
	return opened{off(routing.KeyForward4), off(routing.KeyForward6)}
}
