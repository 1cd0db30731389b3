package cache

// index says where the record of a key lies: a table with open addressing whose
// slots hold 32 bits of the key's hash and a place, and no pointer. What it
// costs is known to the octet.
type index struct {
	slots []slot // a power of two of them, or none
	used  int
}

// slot is 0 while it is free.
type slot uint64

const (
	octetsOfSlot = 8
	leastSlots   = 64
)

// tagOf returns the part of a hash that a slot keeps. It is odd, so that no
// slot in use is 0.
func tagOf(hash uint64) uint32 { return uint32(hash>>32) | 1 }

func (s slot) tag() uint32  { return uint32(s >> 32) }
func (s slot) place() place { return place(uint32(s)) }

func newSlot(tag uint32, p place) slot { return slot(tag)<<32 | slot(p) }

func (x *index) bytes() int { return len(x.slots) * octetsOfSlot }

// full reports whether one more entry needs a larger table.
func (x *index) full() bool { return (x.used+1)*4 > len(x.slots)*3 }

func (x *index) home(tag uint32) int { return int(tag>>1) & (len(x.slots) - 1) }

// find returns the slot with the tag that is says yes to, -1 when there is
// none.
func (x *index) find(tag uint32, is func(place) bool) int {
	if len(x.slots) == 0 {
		return -1
	}
	for i := x.home(tag); x.slots[i] != 0; i = (i + 1) & (len(x.slots) - 1) {
		if x.slots[i].tag() == tag && is(x.slots[i].place()) {
			return i
		}
	}
	return -1
}

// add enters what is not there yet.
func (x *index) add(tag uint32, p place) {
	if x.full() {
		x.grow()
	}
	x.enter(newSlot(tag, p))
	x.used++
}

func (x *index) enter(s slot) {
	i := x.home(s.tag())
	for x.slots[i] != 0 {
		i = (i + 1) & (len(x.slots) - 1)
	}
	x.slots[i] = s
}

func (x *index) grow() {
	old := x.slots
	x.slots = make([]slot, max(leastSlots, 2*len(old)))
	for _, s := range old {
		if s != 0 {
			x.enter(s)
		}
	}
}

// grown returns the size in octets of the next larger table.
func (x *index) grown() int { return max(leastSlots, 2*len(x.slots)) * octetsOfSlot }

// remove frees slot i and moves up those behind it that it stood in the way of.
func (x *index) remove(i int) {
	mask := len(x.slots) - 1
	for j := (i + 1) & mask; x.slots[j] != 0; j = (j + 1) & mask {
		// What stands at j may move to i unless its home lies between the two.
		if home := x.home(x.slots[j].tag()); (j-home)&mask >= (j-i)&mask {
			x.slots[i], i = x.slots[j], j
		}
	}
	x.slots[i] = 0
	x.used--
}
