package cache

import (
	"encoding/binary"
	"iter"
	"time"
)

const (
	chunkBits = 15
	chunkSize = 1 << chunkBits
	chunkHead = 24 // octets of a chunk's slice in the list of them
	maxKey    = 1 << 10
)

// place is where a record lies in the log: the number of its chunk, which wraps
// around long after the chunk is gone, and its offset there.
type place uint32

func newPlace(chunk uint32, offset int) place { return place(chunk<<chunkBits | uint32(offset)) }

func (p place) chunk() uint32 { return uint32(p) >> chunkBits }
func (p place) offset() int   { return int(p & (chunkSize - 1)) }

const chunkMask = 1<<(32-chunkBits) - 1

// chunks is a log of records: they are appended to the newest chunk, and the
// oldest chunk is taken away as a whole.
type chunks struct {
	list  []chunk
	first uint32 // the number of list[0]
	spare chunk  // the chunk evicted last, to be used again; nil for none
}

// chunk is a run of records; its capacity is chunkSize.
type chunk []byte

// tick is what stamps count in. Ages are rounded up to it, lives down.
const tick = 100 * time.Millisecond

// stamp is a time in ticks since a while before the cache was made.
type stamp uint32

// record is one entry as it lies in a chunk. The slices alias the chunk.
type record struct {
	stored    stamp
	life      stamp // at most 1<<24 ticks
	flags     flags
	key, body []byte
	header    []byte // of the record in its chunk; nil before it is written
	at        place
}

// A record is stored, flags and life, the lengths of key and body, key, body.
const (
	headerLen = 4 + 4 + 2 + 2
	atFlags   = 4
)

// flags are a record's kind, and what became of it.
type flags uint8

const (
	kindMask   flags = 0x07
	hot        flags = 0x08 // asked for since it was written into its chunk
	prefetched flags = 0x10
	refreshed  flags = 0x20 // somebody was told to refresh it
	askedOnce  flags = 0x40 // the unit of a count that ends at 2
	askedMask  flags = 0xc0
)

func (f flags) kind() Kind { return Kind(f & kindMask) }
func (f flags) asked() int { return int(f >> 6) }

func (r record) size() int { return headerLen + len(r.key) + len(r.body) }

func (r record) expires() stamp { return r.stored + r.life }

// set changes the flags of a record in its chunk.
func (r record) set(f flags) { r.header[atFlags] = byte(f) }

// failed reports whether r is of the failures, which lie beside other records.
func (r record) failed() bool { return r.flags.kind() == Failure }

func (c *chunks) bytes() int {
	return len(c.list)*chunkSize + cap(c.spare) + cap(c.list)*chunkHead
}

// fits reports whether size octets fit into the newest chunk.
func (c *chunks) fits(size int) bool {
	return len(c.list) > 0 && len(c.list[len(c.list)-1])+size <= chunkSize
}

// append writes r, into a new chunk where the newest has no room for it.
func (c *chunks) append(r record) place {
	if !c.fits(r.size()) {
		if c.spare == nil {
			c.spare = make(chunk, 0, chunkSize)
		}
		c.list = append(c.list, c.spare)
		c.spare = nil
	}
	last := len(c.list) - 1
	b := c.list[last]
	p := newPlace(c.first+uint32(last), len(b))
	b = binary.BigEndian.AppendUint32(b, uint32(r.stored))
	b = binary.BigEndian.AppendUint32(b, uint32(r.flags)<<24|uint32(r.life))
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.key)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.body)))
	b = append(b, r.key...)
	c.list[last] = append(b, r.body...)
	return p
}

func (c *chunks) read(p place) record {
	return c.list[(p.chunk()-c.first)&chunkMask].read(p)
}

// pop takes the oldest chunk away and returns it with its number.
func (c *chunks) pop() (chunk, uint32) {
	oldest, number := c.list[0], c.first
	c.list[0] = nil
	c.list = c.list[1:]
	c.first++
	return oldest, number
}

// records yields the records of every chunk in the order they were written,
// those that were replaced since too.
func (c *chunks) records() iter.Seq[record] {
	return func(yield func(record) bool) {
		for i, b := range c.list {
			for r := range b.records(c.first + uint32(i)) {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// read returns the record at p, which is in b.
func (b chunk) read(p place) record {
	h := b[p.offset():]
	key := int(binary.BigEndian.Uint16(h[8:]))
	end := headerLen + key + int(binary.BigEndian.Uint16(h[10:]))
	return record{
		stored: stamp(binary.BigEndian.Uint32(h)),
		life:   stamp(binary.BigEndian.Uint32(h[4:]) & (1<<24 - 1)),
		flags:  flags(h[atFlags]),
		key:    h[headerLen : headerLen+key],
		body:   h[headerLen+key : end],
		header: h[:headerLen],
		at:     p,
	}
}

// records yields the records of b, which has that number.
func (b chunk) records(number uint32) iter.Seq[record] {
	return func(yield func(record) bool) {
		for at := 0; at < len(b); {
			r := b.read(newPlace(number, at))
			if !yield(r) {
				return
			}
			at += r.size()
		}
	}
}
