package routing

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// PeerInput is what PlanPeer needs beside the Facts: one WireGuard link whose
// far ends are the clients of this host.
type PeerInput struct {
	Name   string
	Index  int            // of the link; 0 before it is there
	Addrs  []netip.Prefix // of the link, with their lengths
	Routes []netip.Prefix // what is behind it
	Table  uint32         // of Routes; 0: none are wanted
	MTU    int            // bytes
	LAN    []string       // the interfaces whose networks and the clients reach each other
}

// PlanPeer says what should be in a kernel that shows f: the link, its
// addresses, routes that these do not bring by themselves, and forwarding of the
// families that there are. It is pure.
func PlanPeer(in PeerInput, f Facts) State {
	var s State
	l, linked := f.Link(in.Index)
	v6 := f.IPv6 && in.MTU >= leastMTUv6 && !l.NoIPv6
	carries := func(fam Family) bool {
		has := func(p netip.Prefix) bool { return FamilyOf(p.Addr()) == fam }
		return (fam == V4 || v6) && (slices.ContainsFunc(in.Addrs, has) || slices.ContainsFunc(in.Routes, has))
	}
	if linked && in.Index != 0 {
		s.Links = []Link{{Index: in.Index, Name: in.Name, MTU: in.MTU, Up: true}}
		if carries(V6) {
			s.Sysctls = append(s.Sysctls, Sysctl{Key: "net/ipv6/conf/" + in.Name + "/addr_gen_mode", Value: "1"})
		}
		for _, a := range in.Addrs {
			if carries(FamilyOf(a.Addr())) {
				s.Addrs = append(s.Addrs, Addr{Dev: in.Name, Prefix: a})
			}
		}
		s.Routes = in.peerRoutes(carries)
	}
	as := Input{LAN: in.LAN, Tunnels: []Tunnel{{Path: Path(in.Name), Index: in.Index}}}
	for _, y := range as.forwarding(f) {
		if y.Key == KeyForward4 && carries(V4) || y.Key != KeyForward4 && carries(V6) {
			s.Sysctls = append(s.Sysctls, y)
		}
	}
	if carries(V6) {
		for _, p := range in.Proxies(f) {
			if p.Addr.Is6() {
				s.Sysctls = append(s.Sysctls, Sysctl{Key: "net/ipv6/conf/" + p.Dev + "/proxy_ndp", Value: "1"})
			}
		}
	}
	s.Sort()
	s.Addrs, s.Sysctls = slices.Compact(s.Addrs), slices.Compact(s.Sysctls)
	return s
}

// leastMTUv6 is below which the kernel takes IPv6 off an interface (RFC 8200,
// section 5).
const leastMTUv6 = 1280

// peerRoutes are the routes to what is behind the link; a network of its own
// addresses is routed by them.
func (in PeerInput) peerRoutes(carries func(Family) bool) []Route {
	var routes []Route
	if in.Table == 0 {
		return nil
	}
	for _, p := range in.Routes {
		p = p.Masked()
		if !carries(FamilyOf(p.Addr())) || in.Table == TableMain && slices.ContainsFunc(in.Addrs, func(a netip.Prefix) bool { return within(p, a) }) {
			continue
		}
		r := Route{Table: in.Table, Dst: p, Dev: in.Name, Protocol: Protocol}
		if p.Addr().Is6() {
			r.Metric = metricV6
		}
		routes = append(routes, r)
	}
	return routes
}

// within reports whether all of p is in the network of n.
func within(p, n netip.Prefix) bool {
	return p.Bits() >= n.Bits() && n.Masked().Contains(p.Addr())
}

// A Proxy is an address for which this host answers on the link of Dev: what is
// sent there comes to it, and it knows the way on.
type Proxy struct {
	Dev  string
	Addr netip.Addr
}

func (p Proxy) command(verb string) string {
	return fmt.Sprintf("%s neigh %s proxy %s dev %s", FamilyOf(p.Addr).ip(), verb, p.Addr, p.Dev)
}

// MostProxies is how many addresses of one prefix are answered for.
const MostProxies = 1 << proxyBits

const proxyBits = 8

// Proxies returns the addresses behind the link that are in the network of an
// interface of LAN, sorted: that network's hosts take them for neighbours. Of a
// prefix with more than MostProxies addresses there are none.
func (in PeerInput) Proxies(f Facts) []Proxy {
	var all []Proxy
	for _, l := range f.Links {
		if !slices.Contains(in.LAN, l.Name) {
			continue
		}
		for _, p := range in.Routes {
			if p.Addr().BitLen()-p.Bits() > proxyBits || !slices.ContainsFunc(l.Addrs, func(n netip.Prefix) bool { return within(p, n) }) {
				continue
			}
			for a := p.Masked().Addr(); a.IsValid() && p.Contains(a); a = a.Next() {
				all = append(all, Proxy{l.Name, a})
			}
		}
	}
	slices.SortFunc(all, func(a, b Proxy) int {
		return cmp.Or(cmp.Compare(a.Dev, b.Dev), a.Addr.Compare(b.Addr))
	})
	return slices.Compact(all)
}

// The steps about proxies.
type (
	// AddProxy makes the host answer for an address.
	AddProxy struct{ Proxy Proxy }
	// DelProxy ends that.
	DelProxy struct{ Proxy Proxy }
)

func (s AddProxy) String() string { return s.Proxy.command("add") }
func (s DelProxy) String() string { return s.Proxy.command("del") }

// DiffProxies returns the steps from have to want.
func DiffProxies(want, have []Proxy) []Step {
	added, gone := difference(want, have)
	var steps []Step
	each(&steps, gone, nil, func(p Proxy) Step { return DelProxy{p} })
	each(&steps, added, nil, func(p Proxy) Step { return AddProxy{p} })
	return steps
}
