package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// end is one end of a cable.
type end struct {
	ns    *Namespace
	name  string
	addrs []netip.Prefix
}

// cable joins two namespaces by a pair of virtual Ethernet links.
func cable(a, b end) error {
	l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a.name}, PeerName: b.name, PeerNamespace: netlink.NsFd(b.ns.net)}
	if err := a.ns.nl.LinkAdd(l); err != nil {
		return fmt.Errorf("adding %s in %s: %w", a.name, a.ns.Name, err)
	}
	// Addresses come last: a v6 address that is there before both ends are up
	// answers its neighbours a second late.
	for _, e := range []end{a, b} {
		if err := e.ns.SetLink(e.name, true); err != nil {
			return err
		}
	}
	for _, e := range []end{a, b} {
		if err := e.ns.up(e.name, e.addrs...); err != nil {
			return err
		}
	}
	return nil
}

// up gives a link its addresses and switches it on.
func (n *Namespace) up(name string, addrs ...netip.Prefix) error {
	l, err := n.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding %s in %s: %w", name, n.Name, err)
	}
	for _, p := range addrs {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := n.nl.AddrAdd(l, a); err != nil {
			return fmt.Errorf("adding %s to %s in %s: %w", p, name, n.Name, err)
		}
	}
	if err := n.nl.LinkSetUp(l); err != nil {
		return fmt.Errorf("bringing up %s in %s: %w", name, n.Name, err)
	}
	return nil
}

// bridge makes a bridge like a container engine's, and joins a link to it.
func (n *Namespace) bridge(name, port string, addrs ...netip.Prefix) error {
	if err := n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
		return fmt.Errorf("adding %s in %s: %w", name, n.Name, err)
	}
	b, err := n.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding %s: %w", name, err)
	}
	p, err := n.nl.LinkByName(port)
	if err != nil {
		return fmt.Errorf("finding %s: %w", port, err)
	}
	if err := n.nl.LinkSetMaster(p, b); err != nil {
		return fmt.Errorf("joining %s to %s: %w", port, name, err)
	}
	if err := n.nl.LinkSetUp(b); err != nil {
		return fmt.Errorf("bringing up %s: %w", name, err)
	}
	return n.up(name, addrs...)
}

// SetLink switches a link on or off.
func (n *Namespace) SetLink(name string, up bool) error {
	l, err := n.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding %s in %s: %w", name, n.Name, err)
	}
	if up {
		return n.nl.LinkSetUp(l)
	}
	return n.nl.LinkSetDown(l)
}

// settle waits until every Ethernet link is in use: the kernel brings them up,
// and gives them their own v6 address, a moment after it was asked to.
func (n *Namespace) settle(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		late, err := n.lateLink()
		if err != nil || late == "" {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s in %s: %w", late, n.Name, context.Cause(ctx))
		}
	}
}

// lateLink returns the name of a link that is not in use yet, or "".
func (n *Namespace) lateLink() (string, error) {
	links, err := n.nl.LinkList()
	if err != nil {
		return "", fmt.Errorf("listing links: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		if a.EncapType != "ether" || a.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := n.nl.AddrList(l, netlink.FAMILY_V6)
		if err != nil {
			return "", fmt.Errorf("listing addresses of %s: %w", a.Name, err)
		}
		own := false
		for _, ad := range addrs {
			own = own || ad.IP.IsLinkLocalUnicast()
			if ad.Flags&unix.IFA_F_TENTATIVE != 0 {
				return a.Name, nil
			}
		}
		if a.OperState != netlink.OperUp || !own && a.MasterIndex == 0 {
			return a.Name, nil
		}
	}
	return "", nil
}

// Route is a route of the main table (or of Table). Without Via the
// destination is on the link; with Dev "lo" it is this host itself, every
// address of it.
type Route struct {
	To    netip.Prefix
	Via   netip.Addr
	Dev   string
	Table int
}

// AddRoute adds a route, or replaces the one that has the same destination and
// metric.
func (n *Namespace) AddRoute(r Route) error {
	nr, err := n.route(r)
	if err != nil {
		return err
	}
	if err := n.nl.RouteReplace(nr); err != nil {
		return fmt.Errorf("adding route to %s in %s: %w", r.To, n.Name, err)
	}
	return nil
}

// DeleteRoute deletes a route that AddRoute added.
func (n *Namespace) DeleteRoute(r Route) error {
	nr, err := n.route(r)
	if err != nil {
		return err
	}
	if err := n.nl.RouteDel(nr); err != nil {
		return fmt.Errorf("deleting route to %s in %s: %w", r.To, n.Name, err)
	}
	return nil
}

func (n *Namespace) route(r Route) (*netlink.Route, error) {
	out := &netlink.Route{Dst: ipNet(r.To), Table: r.Table}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
	}
	if r.Dev != "" {
		l, err := n.nl.LinkByName(r.Dev)
		if err != nil {
			return nil, fmt.Errorf("finding %s in %s: %w", r.Dev, n.Name, err)
		}
		out.LinkIndex = l.Attrs().Index
	}
	switch {
	case r.Dev == "lo":
		out.Type, out.Scope = unix.RTN_LOCAL, netlink.SCOPE_HOST
		if r.Table == 0 {
			out.Table = unix.RT_TABLE_LOCAL
		}
	case !r.Via.IsValid() && r.To.Addr().Is4():
		out.Scope = netlink.SCOPE_LINK
	}
	return out, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// defaults adds the default routes of both families.
func (n *Namespace) defaults(v4, v6 netip.Addr) error {
	if err := n.AddRoute(Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: v4}); err != nil {
		return err
	}
	return n.AddRoute(Route{To: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: v6})
}

// own makes every address of the prefixes this host's own.
func (n *Namespace) own(ps ...netip.Prefix) error {
	for _, p := range ps {
		if err := n.AddRoute(Route{To: p, Dev: "lo"}); err != nil {
			return err
		}
	}
	return nil
}
