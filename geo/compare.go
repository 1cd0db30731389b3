package geo

import (
	"iter"
	"net/netip"

	"go4.org/netipx"
)

// Difference is a prefix that one Table calls home and the other abroad.
type Difference struct {
	Prefix netip.Prefix
	A, B   Verdict // of its first address
}

// Compare yields the prefixes that a or b calls home and the other one abroad,
// sorted, v4 before v6, as few as neighbours of the same kind allow. What
// either does not know is no difference.
func Compare(a, b *Table) iter.Seq[Difference] {
	return func(yield func(Difference) bool) {
		_ = compare(&a.v4, &b.v4, true, a, b, yield) && compare(&a.v6, &b.v6, false, a, b, yield)
	}
}

func compare(r, s *ranges, v4 bool, a, b *Table, yield func(Difference) bool) bool {
	open, from, home := false, key{}, Unknown // home is what a says
	flush := func(to key) bool {
		if !open {
			return true
		}
		open = false
		for _, p := range netipx.IPRangeFrom(from.addr(v4), to.addr(v4)).Prefixes() {
			if !yield(Difference{p, a.Lookup(p.Addr()), b.Lookup(p.Addr())}) {
				return false
			}
		}
		return true
	}
	for i, j, pos := 0, 0, (key{}); ; {
		x, y := r.cells[i].region, s.cells[j].region
		differ := x == Home && y == Abroad || x == Abroad && y == Home
		if open && (!differ || x != home) && !flush(pos.prev()) {
			return false
		}
		if differ && !open {
			open, from, home = true, pos, x
		}
		end := r.end(i)
		if s.end(j).compare(end) < 0 {
			end = s.end(j)
		}
		if end == maxKey {
			return flush(maxKey)
		}
		if r.end(i) == end {
			i++
		}
		if s.end(j) == end {
			j++
		}
		pos = end.next()
	}
}
