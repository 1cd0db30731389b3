package daemon

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"smartdns/resolver/upstream"
)

// foundServers is addresses of upstream servers by name that the never-mark
// list does not have yet.
type foundServers struct{ addrs atomic.Pointer[[]netip.Addr] }

func (f *foundServers) contains(a netip.Addr) bool {
	all := f.addrs.Load()
	return all != nil && slices.Contains(*all, a.Unmap())
}

func (f *foundServers) add(found []netip.AddrPort) {
	for {
		old := f.addrs.Load()
		var all []netip.Addr
		if old != nil {
			all = slices.Clone(*old)
		}
		for _, a := range found {
			all = append(all, a.Addr().Unmap())
		}
		if f.addrs.CompareAndSwap(old, &all) {
			return
		}
	}
}

// found learns where a server by name is, before the first packet goes there:
// no answer may put such an address into a set.
func (e *engine) found(addrs []netip.AddrPort) {
	e.servers.add(addrs)
	e.poke()
}

// neverNow makes the never-mark list anew.
func (e *engine) neverNow(l live, endpoints []netip.Addr) *neverMark {
	n := e.parts.never(l.facts, endpoints)
	if e.policy == nil {
		return n
	}
	for _, s := range e.policy.Sides {
		for _, server := range upstream.Health(s.Exchanger) {
			for _, a := range server.Addrs {
				n.addAddr(a, anUpstream)
			}
		}
	}
	return n
}

// neverReason says why a must not be marked, "" when it may be.
func (e *engine) neverReason(a netip.Addr) string {
	if e.servers.contains(a) {
		return anUpstream
	}
	return e.never.Load().Reason(a)
}
