package cache

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"smartdns/resolver/wire"
)

// sealedShard is a part of a Sealed with a lock of its own: a log of entries in
// chunks, and an index with open addressing over it.
type sealedShard struct {
	mu      sync.Mutex // guards the rest
	limit   int        // bytes
	slots   []sealedSlot
	used    int // slots that are not empty
	chunks  [][]byte
	current int // the chunk that is appended to; those behind it are the oldest
	evicted uint64
	_       [64]byte // the next shard's lock is another worker's
}

// sealedSlot is an entry's tag, and where it lies; the zero slot is empty.
type sealedSlot struct {
	tag   uint32
	place uint32 // chunk and offset
}

const (
	sealedChunk = 16 << 10
	slotSize    = 8
	firstSlots  = 64
	offsetBits  = 14 // of a place
)

func placeOf(chunk, offset int) uint32      { return uint32(chunk)<<offsetBits | uint32(offset) }
func (s sealedSlot) chunk() int             { return int(s.place >> offsetBits) }
func (s sealedSlot) offset() int            { return int(s.place & (1<<offsetBits - 1)) }
func (sh *sealedShard) home(tag uint32) int { return int(tag>>1) & (len(sh.slots) - 1) }
func (sh *sealedShard) next(i int) int      { return (i + 1) & (len(sh.slots) - 1) }

func (sh *sealedShard) bytes() int {
	return len(sh.chunks)*sealedChunk + len(sh.slots)*slotSize
}

func (sh *sealedShard) reset() {
	sh.slots, sh.used, sh.chunks, sh.current = nil, 0, nil, 0
}

func (sh *sealedShard) at(s sealedSlot) sealedEntry {
	return readSealed(sh.chunks[s.chunk()][s.offset():])
}

// slot returns the index of the slot of key, or, when there is none, of the
// empty slot that ends the search. There must be an empty slot.
func (sh *sealedShard) slot(tag uint32, key sealedKey) (i int, ok bool) {
	for i = sh.home(tag); sh.slots[i].tag != 0; i = sh.next(i) {
		if sh.slots[i].tag == tag && sh.at(sh.slots[i]).is(key) {
			return i, true
		}
	}
	return i, false
}

func (sh *sealedShard) find(tag uint32, key sealedKey) (sealedEntry, bool) {
	if len(sh.slots) == 0 {
		return nil, false
	}
	i, ok := sh.slot(tag, key)
	if !ok {
		return nil, false
	}
	return sh.at(sh.slots[i]), true
}

// put appends an entry to the log, and points its slot there.
func (sh *sealedShard) put(tag uint32, key sealedKey, a Seal, now time.Duration) bool {
	var room [maxSealedEntry]byte
	e := appendSealed(room[:0], tag, key, a, now)
	if len(e) > maxSealedEntry {
		return false
	}
	sh.makeRoom(len(e), now)
	c := sh.chunks[sh.current]
	place := placeOf(sh.current, len(c))
	sh.chunks[sh.current] = append(c, e...)
	i, ok := sh.slot(tag, key)
	if !ok {
		sh.used++
	}
	sh.slots[i] = sealedSlot{tag, place}
	return true
}

// makeRoom makes the current chunk one with room for size octets, and leaves an
// empty slot in four. Where the cap does not allow more memory, the oldest
// chunk makes way.
func (sh *sealedShard) makeRoom(size int, now time.Duration) {
	for len(sh.chunks) == 0 || len(sh.chunks[sh.current])+size > sealedChunk {
		if len(sh.chunks) == 0 || sh.bytes()+sealedChunk <= sh.limit {
			sh.chunks = append(sh.chunks, make([]byte, 0, sealedChunk))
			sh.current = len(sh.chunks) - 1
			continue
		}
		sh.current = (sh.current + 1) % len(sh.chunks)
		sh.reclaim(now)
	}
	for sh.used >= len(sh.slots)/4*3 {
		if len(sh.slots) == 0 || sh.bytes()+len(sh.slots)*slotSize <= sh.limit {
			sh.grow()
			continue
		}
		sh.current = (sh.current + 1) % len(sh.chunks)
		sh.reclaim(now)
	}
}

// reclaim makes room in the current chunk. What was asked for since it was
// written, or since the last time, stays (the CLOCK rule), up to half of the
// chunk, if it still holds.
func (sh *sealedShard) reclaim(now time.Duration) {
	c := sh.chunks[sh.current]
	kept := 0
	for off := 0; off < len(c); {
		e := readSealed(c[off:])
		size := len(e)
		here := placeOf(sh.current, off)
		off += size
		i, ok := sh.slotOf(e.tag(), here)
		if !ok {
			continue // replaced since
		}
		live := e.until() > now
		if live && e.hot() && kept+size <= sealedChunk/2 {
			e.cool()
			sh.slots[i].place = placeOf(sh.current, kept)
			kept += copy(c[kept:], e)
			continue
		}
		sh.remove(i)
		if live {
			sh.evicted++
		}
	}
	sh.chunks[sh.current] = c[:kept]
}

// slotOf returns the slot that points to a place.
func (sh *sealedShard) slotOf(tag, place uint32) (i int, ok bool) {
	for i = sh.home(tag); sh.slots[i].tag != 0; i = sh.next(i) {
		if sh.slots[i] == (sealedSlot{tag, place}) {
			return i, true
		}
	}
	return i, false
}

// remove empties slot i, and moves back what stands behind it because it was
// taken.
func (sh *sealedShard) remove(i int) {
	sh.used--
	for j := sh.next(i); sh.slots[j].tag != 0; j = sh.next(j) {
		home := sh.home(sh.slots[j].tag)
		if (j-home)&(len(sh.slots)-1) >= (j-i)&(len(sh.slots)-1) {
			sh.slots[i] = sh.slots[j]
			i = j
		}
	}
	sh.slots[i] = sealedSlot{}
}

// grow doubles the index.
func (sh *sealedShard) grow() {
	old := sh.slots
	sh.slots = make([]sealedSlot, max(firstSlots, 2*len(old)))
	for _, s := range old {
		if s.tag == 0 {
			continue
		}
		i := sh.home(s.tag)
		for sh.slots[i].tag != 0 {
			i = sh.next(i)
		}
		sh.slots[i] = s
	}
}

// sealedEntry is an entry as it lies in a chunk:
//
//	 0 tag           4
//	 4 size          2  of all of it
//	 6 offsets       2  how many octets of them
//	 8 without OPT   2  length of the message up to its OPT
//	10 view          2
//	12 question      2  its length
//	14 flags         1  DO, CD
//	15 asked         1  since the entry was written or last spared
//	16 sealed        8  since the start of the table, nanoseconds
//	24 until         8
//	32 generation    8
//	40 offsets of the TTLs in the message, then the message
type sealedEntry []byte

const (
	sealedHeader   = 40
	maxSealedEntry = sealedHeader + 2*wire.MaxRecords + MaxSealed
	atHot          = 15
)

var le = binary.LittleEndian

func appendSealed(b []byte, tag uint32, key sealedKey, a Seal, now time.Duration) []byte {
	b = le.AppendUint32(b, tag)
	b = le.AppendUint32(b, 0) // size and offsets, when they are known
	b = le.AppendUint16(b, uint16(wire.BeforeOPT(a.Msg)))
	b = le.AppendUint16(b, uint16(key.view))
	b = le.AppendUint16(b, uint16(len(key.question)))
	b = append(b, key.flags, 0)
	b = le.AppendUint64(b, uint64(now))
	b = le.AppendUint64(b, uint64(now+a.Life))
	b = le.AppendUint64(b, a.Generation)
	b = wire.TTLOffsets(b, a.Msg)
	le.PutUint16(b[6:], uint16(len(b)-sealedHeader))
	b = append(b, a.Msg...)
	le.PutUint16(b[4:], uint16(len(b)))
	copy(sealedEntry(b).msg(true)[wire.HeaderLen:], key.question)
	return b
}

// readSealed returns the entry at the start of b.
func readSealed(b []byte) sealedEntry { return b[:le.Uint16(b[4:])] }

func (e sealedEntry) tag() uint32           { return le.Uint32(e) }
func (e sealedEntry) hot() bool             { return e[atHot] != 0 }
func (e sealedEntry) touch()                { e[atHot] = 1 }
func (e sealedEntry) cool()                 { e[atHot] = 0 }
func (e sealedEntry) sealed() time.Duration { return time.Duration(le.Uint64(e[16:])) }
func (e sealedEntry) until() time.Duration  { return time.Duration(le.Uint64(e[24:])) }
func (e sealedEntry) generation() uint64    { return le.Uint64(e[32:]) }
func (e sealedEntry) offsets() []byte       { return e[sealedHeader:e.body()] }
func (e sealedEntry) body() int             { return sealedHeader + int(le.Uint16(e[6:])) }

// msg returns the packed answer, with its OPT or without it: then the header
// still counts it.
func (e sealedEntry) msg(opt bool) []byte {
	if opt {
		return e[e.body():]
	}
	return e[e.body():][:le.Uint16(e[8:])]
}

// is reports whether e answers key.
func (e sealedEntry) is(key sealedKey) bool {
	return e[14] == key.flags && le.Uint16(e[10:]) == uint16(key.view) && int(le.Uint16(e[12:])) == len(key.question) &&
		bytes.Equal(e[e.body()+wire.HeaderLen:][:len(key.question)], key.question)
}
