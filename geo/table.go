package geo

import (
	"net/netip"
	"slices"
	"sync/atomic"
)

// Table tells regions of addresses. It never changes, and may be used by many
// goroutines at once. A Builder makes one.
type Table struct {
	v4, v6  ranges
	sources []string // the List of verdicts, by cell.source
}

// Lookup says what a is. It does not allocate.
//
// Special addresses come first, as Special says: their List is "private"
// (Region Private) or "bogon" (Region Unknown). Then the sources decide in the
// order in which they were added; the first that knows a wins, and within one
// the longest prefix, and of equal ones the earliest line. Where no source
// knows a, List is "" and Region is Abroad when one of the sources is a list of
// all that is at home, else Unknown.
//
// An address that carries a v4 address (v4-mapped, NAT64's 64:ff9b::/96, 6to4's
// 2002::/16) gets the verdict of that one, whose Prefix is one of v4. Zones are
// ignored. The verdict of the zero Addr is the zero Verdict.
func (t *Table) Lookup(a netip.Addr) (v Verdict) {
	if !a.IsValid() {
		return v
	}
	r, k := &t.v6, keyOf(a)
	if a.Is4() {
		r = &t.v4
	} else if v4, ok := k.inner(); ok {
		r, k = &t.v4, v4
		a = k.addr(true)
	}
	i := r.find(k)
	c := r.cells[i]
	v.Region, v.List, v.Line = c.region, t.sources[c.source], int(c.line)
	switch c.bits {
	case noPrefix:
	case wide:
		v.Prefix, _ = a.Prefix(r.around(i, k))
	default:
		v.Prefix, _ = a.Prefix(int(c.bits))
	}
	return v
}

// Home returns Prefixes(Home).
func (t *Table) Home() (v4, v6 []netip.Prefix) { return t.Prefixes(Home) }

// Prefixes returns the fewest prefixes that hold exactly the addresses of which
// Lookup says region, sorted. v6 has those that carry v4 addresses too, except
// for the v4-mapped ones, which are on no wire.
func (t *Table) Prefixes(region Region) (v4, v6 []netip.Prefix) {
	v4 = t.v4.prefixes(region, true)
	own := slices.DeleteFunc(t.v6.prefixes(region, false), func(p netip.Prefix) bool {
		return sixToFour.Overlaps(p) || nat64.Overlaps(p)
	})
	// All three are sorted, and NAT64's and 6to4's are each in one place.
	v6 = make([]netip.Prefix, 0, len(own)+2*len(v4))
	for _, carried := range []struct {
		by netip.Prefix
		of func(netip.Prefix) netip.Prefix
	}{{nat64, viaNAT64}, {sixToFour, via6to4}} {
		before, _ := slices.BinarySearchFunc(own, carried.by, netip.Prefix.Compare)
		v6, own = append(v6, own[:before]...), own[before:]
		for _, p := range v4 {
			v6 = append(v6, carried.of(p))
		}
	}
	return v4, append(v6, own...)
}

// Has reports whether Lookup says region of any address.
func (t *Table) Has(region Region) bool {
	in := func(c cell) bool { return c.region == region }
	return slices.ContainsFunc(t.v4.cells, in) || slices.ContainsFunc(t.v6.cells, in)
}

// prefixes returns the fewest prefixes that hold the keys of region, sorted.
func (r *ranges) prefixes(region Region, v4 bool) []netip.Prefix {
	n := 0
	for _, c := range r.cells {
		if c.region == region {
			n++
		}
	}
	out := make([]netip.Prefix, 0, n+n/8)
	for i := 0; i < len(r.cells); i++ {
		if r.cells[i].region != region {
			continue
		}
		from := r.start(i)
		for i+1 < len(r.cells) && r.cells[i+1].region == region {
			i++
		}
		out = appendPrefixes(out, from, r.end(i), v4)
	}
	return out
}

// appendPrefixes appends the fewest prefixes that hold the keys of a range.
func appendPrefixes(out []netip.Prefix, from, to key, v4 bool) []netip.Prefix {
	for {
		n := 128 - from.zeros()
		for from.last(n).compare(to) > 0 {
			n++
		}
		out = append(out, netip.PrefixFrom(from.addr(v4), n))
		last := from.last(n)
		if last == to {
			return out
		}
		from = last.next()
	}
}

// Merge returns the fewest prefixes that hold exactly the addresses of
// prefixes, sorted, v4 before v6. Invalid prefixes hold none.
func Merge(prefixes []netip.Prefix) []netip.Prefix {
	var b Builder
	for _, p := range prefixes {
		if p.IsValid() {
			b.add(p, cell{region: Home}, 0)
		}
	}
	gap := cell{region: Unknown}
	r4, r6 := flatten(b.v4, nil, gap), flatten(b.v6, nil, gap)
	return append(r4.prefixes(Home, true), r6.prefixes(Home, false)...)
}

// Handle holds the Table in use. All methods may be called at any time, by
// many goroutines at once.
type Handle struct{ table atomic.Pointer[Table] }

// NewHandle returns a Handle that holds t.
func NewHandle(t *Table) *Handle {
	h := new(Handle)
	h.table.Store(t)
	return h
}

// Classify looks a up in the Table in use.
func (h *Handle) Classify(a netip.Addr) Verdict { return h.table.Load().Lookup(a) }

// Table returns the Table in use.
func (h *Handle) Table() *Table { return h.table.Load() }

// Swap puts t to use and returns the Table that was.
func (h *Handle) Swap(t *Table) (old *Table) { return h.table.Swap(t) }
