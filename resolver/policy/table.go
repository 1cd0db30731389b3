package policy

import (
	"bytes"
	"errors"
	"hash/maphash"
	"math"

	"smartdns/resolver/dnsname"
)

// table maps names to where they came from. It is one open-addressing table
// over an arena of names, without pointers: a name costs its text, a terminator
// and a slot at a load of two thirds, about 38 octets for the lists of this
// field, and a look-up touches two cache lines.
type table struct {
	seed  maphash.Seed
	arena [][]byte // pages of names without their last dot, each ended by a NUL
	slots []slot
	count int
}

// slot is empty when its tag is 0. Its name starts at name%pageSize of page
// name/pageSize.
type slot struct {
	name   uint32
	line   uint32
	source uint16
	tag    uint16 // bits of the hash that the position does not show
}

const (
	minSlots = 16
	pageSize = 64 << 10
)

func newTable() table { return table{seed: maphash.MakeSeed()} }

// text is the form that the arena keeps. The root is the empty text.
func text(name dnsname.FQDN) string { return string(name[:len(name)-1]) }

// place returns where the search for a hash starts among n slots, and its tag.
func place(hash uint64, n int) (at int, tag uint16) {
	return int(hash >> 32 * uint64(n) >> 32), uint16(hash) | 1
}

// find returns the slot of name, which must not be empty.
func (t *table) find(name dnsname.FQDN) (slot, bool) {
	if t.count == 0 || name == "" {
		return slot{}, false
	}
	want := text(name)
	s := t.slots[t.search(want, maphash.String(t.seed, want))]
	return s, s.tag != 0
}

// search returns the position of want, or of the empty slot where it belongs.
func (t *table) search(want string, hash uint64) int {
	at, tag := place(hash, len(t.slots))
	for {
		s := t.slots[at]
		if s.tag == 0 || s.tag == tag && t.holds(s, want) {
			return at
		}
		if at++; at == len(t.slots) {
			at = 0
		}
	}
}

func (t *table) holds(s slot, want string) bool {
	page := t.arena[s.name/pageSize]
	start := int(s.name % pageSize)
	end := start + len(want)
	return end < len(page) && page[end] == 0 && string(page[start:end]) == want
}

// add enters name, unless it is there already: sources come in the order of
// the rules, so that the earlier one wins.
// before is what is there then.
func (t *table) add(name dnsname.FQDN, source, line int) (before slot, taken bool, err error) {
	switch {
	case name == "":
		return slot{}, false, errors.New("empty name")
	case source > math.MaxUint16:
		return slot{}, false, errors.New("more than 65,536 rules and lists")
	case len(t.arena) == math.MaxUint32/pageSize:
		return slot{}, false, errors.New("more than 4 GiB of names")
	}
	if t.count >= len(t.slots)/4*3 {
		t.resize(max(minSlots, len(t.slots)*2))
	}
	want := text(name)
	hash := maphash.String(t.seed, want)
	at := t.search(want, hash)
	if t.slots[at].tag != 0 {
		return t.slots[at], true, nil
	}
	_, tag := place(hash, len(t.slots))
	t.slots[at] = slot{name: t.keep(want), line: uint32(line), source: uint16(source), tag: tag}
	t.count++
	return slot{}, false, nil
}

// keep puts text into the arena and returns where. The first page grows, so that
// a few names cost little.
func (t *table) keep(text string) uint32 {
	last := len(t.arena) - 1
	if last < 0 || len(t.arena[last])+len(text) >= pageSize {
		size := pageSize
		if last++; last == 0 {
			size = 0
		}
		t.arena = append(t.arena, make([]byte, 0, size))
	}
	page := t.arena[last]
	at := uint32(last*pageSize + len(page))
	t.arena[last] = append(append(page, text...), 0)
	return at
}

// reserve makes room for more names.
func (t *table) reserve(more int) {
	if n := slotsFor(t.count + more); n > len(t.slots) {
		t.resize(n)
	}
}

// slotsFor returns how many slots hold count names at a load of two thirds.
func slotsFor(count int) int { return max(minSlots, count/2*3+3) }

// compact gives back what growing, or reserving too much, left over.
func (t *table) compact() {
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
		if s.tag == 0 {
			continue
		}
		at, _ := place(maphash.Bytes(t.seed, t.name(s)), n)
		for t.slots[at].tag != 0 {
			if at++; at == n {
				at = 0
			}
		}
		t.slots[at] = s
	}
}

// name returns the text of an occupied slot.
func (t *table) name(s slot) []byte {
	text := t.arena[s.name/pageSize][s.name%pageSize:]
	return text[:bytes.IndexByte(text, 0)]
}
