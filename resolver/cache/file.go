package cache

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The content of a file is the time of saving, then the entries, each of them
// its time of Put, life, flags, the lengths of key and body, key, body. Times
// are Unix time in milliseconds, numbers big-endian on every machine.
const (
	savedLen = 8
	entryLen = 8 + 4 + 1 + 2 + 2
)

// Save writes the answers to w that could still be given, stale or not, after
// a restart. Others use the cache meanwhile.
func (c *Cache) Save(w io.Writer) error {
	wall := time.Now().Round(0)
	if _, err := w.Write(binary.BigEndian.AppendUint64(nil, uint64(wall.UnixMilli()))); err != nil {
		return err
	}
	var buf []byte
	for i := range c.shard {
		buf = c.appendShard(buf[:0], &c.shard[i], wall)
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache) appendShard(b []byte, s *shard, wall time.Time) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.now()
	for r := range s.log.records() {
		if !r.flags.kind().outlives() || now-r.expires().duration() >= MaxStale || s.current(r) < 0 {
			continue
		}
		b = binary.BigEndian.AppendUint64(b, uint64(wall.Add(r.stored.duration()-now).UnixMilli()))
		b = binary.BigEndian.AppendUint32(b, uint32(r.life.duration().Milliseconds()))
		b = append(b, byte(r.flags&(kindMask|prefetched)))
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.key)))
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.body)))
		b = append(append(b, r.key...), r.body...)
	}
	return b
}

var errEntry = errors.New("an entry makes no sense")

// Load puts the entries that Save wrote, and whose key keep wants, as old as
// they are now by the wall clock, and returns how many. One that ended more
// than MaxStale ago is left out. When the clock stands before the time of
// saving nobody knows how old they are: all of them are stale then, and behind
// says so. Load reads to the end; after an error what came before it is there.
func (c *Cache) Load(r io.Reader, keep func(key []byte) bool) (n int, behind bool, err error) {
	in := bufio.NewReader(r)
	var head [entryLen]byte
	if _, err := io.ReadFull(in, head[:savedLen]); err != nil {
		return 0, false, fmt.Errorf("reading when it was saved: %w", err)
	}
	saved := int64(binary.BigEndian.Uint64(head[:]))
	wall := time.Now().UnixMilli()
	behind = wall < saved
	data := make([]byte, maxKey+MaxBody)
	for {
		switch _, err := io.ReadFull(in, head[:]); {
		case err == io.EOF:
			return n, behind, nil
		case err != nil:
			return n, behind, fmt.Errorf("reading an entry: %w", err)
		}
		stored := int64(binary.BigEndian.Uint64(head[:]))
		life := time.Duration(binary.BigEndian.Uint32(head[8:])) * time.Millisecond
		f := flags(head[12])
		key, body := int(binary.BigEndian.Uint16(head[13:])), int(binary.BigEndian.Uint16(head[15:]))
		kind := f.kind()
		if f&^(kindMask|prefetched) != 0 || !kind.outlives() || life > kind.MaxLife() || stored < 0 || stored > saved || key > maxKey || body > MaxBody {
			return n, behind, errEntry
		}
		if _, err := io.ReadFull(in, data[:key+body]); err != nil {
			return n, behind, fmt.Errorf("reading an entry: %w", err)
		}
		if !keep(data[:key]) {
			continue
		}
		e := record{life: stamp(life / tick), flags: f | askedOnce, key: data[:key], body: data[key : key+body]}
		if c.restore(e, wall-stored, behind) {
			n++
		}
	}
}

// restore puts r as old as age says, in milliseconds.
func (c *Cache) restore(r record, age int64, behind bool) bool {
	end := int64(r.life.duration() / time.Millisecond)
	if behind {
		age = end
	}
	if age-end >= MaxStale.Milliseconds() {
		return false
	}
	now := c.stamp()
	r.stored = now - stamp((time.Duration(age)*time.Millisecond+tick-1)/tick)
	return c.put(r, now)
}
