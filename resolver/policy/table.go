package policy

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"

	"smartdns/resolver/dnsname"
)

// table maps names to where they came from. It is one open-addressing table
// without pointers that knows a name by 59 bits of a hash whose seed nobody
// knows, and not by its text. So a name costs 18 octets at a load of two thirds,
// whatever its length, and a look-up waits for memory once. Of 10^12 look-ups
// among a million names, two find a name that is not there, which is less often
// than memory errs.
type table struct {
	seed  maphash.Seed
	slots []slot
	count int

	// taken is told, if it is not nil, of every name that comes again: what is
	// there, and what is not entered therefore.
	taken   func(earlier, later slot)
	waiting []slot // to be entered
	fetched uint16 // keeps the compiler from leaving out what flush fetches
}

// slot is empty when its source is 0.
type slot struct {
	high   uint32 // bits of the hash, from the left
	mid    uint16 // the next ones
	source uint16 // from 1
	low    uint32 // the next 11, and the line
}

const (
	minSlots   = 16
	lineBits   = 21
	maxWaiting = 64
)

func newTable() table { return table{seed: maphash.MakeSeed()} }

func newSlot(hash uint64, source, line int) slot {
	return slot{
		high: uint32(hash >> 32), mid: uint16(hash >> 16), source: uint16(source + 1),
		low: uint32(hash)<<16&^(1<<lineBits-1) | uint32(line),
	}
}

func (s slot) empty() bool { return s.source == 0 }

// is reports whether s is of the same name as o.
func (s slot) is(o slot) bool {
	return s.high == o.high && s.mid == o.mid && s.low>>lineBits == o.low>>lineBits
}

func (s slot) line() int { return int(s.low & (1<<lineBits - 1)) }

// from returns the source of a slot that is not empty.
func (s slot) from() int { return int(s.source) - 1 }

// place returns where the search for s starts among n slots.
func (s slot) place(n int) int { return int(uint64(s.high) * uint64(n) >> 32) }

// A probe is the start of a search. Making several before the first goes on lets
// the processor fetch their slots side by side: among a million names each of
// them waits for memory.
type probe struct{ want, first slot }

func (t *table) probe(name dnsname.FQDN) (p probe) {
	if t.count > 0 {
		p.want = newSlot(maphash.String(t.seed, string(name)), 0, 0)
		p.first = t.slots[p.want.place(len(t.slots))]
	}
	return p
}

// find returns the slot of name.
func (t *table) find(name dnsname.FQDN) (slot, bool) { return t.follow(t.probe(name)) }

// follow goes on with a search.
func (t *table) follow(p probe) (slot, bool) {
	if !p.first.empty() && !p.first.is(p.want) {
		p.first = t.slots[t.search(p.want)]
	}
	return p.first, !p.first.empty()
}

// search returns the position of the name of want, or of the empty slot where
// it belongs.
func (t *table) search(want slot) int {
	at := want.place(len(t.slots))
	for {
		if s := &t.slots[at]; s.empty() || s.is(want) {
			return at
		}
		if at++; at == len(t.slots) {
			at = 0
		}
	}
}

// add enters name, unless it is there already: sources come in the order of
// the rules, so that the earlier one wins.
func (t *table) add(name dnsname.FQDN, source, line int) error {
	switch {
	case name == "":
		return errors.New("empty name")
	case source >= math.MaxUint16:
		return errors.New("more than 65,535 rules and lists")
	case line >= 1<<lineBits:
		return fmt.Errorf("more than %d lines", 1<<lineBits-1)
	}
	t.wait(newSlot(maphash.String(t.seed, string(name)), source, line))
	return nil
}

// wait enters s, which is of this table or one of the same seed, before long.
func (t *table) wait(s slot) {
	if t.waiting = append(t.waiting, s); len(t.waiting) == maxWaiting {
		t.flush()
	}
}

// flush enters the names that wait: together, for the reason of probe.
func (t *table) flush() {
	for t.count+len(t.waiting) > len(t.slots)/4*3 {
		t.resize(max(minSlots, len(t.slots)*2))
	}
	for _, s := range t.waiting {
		t.fetched += t.slots[s.place(len(t.slots))].source
	}
	for _, s := range t.waiting {
		switch at := t.search(s); {
		case t.slots[at].empty():
			t.slots[at] = s
			t.count++
		case t.taken != nil:
			t.taken(t.slots[at], s)
		}
	}
	t.waiting = t.waiting[:0]
}

// reserve makes room for more names.
func (t *table) reserve(more int) {
	if n := slotsFor(t.count + len(t.waiting) + more); n > len(t.slots) {
		t.resize(n)
	}
}

// slotsFor returns how many slots hold count names at a load of two thirds.
func slotsFor(count int) int { return max(minSlots, count/2*3+3) }

// compact ends the adding of names, and gives back what growing, or reserving
// too much, left over.
func (t *table) compact() {
	t.flush()
	t.waiting = nil
	if t.count == 0 {
		t.slots = nil
		return
	}
	if n := slotsFor(t.count); n < len(t.slots)/8*7 {
		t.resize(n)
	}
}

func (t *table) resize(n int) {
	old := t.slots
	t.slots = make([]slot, n)
	for _, s := range old {
		if !s.empty() {
			t.slots[t.search(s)] = s
		}
	}
}
