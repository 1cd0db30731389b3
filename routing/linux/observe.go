package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// Observe implements routing.Kernel.
func (k *Kernel) Observe(ctx context.Context, devices []int) (routing.State, routing.Facts, error) {
	o := &observation{k: k, ctx: ctx, ipv6: haveIPv6(), read: map[[2]int][]netlink.Route{}}
	for _, f := range []func() error{o.links, o.rules, o.defaults, o.ourTables, func() error { return o.ours(devices) }, o.sysctls} {
		if err := f(); err != nil {
			return routing.State{}, routing.Facts{}, err
		}
		if err := ctx.Err(); err != nil {
			return routing.State{}, routing.Facts{}, err
		}
	}
	o.state.Sort()
	o.facts.IPv6 = o.ipv6
	return o.state, o.facts, nil
}

// observation is one look at the kernel.
type observation struct {
	k     *Kernel
	ctx   context.Context
	ipv6  bool
	names map[int]string             // of links, by index
	read  map[[2]int][]netlink.Route // tables by family and number
	state routing.State
	facts routing.Facts
	saved map[string]oldValue
	stuck map[string]string
}

func (o *observation) families() []int {
	if o.ipv6 {
		return []int{netlink.FAMILY_V4, netlink.FAMILY_V6}
	}
	return []int{netlink.FAMILY_V4}
}

func family(f int) routing.Family {
	if f == netlink.FAMILY_V6 {
		return routing.V6
	}
	return routing.V4
}

// links fills in the interfaces and their addresses.
func (o *observation) links() error {
	links, err := dump(o.ctx, o.k.h.LinkList)
	if err != nil {
		return fmt.Errorf("listing links: %w", err)
	}
	addrs, err := dump(o.ctx, func() ([]netlink.Addr, error) { return o.k.h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("listing addresses: %w", err)
	}
	o.stuck = o.k.saved.stuckNow()
	if o.saved, err = o.k.saved.load(); err != nil {
		return err
	}
	o.names = make(map[int]string, len(links))
	vrfs := map[int]bool{0: true} // 0 is no master
	for _, l := range links {
		vrfs[l.Attrs().Index] = l.Type() == "vrf"
	}
	for _, l := range links {
		a := l.Attrs()
		o.names[a.Index] = a.Name
		i := routing.Iface{
			Link:     routing.Link{Index: a.Index, Name: a.Name, MTU: a.MTU, Up: a.Flags&net.FlagUp != 0},
			Kind:     l.Type(),
			Loopback: a.Flags&net.FlagLoopback != 0,
		}
		// A port of a bridge or a bond does not speak IP; there can be hundreds
		// of them.
		if vrfs[a.MasterIndex] {
			i.Strict, i.ARPIgnore = o.strict(a.Name), o.arpIgnore(a.Name)
		}
		if vrfs[a.MasterIndex] && o.ipv6 {
			i.AcceptRA, i.NoIPv6 = o.ipv6Conf(a.Name)
		}
		for _, addr := range addrs {
			if addr.LinkIndex != a.Index {
				continue
			}
			if p, ok := prefix(addr.IPNet); ok {
				i.Addrs = append(i.Addrs, p)
			}
			if p, ok := prefix(addr.Peer); ok && p.IsSingleIP() {
				o.facts.Gateways = append(o.facts.Gateways, p.Addr())
			}
		}
		slices.SortFunc(i.Addrs, func(a, b netip.Prefix) int {
			return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
		})
		o.facts.Links = append(o.facts.Links, i)
	}
	slices.SortFunc(o.facts.Links, func(a, b routing.Iface) int { return cmp.Compare(a.Index, b.Index) })
	return nil
}

// ipv6Conf returns accept_ra as it was before us, and whether IPv6 is off.
func (o *observation) ipv6Conf(name string) (acceptRA int, off bool) {
	key := "net/ipv6/conf/" + name + "/accept_ra"
	v, err := readSysctl(key)
	if old, ok := o.saved[key]; ok {
		v, err = old.Was, nil
	}
	if err == nil {
		acceptRA, _ = strconv.Atoi(v)
	}
	// No such file: the link's MTU is too small for IPv6.
	disabled, err := readSysctl("net/ipv6/conf/" + name + "/disable_ipv6")
	return acceptRA, err != nil || disabled == "1"
}

// arpIgnore returns what a link had before us.
func (o *observation) arpIgnore(name string) int {
	key := "net/ipv4/conf/" + name + "/arp_ignore"
	v, err := readSysctl(key)
	if old, ok := o.saved[key]; ok {
		v, err = old.Was, nil
	}
	n := 0
	if err == nil {
		n, _ = strconv.Atoi(v)
	}
	return n
}

// strict reports whether the reverse path filter of a link was strict before
// us. The kernel takes the larger of the link's value and the one for all.
func (o *observation) strict(name string) bool {
	const strict = "1"
	key := "net/ipv4/conf/" + name + "/rp_filter"
	all, err := readSysctl("net/ipv4/conf/all/rp_filter")
	if err != nil {
		return false
	}
	own, err := readSysctl(key)
	if old, ok := o.saved[key]; ok {
		own, err = old.Was, nil
	}
	return err == nil && max(own, all) == strict
}

// defaults fills in the default routes and the gateways: of main, and of the
// tables that every packet without a mark meets, where mwan3 or systemd-networkd
// may have them.
func (o *observation) defaults() error {
	for _, f := range o.families() {
		var routes []netlink.Route
		for _, table := range o.met(family(f)) {
			found, err := o.table(f, table)
			if err != nil {
				return err
			}
			routes = append(routes, found...)
		}
		for _, r := range routes {
			hops := r.MultiPath
			if len(hops) == 0 {
				hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via}}
			}
			for _, h := range hops {
				if a := nextHop(h.Gw, h.Via); a.IsValid() {
					o.facts.Gateways = append(o.facts.Gateways, a)
				}
				if p, ok := prefix(r.Dst); ok && p.Bits() == 0 && r.Type == unix.RTN_UNICAST && o.names[h.LinkIndex] != "" {
					o.facts.Defaults = append(o.facts.Defaults, routing.Default{
						Family: family(f), Dev: o.names[h.LinkIndex], Via: nextHop(h.Gw, h.Via), Metric: uint32(r.Priority),
					})
				}
			}
		}
	}
	slices.SortFunc(o.facts.Gateways, netip.Addr.Compare)
	o.facts.Gateways = slices.Compact(o.facts.Gateways)
	slices.SortFunc(o.facts.Defaults, func(a, b routing.Default) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Metric, b.Metric), strings.Compare(a.Dev, b.Dev), a.Via.Compare(b.Via))
	})
	o.facts.Defaults = slices.Compact(o.facts.Defaults)
	return nil
}

// nextHop returns where a hop leads, whichever way it is said.
func nextHop(gw net.IP, via netlink.Destination) netip.Addr {
	if a, ok := netip.AddrFromSlice(gw); ok {
		return a.Unmap()
	}
	if v, ok := via.(*netlink.Via); ok {
		if a, ok := netip.AddrFromSlice(v.Addr); ok {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// met returns the tables, other than ours, that every packet of a family without
// a mark is looked up in, main always among them.
func (o *observation) met(fam routing.Family) []int {
	tables := []int{routing.TableMain}
	for _, r := range o.facts.Rules {
		ours := r.Table >= routing.FirstTable && r.Table <= routing.TableWays
		if r.Family == fam && r.MeetsUnmarked() && !ours && r.Table != routing.TableLocal && !slices.Contains(tables, int(r.Table)) {
			tables = append(tables, int(r.Table))
		}
	}
	return tables
}

// table dumps one routing table, once.
func (o *observation) table(fam, table int) ([]netlink.Route, error) {
	at := [2]int{fam, table}
	if routes, ok := o.read[at]; ok {
		return routes, nil
	}
	routes, err := o.dumpTable(fam, table)
	if err == nil {
		o.read[at] = routes
	}
	return routes, err
}

func (o *observation) dumpTable(fam, table int) ([]netlink.Route, error) {
	routes, err := dump(o.ctx, func() ([]netlink.Route, error) {
		return o.k.strict.RouteListFiltered(fam, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	})
	if errors.Is(err, unix.ENOENT) { // no such table
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing %s routes of table %d: %w", family(fam), table, err)
	}
	return routes, nil
}

// ourTables fills in the routes of our tables, whoever put them there.
func (o *observation) ourTables() error {
	for _, f := range o.families() {
		for table := routing.FirstTable; table <= routing.TableWays; table++ {
			routes, err := o.table(f, table)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if t, ok := o.route(r); ok {
					o.state.Routes = append(o.state.Routes, t)
				}
			}
		}
	}
	return nil
}

func (o *observation) route(r netlink.Route) (routing.Route, bool) {
	dst, ok := prefix(r.Dst)
	if !ok {
		return routing.Route{}, false
	}
	t := routing.Route{
		Table:    uint32(r.Table),
		Dst:      dst,
		Type:     routeType(r.Type),
		Metric:   uint32(r.Priority),
		Protocol: uint8(r.Protocol),
	}
	if t.Type == routing.Unicast { // an unreachable v6 route shows lo
		t.Dev = o.names[r.LinkIndex]
		t.Via = nextHop(r.Gw, r.Via)
		t.MTU = r.MTU
	}
	return t, true
}

var routeTypes = map[int]routing.RouteType{
	unix.RTN_UNICAST:     routing.Unicast,
	unix.RTN_UNREACHABLE: routing.Unreachable,
	unix.RTN_LOCAL:       "local",
	unix.RTN_BROADCAST:   "broadcast",
	unix.RTN_ANYCAST:     "anycast",
	unix.RTN_MULTICAST:   "multicast",
	unix.RTN_BLACKHOLE:   "blackhole",
	unix.RTN_PROHIBIT:    "prohibit",
	unix.RTN_THROW:       "throw",
}

func routeType(t int) routing.RouteType {
	if s, ok := routeTypes[t]; ok {
		return s
	}
	return routing.RouteType(fmt.Sprintf("type%d", t))
}

// ours fills in the links of our tunnels and their addresses: those in devices,
// and those that our own routes use. The ways by destination use the uplinks;
// another route of ours never does; if one does, it is not we who put it there.
func (o *observation) ours(devices []int) error {
	uplinks := o.facts.Uplinks()
	for _, l := range o.facts.Links {
		used := slices.ContainsFunc(o.state.Routes, func(r routing.Route) bool {
			return r.Dev == l.Name && r.Protocol == routing.Protocol && r.Table != routing.TableWays && !slices.Contains(uplinks, l.Name)
		})
		if !used && !slices.Contains(devices, l.Index) {
			continue
		}
		o.state.Links = append(o.state.Links, l.Link)
		for _, p := range l.Addrs {
			o.state.Addrs = append(o.state.Addrs, routing.Addr{Dev: l.Name, Prefix: p})
		}
	}
	return nil
}

func (o *observation) sysctls() error {
	for key, want := range o.stuck {
		now, err := readSysctl(key)
		if gone(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading sysctl %s: %w", key, err)
		}
		// Nothing is left to be done about it here.
		o.state.Sysctls = append(o.state.Sysctls, routing.Sysctl{Key: key, Value: want, Was: now})
		if now != want {
			o.facts.Stuck = append(o.facts.Stuck, routing.Sysctl{Key: key, Value: want, Was: now})
		}
	}
	for key, old := range o.saved {
		if _, stuck := o.stuck[key]; stuck {
			continue
		}
		v, err := readSysctl(key)
		if err != nil && !gone(err) {
			return fmt.Errorf("reading sysctl %s: %w", key, err)
		}
		o.state.Sysctls = append(o.state.Sysctls, routing.Sysctl{Key: key, Value: v, Was: old.Was})
	}
	return nil
}

// prefix converts n, which may be nil.
func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ones, bits := n.Mask.Size()
	if a = a.Unmap(); bits != a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones), true
}
