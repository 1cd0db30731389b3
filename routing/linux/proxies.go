package linux

import (
	"context"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// proxy calls f with the entry that makes the host answer for an address.
func (k *Kernel) proxy(p routing.Proxy, f func(*netlink.Neigh) error) error {
	index, err := k.indexOf(p.Dev)
	if err != nil {
		return err
	}
	family := unix.AF_INET
	if p.Addr.Is6() {
		family = unix.AF_INET6
	}
	return f(&netlink.Neigh{LinkIndex: index, Family: family, Flags: unix.NTF_PROXY, IP: p.Addr.AsSlice()})
}

// Table returns the routes of one routing table, whoever put them there, v4
// first.
func (k *Kernel) Table(ctx context.Context, table uint32) ([]routing.Route, error) {
	o := &observation{k: k, ctx: ctx, ipv6: haveIPv6(), read: map[[2]int][]netlink.Route{}}
	if err := o.links(); err != nil {
		return nil, err
	}
	var all []routing.Route
	for _, f := range o.families() {
		routes, err := o.table(f, int(table))
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if t, ok := o.route(r); ok {
				all = append(all, t)
			}
		}
	}
	return all, nil
}

// Proxies returns the addresses of a link for which the host answers.
func (k *Kernel) Proxies(dev string) ([]netip.Addr, error) {
	index, err := k.indexOf(dev)
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		found, err := k.h.NeighProxyList(index, f)
		if err != nil {
			return nil, err
		}
		for _, n := range found {
			if a, ok := netip.AddrFromSlice(n.IP); ok && n.LinkIndex == index {
				all = append(all, a.Unmap())
			}
		}
	}
	return all, nil
}
