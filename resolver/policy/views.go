package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"smartdns/routing"
)

// Clients says for whom a line holds: clients with one of the addresses, or
// one of the MACs. The zero value is everybody.
type Clients struct {
	Prefixes []netip.Prefix
	Zoned    []netip.Addr // link-local ones, each behind the link that is its zone
	MACs     []routing.MAC
	Except   []netip.Prefix // parts of Prefixes for which it does not hold
}

// Everybody reports whether the line holds for all clients.
func (c Clients) Everybody() bool { return len(c.Prefixes)+len(c.Zoned)+len(c.MACs) == 0 }

// Client is who asks, and where. v4 addresses are never v4-mapped; link-local
// v6 ones have the name of their link as their zone.
type Client struct {
	Listener netip.AddrPort // the zero value for our own questions
	Addr     netip.Addr     // invalid for our own questions
	MAC      routing.MAC    // zero: not known
}

// View is what tells a client's answers from those of others.
type View struct {
	ID uint16 // 0: no line and no listener treats anybody apart
	// Side is asked whatever the lines say, unless they answer themselves; "":
	// the lines decide.
	Side  string
	Lines Lines // that hold for it, of those that do not hold for everybody
}

// Lines is a set of the lines that do not hold for everybody, by their order.
type Lines uint64

// MaxLimited is how many lines may be limited to clients.
const MaxLimited = 64

// maxViews keeps two policies apart, one of which replaces the other.
const maxViews = 1 << 15

// Views maps clients to their views. It is immutable, and safe for concurrent
// use.
type Views struct {
	sides   []string // of listeners; the first is ""
	byAddr  []Lines  // distinct sets of lines that addresses have; the first is empty
	byMAC   []Lines
	base    uint16
	at      map[netip.AddrPort]uint16 // index in sides
	clients bart.Table[uint16]        // index in byAddr
	zoned   map[netip.Addr]uint16     // index in byAddr; of addresses with a zone, which come first
	macs    map[routing.MAC]uint16    // index in byMAC
}

// NewViews compiles the clients of the lines that are not for everybody, in the
// order of the file, and the sides of listeners. No ID but 0 is below first, which tells the views
// of this policy, also that of everybody else, from those of the one before; it must be at least 1. Next is
// what the policy after it may begin with.
func NewViews(lines []Clients, listeners map[netip.AddrPort]string, first uint16) (v *Views, next uint16, err error) {
	v = &Views{sides: []string{""}, byAddr: []Lines{0}, byMAC: []Lines{0}, at: map[netip.AddrPort]uint16{}, zoned: map[netip.Addr]uint16{}, macs: map[routing.MAC]uint16{}}
	for l, side := range listeners {
		v.at[l] = index(&v.sides, side)
	}
	excepts := map[netip.Prefix]Lines{}
	prefixes, zoned, macs := map[netip.Prefix]Lines{}, map[netip.Addr]Lines{}, map[routing.MAC]Lines{}
	if len(lines) > MaxLimited {
		return nil, 0, fmt.Errorf("more than %d lines are limited to clients", MaxLimited)
	}
	for i, clients := range lines {
		for _, p := range clients.Prefixes {
			prefixes[p.Masked()] |= 1 << i
		}
		for _, p := range clients.Except {
			excepts[p.Masked()] |= 1 << i
		}
		for _, a := range clients.Zoned {
			zoned[a] |= 1 << i
		}
		for _, m := range clients.MACs {
			macs[m] |= 1 << i
		}
	}
	around := func(a netip.Addr, bits int) (all Lines) {
		for p, lines := range prefixes {
			if p.Bits() <= bits && p.Contains(a) {
				all |= lines
			}
		}
		for p, lines := range excepts {
			if p.Bits() <= bits && p.Contains(a) {
				all &^= lines
			}
		}
		return all
	}
	for p := range excepts {
		v.clients.Insert(p, index(&v.byAddr, around(p.Addr(), p.Bits())))
	}
	for p := range prefixes { // the longest prefix stands for those around it
		v.clients.Insert(p, index(&v.byAddr, around(p.Addr(), p.Bits())))
	}
	for a, lines := range zoned {
		v.zoned[a] = index(&v.byAddr, lines|around(a.WithZone(""), a.BitLen()))
	}
	for m, lines := range macs {
		v.macs[m] = index(&v.byMAC, lines)
	}
	size := len(v.sides) * len(v.byAddr) * len(v.byMAC)
	if size > maxViews {
		return nil, 0, fmt.Errorf("the clients of the lines fall into %d classes, more than %d: name fewer", size, maxViews)
	}
	if int(first)+size > 1<<16 {
		first = 1
	}
	v.base = first
	return v, uint16(max(1, (int(first)+size)&0xffff)), nil
}

// index returns the index of x among all, where it is put if it is not there.
func index[T comparable](all *[]T, x T) uint16 {
	i := slices.Index(*all, x)
	if i < 0 {
		i = len(*all)
		*all = append(*all, x)
	}
	return uint16(i)
}

// addr returns the index in byAddr of an address.
func (v *Views) addr(a netip.Addr) uint16 {
	if a.Zone() != "" {
		if i, ok := v.zoned[a]; ok {
			return i
		}
		a = a.WithZone("")
	}
	i, _ := v.clients.Lookup(a)
	return i
}

// ByMAC reports whether the MAC of a client can matter.
func (v *Views) ByMAC() bool { return v != nil && len(v.macs) > 0 }

// Of returns the view of a client. It does not allocate.
func (v *Views) Of(c Client) View {
	if v == nil {
		return View{}
	}
	side, addr, mac := v.at[c.Listener], uint16(0), uint16(0)
	if c.Addr.IsValid() {
		addr = v.addr(c.Addr)
	}
	if c.MAC != (routing.MAC{}) {
		mac = v.macs[c.MAC]
	}
	if len(v.sides)*len(v.byAddr)*len(v.byMAC) == 1 {
		return View{}
	}
	n := (int(side)*len(v.byAddr)+int(addr))*len(v.byMAC) + int(mac)
	return View{ID: v.base + uint16(n), Side: v.sides[side], Lines: v.byAddr[addr] | v.byMAC[mac]}
}
