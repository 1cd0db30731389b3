package routing

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Input is what Plan needs beside the Facts. The zero value wants nothing of
// ours in the kernel.
type Input struct {
	Field   Field
	Tunnels []Tunnel // in the order of the file, at most MaxTunnels
	Default Path     // where goes what nothing else decides
	LAN     []string // interfaces whose clients we route; we forward if there are any
	Ways    []Way    // what decides by destination; empty: marks do

	// Marking says that our nft table is in place. Before it, only what locks is
	// wanted: no rule may rely on marks that nobody sets, and nothing is
	// forwarded.
	Marking bool

	// Discreet says that nobody on an uplink learns by ARP which addresses the
	// tunnels have.
	Discreet bool

	// Locked says that nobody decides: nothing but what is Near has a way.
	Locked bool
	Near   []netip.Prefix // beside Locked
}

// Tunnel is one tunnel of an Input.
type Tunnel struct {
	Path       Path
	Number     int            // 0..MaxTunnels-1; see Number
	Index      int            // of its link, once that is configured; 0 before
	Addrs      []netip.Prefix // its addresses with their lengths
	AllowedIPs []netip.Prefix // what may go into it
	MTU        int            // bytes
	Fits       int            // of the largest packet that arrives, where that is less than MTU; 0: all do
	Bare       bool           // the link and its addresses alone: nothing leads into it
}

// Number gives every path its tunnel number. A path keeps the number it has in
// shown; a new one takes the lowest that nobody has, in the order of paths. The
// result and shown are indexed by path. It is an error if there are more paths
// than numbers.
func Number(paths []Path, shown map[Path]int) (map[Path]int, error) {
	if len(paths) > MaxTunnels {
		return nil, fmt.Errorf("%d tunnels are more than the %d possible", len(paths), MaxTunnels)
	}
	numbers := make(map[Path]int, len(paths))
	var kept, used [MaxTunnels]bool
	for p, n := range shown {
		used[n] = true
		if slices.Contains(paths, p) {
			kept[n] = true
			numbers[p] = n
		}
	}
	for _, p := range paths {
		if _, ok := numbers[p]; ok {
			continue
		}
		// The number of a tunnel that has gone is taken last: flows of that
		// tunnel may still carry its mark.
		n := slices.Index(used[:], false)
		if n < 0 {
			n = slices.Index(kept[:], false)
		}
		numbers[p], used[n], kept[n] = n, true, true
	}
	return numbers, nil
}

// Plan says what of ours should be in a kernel that shows f. It is pure.
//
// What locks is always wanted, in both families: a rule that is unreachable for
// each tunnel's mark, and an unreachable default route in each tunnel's table.
// What leads into a tunnel is wanted where its link is.
func Plan(in Input, f Facts) State {
	var s State
	fams := in.families(f)
	for _, t := range in.Tunnels {
		if t.Bare {
			t.AllowedIPs = nil
		}
		for _, fam := range fams {
			if t.Bare {
				break
			}
			s.Rules = append(s.Rules, in.markRules(t, fam)...)
			s.Routes = append(s.Routes, Route{Table: t.table(), Dst: fam.All(), Type: Unreachable, Metric: MetricLock, Protocol: Protocol})
		}
		if l, ok := f.Link(t.Index); ok && t.Index != 0 {
			t.plan(&s, l, f.IPv6)
		}
	}
	if len(in.Ways) > 0 {
		s.Routes = append(s.Routes, in.ways(f)...)
	} else if len(in.LAN) > 0 && len(in.Tunnels) > 0 {
		s.Routes = append(s.Routes, in.lockTable(f)...)
	}
	if in.Locked {
		s.Rules = append(s.Rules, in.lockedRules(fams)...)
	}
	if in.Marking {
		for _, fam := range fams {
			s.Rules = append(s.Rules, in.unmarkedRules(fam, f)...)
		}
		if len(in.LAN) > 0 {
			s.Sysctls = append(s.Sysctls, in.forwarding(f)...)
		}
		if in.Discreet {
			s.Sysctls = append(s.Sysctls, in.discretion(f)...)
		}
		if len(in.LAN) > 0 || len(in.Ways) > 0 {
			s.Sysctls = append(s.Sysctls, in.reversePaths(f)...)
		}
	}
	s.Sort()
	s.Addrs, s.Rules = slices.Compact(s.Addrs), slices.Compact(s.Rules)
	return s
}

func (in Input) families(f Facts) []Family {
	if f.IPv6 {
		return []Family{V4, V6}
	}
	return []Family{V4}
}

func (t Tunnel) table() uint32 { return uint32(FirstTable + t.Number) }

// carries reports whether t has routes of family fam.
func (t Tunnel) carries(fam Family) bool {
	return slices.ContainsFunc(t.AllowedIPs, func(p netip.Prefix) bool { return FamilyOf(p.Addr()) == fam })
}

// markRules are the two rules of a tunnel's mark. Packets with it never see the
// main table: whoever can put a route there (a DHCP server can) could pull them
// out of the tunnel.
func (in Input) markRules(t Tunnel, fam Family) []Rule {
	r := Rule{Family: fam, Pref: uint32(PrefTunnel + 2*t.Number), Mark: in.Field.Tunnel(t.Number), Mask: uint32(in.Field)}
	lookup, lock := r, r
	lookup.Table = t.table()
	lock.Pref++
	lock.Unreachable = true
	return []Rule{lookup, lock}
}

// plan adds to s what t's link l should have.
func (t Tunnel) plan(s *State, l Iface, v6 bool) {
	v6 = v6 && t.speaksV6(l)
	dev := string(t.Path)
	s.Links = append(s.Links, Link{Index: t.Index, Name: dev, MTU: t.MTU, Up: true})
	// Strict reverse path filtering would drop what comes out of the tunnel.
	// The kernel takes the larger of this and the value for all: 2 always wins.
	s.Sysctls = append(s.Sysctls, Sysctl{Key: "net/ipv4/conf/" + dev + "/rp_filter", Value: "2"})
	if v6 {
		// A TUN gets a random link-local address otherwise.
		s.Sysctls = append(s.Sysctls, Sysctl{Key: "net/ipv6/conf/" + dev + "/addr_gen_mode", Value: "1"})
	}
	for _, a := range t.Addrs {
		if a.Addr().Is4() || v6 {
			s.Addrs = append(s.Addrs, Addr{Dev: dev, Prefix: a})
		}
	}
	seen := map[netip.Prefix]bool{}
	for _, p := range t.AllowedIPs {
		p = p.Masked()
		if seen[p] || p.Addr().Is6() && !v6 {
			continue
		}
		seen[p] = true
		r := Route{Table: t.table(), Dst: p, Dev: dev, Protocol: Protocol}
		if p.Addr().Is6() {
			r.Metric = metricV6
		}
		r.MTU = t.routeMTU(FamilyOf(p.Addr()))
		s.Routes = append(s.Routes, r)
	}
}

// leastV6 is the smallest MTU of IPv6: below it the kernel takes IPv6 off an
// interface, and fragments nothing.
const leastV6 = 1280

// speaksV6 reports whether t's link l can have IPv6.
func (t Tunnel) speaksV6(l Iface) bool { return !l.NoIPv6 && t.MTU >= leastV6 }

// routeMTU is what t's routes say of packets that would not arrive: less than
// the link's MTU, or 0. The link keeps its own, so that larger ones can be tried
// again.
func (t Tunnel) routeMTU(fam Family) int {
	n := t.Fits
	if fam == V6 {
		n = max(n, leastV6)
	}
	if t.Fits == 0 || n >= t.MTU {
		return 0
	}
	return n
}

// fallback is the tunnel of the default path, else the first.
func (in Input) fallback() Tunnel {
	for _, t := range in.Tunnels {
		if t.Path == in.Default {
			return t
		}
	}
	return in.Tunnels[0]
}

// lockTable is what LAN packets without a mark find: the fallback tunnel,
// whatever it takes, or nothing. It is not the tunnel's own table, which may
// have no default of a family: loose reverse path filters take the answers to
// LAN clients only where this look-up finds some way.
func (in Input) lockTable(f Facts) []Route {
	var routes []Route
	t := in.fallback()
	l, linked := f.Link(t.Index)
	linked = linked && t.Index != 0
	for _, fam := range in.families(f) {
		r := Route{Table: TableLock, Dst: fam.All(), Dev: string(t.Path), Protocol: Protocol}
		if fam == V6 {
			r.Metric = metricV6
		}
		if linked && (fam == V4 || t.speaksV6(l)) {
			routes = append(routes, r)
		}
		routes = append(routes, Route{Table: TableLock, Dst: fam.All(), Type: Unreachable, Metric: MetricLock, Protocol: Protocol})
	}
	return routes
}

// unmarkedRules are those for packets without a tunnel's mark.
func (in Input) unmarkedRules(fam Family, f Facts) []Rule {
	if len(in.Tunnels) == 0 {
		return nil
	}
	var rules []Rule
	fallback := in.fallback()
	direct := in.Field.Value(MarkDirect)
	if len(in.Ways) > 0 {
		// Never without the "not": WireGuard's own packets carry the direct mark,
		// and would loop.
		return []Rule{{Family: fam, Pref: PrefWays, Not: true, Mark: direct, Mask: uint32(in.Field), Table: TableWays}}
	}
	for _, lan := range in.LAN {
		// Direct packets meet the rules of others behind our band, as those of
		// this host do, and at last main.
		rules = append(rules,
			Rule{Family: fam, Pref: PrefLAN, Mark: direct, Mask: uint32(in.Field), IIF: lan, Goto: PrefBand},
			Rule{Family: fam, Pref: PrefLAN + 1, IIF: lan, Table: TableLock},
			Rule{Family: fam, Pref: PrefBand, Nop: true})
	}
	// Where main has no default, connect fails before our chain could mark the
	// packet. Never without the "not": WireGuard's own packets carry the direct
	// mark, and would loop.
	if !f.HasDefault(fam) {
		if !fallback.carries(fam) {
			if i := slices.IndexFunc(in.Tunnels, func(t Tunnel) bool { return t.carries(fam) }); i >= 0 {
				fallback = in.Tunnels[i]
			}
		}
		if fallback.carries(fam) {
			rules = append(rules, Rule{Family: fam, Pref: PrefNoMain, Not: true, Mark: direct, Mask: uint32(in.Field), Table: fallback.table()})
		}
	}
	return rules
}

// forwarding are the parameters of a gateway.
func (in Input) forwarding(f Facts) []Sysctl {
	s := []Sysctl{{Key: KeyForward4, Value: "1"}}
	if !f.IPv6 {
		return s
	}
	s = append(s, Sysctl{Key: KeyForward6, Value: "1"})
	for _, l := range f.Links {
		// 1 means: not while forwarding. The default route that a router
		// advertised would be lost at once. Our own clients are no routers: what
		// they advertise is not taken.
		client := (slices.Contains(in.LAN, l.Name) || l.Kind == "bridge") && !slices.Contains(f.Uplinks(), l.Name)
		if l.AcceptRA == 1 && !client && !l.Loopback && !l.NoIPv6 && !in.owns(l) {
			s = append(s, Sysctl{Key: "net/ipv6/conf/" + l.Name + "/accept_ra", Value: strconv.Itoa(2)})
		}
	}
	return s
}

// reversePaths makes reverse path filters take what comes for the LAN. They look
// up its answers as packets from the LAN without a mark: those go into the
// tunnel, whichever way the packet came, or nowhere while there is none. On the
// uplinks they look with the mark that our table gives such packets; strict ones
// are loosened for as long as there is no such table.
func (in Input) reversePaths(f Facts) []Sysctl {
	var s []Sysctl
	if len(in.Tunnels) == 0 {
		return nil
	}
	for _, dev := range f.Uplinks() {
		s = append(s, Sysctl{Key: "net/ipv4/conf/" + dev + "/src_valid_mark", Value: "1"})
	}
	for _, l := range f.Links {
		if l.Strict && !l.Loopback && !in.owns(l) {
			s = append(s, Sysctl{Key: "net/ipv4/conf/" + l.Name + "/rp_filter", Value: "2"})
		}
	}
	return s
}

func (in Input) owns(l Iface) bool {
	return slices.ContainsFunc(in.Tunnels, func(t Tunnel) bool { return t.Index == l.Index || string(t.Path) == l.Name })
}

// The sysctls that make this host a router.
const (
	KeyForward4 = "net/ipv4/ip_forward"
	KeyForward6 = "net/ipv6/conf/all/forwarding"
)
