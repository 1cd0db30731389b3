package policy

import (
	"errors"
	"hash/maphash"
	"math"

	"smartdns/resolver/dnsname"
)

// table maps names to where they came from. It is one open-addressing table
// over one arena of names, without pointers: a name costs its text, a
// terminator and a slot at a load of two thirds, about 32 octets for the
// lists of this field, and a look-up touches two cache lines.
type table struct {
	seed  maphash.Seed
	arena []byte // names without their last dot, each ended by a NUL
	slots []slot
	count int
}

// slot is empty when its tag is 0. The name of a slot starts at arena[name].
type slot struct {
	name   uint32
	line   uint32
	source uint16
	tag    uint16 // bits of the hash that the position does not show
}

const minSlots = 16

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
	s := t.slots[t.search(want)]
	return s, s.tag != 0
}

// search returns the position of want, or of the empty slot where it belongs.
func (t *table) search(want string) int {
	at, tag := place(maphash.String(t.seed, want), len(t.slots))
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
	end := int(s.name) + len(want)
	return end < len(t.arena) && t.arena[end] == 0 && string(t.arena[s.name:end]) == want
}

// add enters name, unless it is there already: sources come in the order of
// the rules, so that the earlier one wins.
func (t *table) add(name dnsname.FQDN, source, line int) error {
	switch {
	case name == "":
		return errors.New("empty name")
	case source > math.MaxUint16:
		return errors.New("more than 65,536 rules and lists")
	case uint64(len(t.arena)) > math.MaxUint32-math.MaxUint16:
		return errors.New("more than 4 GiB of names")
	}
	if t.count >= len(t.slots)/4*3 {
		t.resize(max(minSlots, len(t.slots)*2))
	}
	want := text(name)
	at := t.search(want)
	if t.slots[at].tag != 0 {
		return nil
	}
	_, tag := place(maphash.String(t.seed, want), len(t.slots))
	t.slots[at] = slot{name: uint32(len(t.arena)), line: uint32(line), source: uint16(source), tag: tag}
	t.arena = append(append(t.arena, want...), 0)
	t.count++
	return nil
}

// compact gives back what growing left over.
func (t *table) compact() {
	if t.count == 0 {
		return
	}
	t.resize(max(minSlots, t.count/2*3))
	t.arena = append(make([]byte, 0, len(t.arena)), t.arena...)
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
	end := int(s.name)
	for t.arena[end] != 0 {
		end++
	}
	return t.arena[s.name:end]
}
