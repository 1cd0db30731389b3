package geo

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"sort"
)

// A key is an address of either family, its most significant bit on the left:
// a v4 address fills the upper 32 of the 128 bits. Prefix lengths count from
// the left in both, so that one code serves both.
type key struct{ hi, lo uint64 }

func (k key) compare(o key) int {
	if k.hi != o.hi {
		return cmp.Compare(k.hi, o.hi)
	}
	return cmp.Compare(k.lo, o.lo)
}

func (k key) next() key {
	lo, carry := bits.Add64(k.lo, 1, 0)
	return key{k.hi + carry, lo}
}

func (k key) prev() key {
	lo, borrow := bits.Sub64(k.lo, 1, 0)
	return key{k.hi - borrow, lo}
}

// common returns how many leading bits k and o share.
func (k key) common(o key) int {
	if x := k.hi ^ o.hi; x != 0 {
		return bits.LeadingZeros64(x)
	}
	return 64 + bits.LeadingZeros64(k.lo^o.lo)
}

// zeros returns how many bits on the right of k are zero.
func (k key) zeros() int {
	if k.lo == 0 {
		return 64 + bits.TrailingZeros64(k.hi)
	}
	return bits.TrailingZeros64(k.lo)
}

var maxKey = key{1<<64 - 1, 1<<64 - 1}

func keyOf(a netip.Addr) key {
	if a.Is4() {
		b := a.As4()
		return key{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32}
	}
	b := a.As16()
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (k key) addr(v4 bool) netip.Addr {
	if v4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(k.hi>>32))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	return netip.AddrFrom16(b)
}

// last returns the last key of the prefix of n bits that k is the first of.
func (k key) last(n int) key {
	if n < 64 {
		return key{k.hi | (1<<(64-n) - 1), maxKey.lo}
	}
	return key{k.hi, k.lo | (1<<(128-n) - 1)}
}

// A cell is what a table knows about the addresses of one range.
type cell struct {
	line   uint32
	source uint16 // index into Table.sources
	bits   uint8  // length of the prefix that says so, or one of the values below
	region Region
}

const (
	wide     = 254 // the source says the same of the whole range
	noPrefix = 255 // no source says anything
)

// An entry is a range of which one source says something. Of two entries that
// hold an address, the one of the lower layer decides, then the one with the
// longer prefix, then the earlier line.
type entry struct {
	from, to key
	layer    uint16
	cell     cell
}

func (e entry) priority(o entry) int {
	return cmp.Or(cmp.Compare(e.layer, o.layer), cmp.Compare(o.cell.bits, e.cell.bits), cmp.Compare(e.cell.line, o.cell.line))
}

// ranges maps every key to a cell: cells[i] holds from (hi[i], lo[i]) to just
// before the next start.
//
// A search has two steps before it compares starts: the first bits of a key
// choose a bucket, and as many of the next as the bucket has starts, and one
// more, choose a slot of the index. Allocations lie close together, nearly all
// v6 ones of China in one bucket: one level of even slots would not tell them
// apart.
type ranges struct {
	shift  uint8 // 64 less the bits that choose the bucket
	root   []bucket
	index  []uint32 // for each slot the range that its first key is in; one more at the end
	hi, lo []uint64
	cells  []cell
}

type bucket struct {
	slot  uint32 // its first in the index
	shift uint8  // 64 less the bits that choose the slot
}

const (
	maxRootBits = 12
	maxSlotBits = 16
)

// order is that in which entries are flattened.
func (e entry) order(o entry) int {
	if e.from != o.from {
		return e.from.compare(o.from)
	}
	return e.priority(o)
}

// A queue gives the entries of two sorted slices in their order.
type queue struct{ a, b []entry }

// at takes the next entry, if it begins at pos. Where it does not, next is where
// it does, and there is none when more is false.
func (q *queue) at(pos key) (e entry, ok bool, next key, more bool) {
	from := &q.a
	if len(q.a) == 0 || len(q.b) > 0 && q.b[0].order(q.a[0]) < 0 {
		from = &q.b
	}
	if len(*from) == 0 {
		return e, false, next, false
	}
	if e = (*from)[0]; e.from != pos {
		return e, false, e.from, true
	}
	*from = (*from)[1:]
	return e, true, next, true
}

// flatten cuts overlapping entries into ranges that do not overlap. Where
// there is no entry, the cell is gap. It sorts entries and special, each of which
// is mostly in order already.
func flatten(entries, special []entry, gap cell) ranges {
	slices.SortFunc(entries, entry.order)
	slices.SortFunc(special, entry.order)
	q := queue{entries, special}
	room := len(entries) + len(special) + 1
	r := ranges{hi: make([]uint64, 0, room), lo: make([]uint64, 0, room), cells: make([]cell, 0, room)}
	var active []entry
	for pos := (key{}); ; {
		e, ok, next, more := q.at(pos)
		for ok {
			active = activate(active, e)
			e, ok, next, more = q.at(pos)
		}
		over := 0
		for over < len(active) && active[over].to.compare(pos) < 0 {
			over++
		}
		active = slices.Delete(active, 0, over)
		end, c := maxKey, gap
		if more {
			end = next.prev()
		}
		if len(active) > 0 {
			c = active[0].cell
			if active[0].to.compare(end) < 0 {
				end = active[0].to
			}
		}
		r.add(pos, c)
		if end == maxKey {
			break
		}
		pos = end.next()
	}
	r.buildIndex()
	return r
}

// activate adds e to the entries that hold the current key, which are sorted
// by priority. Only those that will show stay: each reaches further than all
// of a higher priority.
func activate(active []entry, e entry) []entry {
	i, _ := slices.BinarySearchFunc(active, e, entry.priority)
	if i > 0 && active[i-1].to.compare(e.to) >= 0 {
		return active
	}
	j := i
	for j < len(active) && active[j].to.compare(e.to) <= 0 {
		j++
	}
	return slices.Replace(active, i, j, e)
}

func (r *ranges) add(from key, c cell) {
	if n := len(r.cells); n > 0 && r.cells[n-1] == c {
		return
	}
	r.hi = append(r.hi, from.hi)
	r.lo = append(r.lo, from.lo)
	r.cells = append(r.cells, c)
}

func (r *ranges) buildIndex() {
	r.hi, r.lo, r.cells = slices.Clip(r.hi), slices.Clip(r.lo), slices.Clip(r.cells)
	rootBits := min(bits.Len(uint(len(r.cells))), maxRootBits)
	r.shift = uint8(64 - rootBits)
	starts := make([]uint, 1<<rootBits)
	for _, hi := range r.hi {
		starts[hi>>r.shift]++
	}
	r.root = make([]bucket, len(starts))
	i := 0
	for b, n := range starts {
		width := min(bits.Len(n)+1, maxSlotBits)
		r.root[b] = bucket{slot: uint32(len(r.index)), shift: uint8(64 - width)}
		for slot := range uint64(1) << width {
			first := key{hi: uint64(b)<<r.shift | slot<<(int(r.shift)-width)}
			for i+1 < len(r.cells) && r.start(i+1).compare(first) <= 0 {
				i++
			}
			r.index = append(r.index, uint32(i))
		}
	}
	r.index = slices.Clip(append(r.index, uint32(len(r.cells)-1)))
}

func (r *ranges) start(i int) key { return key{r.hi[i], r.lo[i]} }

// end returns the last key of range i.
func (r *ranges) end(i int) key {
	if i+1 == len(r.cells) {
		return maxKey
	}
	return r.start(i + 1).prev()
}

// find returns the index of the range that k is in.
func (r *ranges) find(k key) int {
	b := r.root[k.hi>>(r.shift&63)]
	slot := uint64(b.slot) + k.hi<<((64-r.shift)&63)>>b.shift
	i := int(r.index[slot])
	n := int(r.index[slot+1]) - i + 1
	for n > 1 {
		half := n >> 1
		if r.hi[i+half] <= k.hi {
			i += half
		}
		n -= half
	}
	if r.hi[i] == k.hi && r.lo[i] > k.lo {
		i = sort.Search(i, func(i int) bool { return r.start(i).compare(k) > 0 }) - 1
	}
	return i
}

// around returns the length of the shortest prefix that holds k and lies
// within range i.
func (r *ranges) around(i int, k key) int {
	n := 0
	if i > 0 {
		n = k.common(r.start(i).prev()) + 1
	}
	if i+1 < len(r.cells) {
		n = max(n, k.common(r.start(i+1))+1)
	}
	return n
}
