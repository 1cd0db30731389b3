package cache

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"smartdns/resolver/wire"
)

// sealedShard is a part of a Sealed with a lock of its own: a log of entries in
// chunks, and an index of it.
type sealedShard struct {
	mu      sync.Mutex // guards the rest
	limit   int        // bytes
	index   index
	chunks  [][]byte
	current int // the chunk that is appended to; the next one is the oldest
	evicted uint64
	_       [64]byte // the next shard's lock is another worker's
}

// sealedChunk is small, so that a small table evicts little at a time.
const sealedChunk = chunkSize / 2

func (sh *sealedShard) bytes() int { return len(sh.chunks)*(sealedChunk+chunkHead) + sh.index.bytes() }

func (sh *sealedShard) reset() { sh.index, sh.chunks, sh.current = index{}, nil, 0 }

func (sh *sealedShard) at(p place) sealedEntry {
	return readSealed(sh.chunks[p.chunk()][p.offset():])
}

// find returns the entry of key and the slot that points to it.
func (sh *sealedShard) find(tag uint32, key sealedKey) (e sealedEntry, slot int) {
	slot = sh.index.find(tag, func(p place) bool {
		e = sh.at(p)
		return e.is(key)
	})
	return e, slot
}

// put appends an entry to the log, and points its slot there.
func (sh *sealedShard) put(tag uint32, key sealedKey, a Seal, now time.Duration) {
	var room [maxSealedEntry]byte
	e := appendSealed(room[:0], tag, key, a, now)
	sh.makeRoom(len(e), now)
	c := sh.chunks[sh.current]
	here := newPlace(uint32(sh.current), len(c))
	sh.chunks[sh.current] = append(c, e...)
	if _, slot := sh.find(tag, key); slot >= 0 {
		sh.index.slots[slot] = newSlot(tag, here)
		return
	}
	sh.index.add(tag, here)
}

// makeRoom makes the current chunk one with room for size octets, and the index
// one with room for another entry. Where the cap does not allow more memory,
// the oldest chunk makes way.
func (sh *sealedShard) makeRoom(size int, now time.Duration) {
	for sh.index.full() && len(sh.chunks) > 0 && sh.bytes()-sh.index.bytes()+sh.index.grown() > sh.limit {
		sh.evict(now)
	}
	for len(sh.chunks) == 0 || len(sh.chunks[sh.current])+size > sealedChunk {
		if len(sh.chunks) > 0 && sh.bytes()+sealedChunk+chunkHead > sh.limit {
			sh.evict(now)
			continue
		}
		sh.chunks = append(sh.chunks, make([]byte, 0, sealedChunk))
		sh.current = len(sh.chunks) - 1
	}
}

// evict makes room in the oldest chunk, which becomes the current one. What was
// asked for since it was written, or since the last time, stays (the CLOCK
// rule), up to half of the chunk, if it still holds.
func (sh *sealedShard) evict(now time.Duration) {
	sh.current = (sh.current + 1) % len(sh.chunks)
	c := sh.chunks[sh.current]
	kept := 0
	for off := 0; off < len(c); {
		e := readSealed(c[off:])
		size, here := len(e), newPlace(uint32(sh.current), off)
		off += size
		slot := sh.index.find(e.tag(), func(p place) bool { return p == here })
		if slot < 0 {
			continue // replaced since
		}
		live := e.until() > now
		if live && e.hot() && kept+size <= sealedChunk/2 {
			e.cool()
			sh.index.slots[slot] = newSlot(e.tag(), newPlace(uint32(sh.current), kept))
			kept += copy(c[kept:], e)
			continue
		}
		sh.index.remove(slot)
		if live {
			sh.evicted++
		}
	}
	sh.chunks[sh.current] = c[:kept]
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
//	40 learned       1  how many of them
//	41 learned, 2 octets each, offsets of the TTLs in the message, the message
type sealedEntry []byte

const (
	sealedHeader   = 41
	maxLearned     = 255
	maxSealedEntry = sealedHeader + 2*maxLearned + 2*wire.MaxRecords + MaxSealed
	atHot          = 15
)

// learnedBy is Learned as it lies in an entry.
type learnedBy []byte

func (l learnedBy) len() int         { return len(l) / 2 }
func (l learnedBy) at(i int) Learned { return Learned(le.Uint16(l[2*i:])) }

func learnedOf(all []Learned) learnedBy {
	var l learnedBy
	for _, x := range all {
		l = le.AppendUint16(l, uint16(x))
	}
	return l
}

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
	b = append(b, byte(len(a.Learned)))
	b = append(b, learnedOf(a.Learned)...)
	offsets := len(b)
	b = wire.TTLOffsets(b, a.Msg)
	le.PutUint16(b[6:], uint16(len(b)-offsets))
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
func (e sealedEntry) learned() learnedBy    { return learnedBy(e[sealedHeader:e.ttls()]) }
func (e sealedEntry) offsets() []byte       { return e[e.ttls():e.body()] }
func (e sealedEntry) ttls() int             { return sealedHeader + 2*int(e[40]) }
func (e sealedEntry) body() int             { return e.ttls() + int(le.Uint16(e[6:])) }

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
