package nft

import (
	"iter"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// static returns the sets of both families.
func static(name string, prefixes []netip.Prefix) []set {
	s4, s6 := set{name: name + "_4", kind: addresses(v4())}, set{name: name + "_6", kind: addresses(v6())}
	all := merged(prefixes)
	n := 0
	for n < len(all) && all[n].From().Is4() {
		n++
	}
	s4.ranges, s6.ranges = ends(all[:n]), ends(all[n:])
	return []set{s4, s6}
}

// merged returns the addresses of prefixes in their order, IPv4 first. The kernel
// merges nothing and refuses overlaps, so the ranges neither overlap nor touch.
// A prefix that is not valid has no address.
func merged(prefixes []netip.Prefix) []netipx.IPRange {
	all := make([]netipx.IPRange, 0, len(prefixes))
	for _, p := range prefixes {
		if r := netipx.RangeOfPrefix(p); r.IsValid() {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b netipx.IPRange) int { return a.From().Compare(b.From()) })
	out := all[:0]
	for _, r := range all {
		if n := len(out) - 1; n >= 0 && r.From().BitLen() == out[n].To().BitLen() &&
			(r.From().Compare(out[n].To()) <= 0 || r.From() == out[n].To().Next()) {
			if out[n].To().Less(r.To()) {
				out[n] = netipx.IPRangeFrom(out[n].From(), r.To())
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// ends returns where ranges begin and end, which the kernel has as elements of
// their own.
func ends(all []netipx.IPRange) []element {
	if len(all) == 0 {
		return nil
	}
	out := make([]element, 0, 2*len(all))
	for _, r := range all {
		out = append(out, element{key: keyOf(r.From())})
		if next := r.To().Next(); next.IsValid() { // a range up to the last address has no end
			out = append(out, element{key: keyOf(next), end: true})
		}
	}
	return out
}

// prefixes returns the ranges of a static set.
func (s set) prefixes() iter.Seq[netipx.IPRange] {
	return func(yield func(netipx.IPRange) bool) {
		addr := func(e element) netip.Addr {
			a, _ := netip.AddrFromSlice(e.key[:s.kind.family.size])
			return a
		}
		for i := 0; i < len(s.ranges); i += 2 {
			from := addr(s.ranges[i])
			to := netipx.PrefixLastIP(netip.PrefixFrom(from, 0))
			if i+1 < len(s.ranges) {
				to = addr(s.ranges[i+1]).Prev()
			}
			if !yield(netipx.IPRangeFrom(from, to)) {
				return
			}
		}
	}
}

// A stock keeps the long sets of a Table's last ruleset for the next one, whose
// prefixes are mostly the very same: making 10,000 anew takes milliseconds. The
// zero stock keeps none.
type stock struct{ last, next map[string]made }

// made is what static returned for prefixes.
type made struct {
	of   []netip.Prefix
	sets []set
}

// static is the function of that name. Nobody changes a Ruleset after it was
// made, so the same slice holds the same prefixes.
func (s stock) static(name string, prefixes []netip.Prefix) []set {
	m, ok := s.last[name]
	if !ok || len(m.of) != len(prefixes) || len(prefixes) > 0 && &m.of[0] != &prefixes[0] {
		m = made{prefixes, static(name, prefixes)}
	}
	if s.next != nil {
		s.next[name] = m
	}
	return m.sets
}
