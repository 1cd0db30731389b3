package cache

import (
	"encoding/binary"
	"iter"
	"time"
)

const (
	chunkSize = 64 << 10
	maxKey    = 1 << 10
)

// place is where a record lies in the log.
type place struct{ chunk, offset uint32 }

// chunks is a log of records: they are appended to the newest chunk, and the
// oldest chunk is taken away as a whole.
type chunks struct {
	list  []chunk
	first uint32 // the number of list[0]
	spare chunk  // the chunk evicted last, to be used again; nil for none
}

// chunk is a run of records; its capacity is chunkSize.
type chunk []byte

// record is one entry as it lies in a chunk. The slices alias the chunk.
type record struct {
	hash            uint64
	stored, expires time.Duration // since the cache's start
	kind            Kind
	key, body       []byte
	header          []byte // of the record in its chunk; nil before it is written
	offset          uint32
}

// A record is hash, stored, expires, kind, asked, the lengths of key and body,
// key, body.
const headerLen = 8 + 8 + 8 + 1 + 1 + 2 + 4

const atAsked = 25

func (r record) size() int { return headerLen + len(r.key) + len(r.body) }

// touch notes that somebody asked for r.
func (r record) touch() { r.header[atAsked] = 1 }

// hot reports whether somebody asked for r since it was written.
func (r record) hot() bool { return r.header[atAsked] == 1 }

func (c *chunks) bytes() int { return len(c.list)*chunkSize + cap(c.spare) }

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
	p := place{c.first + uint32(last), uint32(len(b))}
	b = binary.BigEndian.AppendUint64(b, r.hash)
	b = binary.BigEndian.AppendUint64(b, uint64(r.stored))
	b = binary.BigEndian.AppendUint64(b, uint64(r.expires))
	b = append(b, byte(r.kind), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.key)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.body)))
	b = append(b, r.key...)
	c.list[last] = append(b, r.body...)
	return p
}

func (c *chunks) read(p place) record {
	return c.list[p.chunk-c.first].read(p.offset)
}

// pop takes the oldest chunk away and returns it with its number.
func (c *chunks) pop() (chunk, uint32) {
	oldest, number := c.list[0], c.first
	c.list[0] = nil
	c.list = c.list[1:]
	c.first++
	return oldest, number
}

func (b chunk) read(offset uint32) record {
	h := b[offset:]
	key := int(binary.BigEndian.Uint16(h[26:]))
	end := headerLen + key + int(binary.BigEndian.Uint32(h[28:]))
	return record{
		hash:    binary.BigEndian.Uint64(h),
		stored:  time.Duration(binary.BigEndian.Uint64(h[8:])),
		expires: time.Duration(binary.BigEndian.Uint64(h[16:])),
		kind:    Kind(h[24]),
		key:     h[headerLen : headerLen+key],
		body:    h[headerLen+key : end],
		header:  h[:headerLen],
		offset:  offset,
	}
}

// records yields the records of b in the order they were written.
func (b chunk) records() iter.Seq[record] {
	return func(yield func(record) bool) {
		for at := 0; at < len(b); {
			r := b.read(uint32(at))
			if !yield(r) {
				return
			}
			at += r.size()
		}
	}
}
