// Package cache keeps answers, packed, for as long as they may be given.
package cache

import (
	"hash/maphash"
	"sync"
	"time"
)

// Kind is what an entry is.
type Kind uint8

// The kinds of entry.
const (
	Positive Kind = iota // an answer with data
	Negative             // NXDOMAIN or NODATA with a SOA (RFC 2308)
	Bare                 // NXDOMAIN or NODATA without one
	Failure              // nobody answered (RFC 9520); the body is what the caller wants to know of it
	Doubt                // a side answered what looked forged: the body says why, and never what
)

// String returns the word that CLI and JSON use.
func (k Kind) String() string {
	switch k {
	case Positive:
		return "fresh"
	case Negative, Bare:
		return "negative"
	case Failure:
		return "failure"
	case Doubt:
		return "doubt"
	}
	return "unknown"
}

// MaxLife returns how long an entry of kind k lives at most: a day for data
// (RFC 8767 section 4 says why not the 68 years of RFC 2181), an hour for
// negative answers, five minutes for a doubt, 5 s for negative answers without
// a SOA and for failures.
func (k Kind) MaxLife() time.Duration {
	switch k {
	case Positive:
		return 24 * time.Hour
	case Negative:
		return time.Hour
	case Doubt:
		return 5 * time.Minute
	case Bare, Failure:
		return 5 * time.Second
	}
	return 0
}

// MaxBody is the size of the largest body that is kept.
const MaxBody = 16 << 10

// Entry is what the cache knows about a key.
type Entry struct {
	Kind Kind
	Body []byte        // a copy; the caller owns it
	Age  time.Duration // since Put, by the monotonic clock
	Left time.Duration // until it expires; always positive
}

// Stats is a snapshot of what a cache holds and did.
type Stats struct {
	Entries  int
	Bytes    int // held, with the index and the room not yet used
	Capacity int // that Bytes never exceeds
	Hits     uint64
	Misses   uint64 // expired entries among them
	Evicted  uint64 // entries that had to go before they expired
}

const shards = 16

// Cache maps keys to bodies under a hard cap of bytes. It is safe for
// concurrent use. Bodies lie in large chunks without pointers, so that a full
// cache costs the garbage collector nothing.
type Cache struct {
	seed  maphash.Seed
	start time.Time
	shard [shards]shard
}

// New returns an empty cache that holds at most capacity bytes, and never less
// than it needs to be of use (1 MiB). Memory is taken as entries come.
func New(capacity int) *Cache {
	c := &Cache{seed: maphash.MakeSeed(), start: time.Now()}
	for i := range c.shard {
		c.shard[i].limit = max(capacity/shards, 4*chunkSize)
		c.shard[i].reset()
	}
	return c
}

// AppendKey appends the key of a question that one side answers: the wire
// question with its name in lower case, and the flags that change an answer.
func AppendKey(dst []byte, side string, question []byte, do, cd bool) []byte {
	flags := byte(0)
	if do {
		flags |= 1
	}
	if cd {
		flags |= 2
	}
	dst = append(dst, flags, byte(len(side)))
	dst = append(dst, side...)
	// Length octets are at most 63, so that they are never taken for letters.
	for _, b := range question[:max(0, len(question)-4)] {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		dst = append(dst, b)
	}
	return append(dst, question[max(0, len(question)-4):]...)
}

// now is monotonic: TTLs age through every change of the wall clock.
func (c *Cache) now() time.Duration { return time.Since(c.start) }

func (c *Cache) at(key []byte) (*shard, uint64) {
	h := maphash.Bytes(c.seed, key)
	return &c.shard[h%shards], h
}

// Get returns the live entry of key.
func (c *Cache) Get(key []byte) (Entry, bool) {
	s, h := c.at(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.now()
	r, ok := s.find(h, key)
	if !ok || r.expires <= now {
		s.stats.Misses++
		return Entry{}, false
	}
	s.stats.Hits++
	r.touch()
	return Entry{Kind: r.kind, Body: append([]byte(nil), r.body...), Age: now - r.stored, Left: r.expires - now}, true
}

// Put keeps body under key for life, at most kind's MaxLife, and replaces what
// was there. It reports whether it did: not without a life, and not when body
// is larger than MaxBody.
func (c *Cache) Put(key []byte, kind Kind, body []byte, life time.Duration) bool {
	life = min(life, kind.MaxLife())
	if life <= 0 || len(body) > MaxBody || len(key) > maxKey {
		return false
	}
	s, h := c.at(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.now()
	s.put(record{hash: h, stored: now, expires: now + life, kind: kind, key: key, body: body}, now)
	return true
}

// Flush forgets everything and gives the memory back.
func (c *Cache) Flush() {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		s.reset()
		s.mu.Unlock()
	}
}

// Stats returns a snapshot.
func (c *Cache) Stats() Stats {
	var sum Stats
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		sum.Entries += len(s.index)
		sum.Bytes += s.bytes()
		sum.Capacity += s.limit
		sum.Hits += s.stats.Hits
		sum.Misses += s.stats.Misses
		sum.Evicted += s.stats.Evicted
		s.mu.Unlock()
	}
	return sum
}

// shard is a part of the cache with a lock of its own.
type shard struct {
	mu    sync.Mutex // guards the rest
	limit int
	index map[uint64]place // by hash; no pointers
	log   chunks
	stats Stats // Hits, Misses and Evicted only
}

// perIndex is what one entry of index costs: Go's maps keep 17 octets a slot
// and fill their tables to between 7/16 and 7/8.
const perIndex = 40

func (s *shard) reset() {
	s.index = make(map[uint64]place)
	s.log = chunks{}
}

func (s *shard) bytes() int { return s.log.bytes() + len(s.index)*perIndex }

func (s *shard) find(hash uint64, key []byte) (record, bool) {
	p, ok := s.index[hash]
	if !ok {
		return record{}, false
	}
	r := s.log.read(p)
	return r, string(r.key) == string(key)
}

// put appends r to the log, after evicting the oldest chunks as far as the cap
// asks.
func (s *shard) put(r record, now time.Duration) {
	need := perIndex
	for {
		if !s.log.fits(r.size()) {
			need = perIndex + chunkSize
		}
		// One chunk is kept back for what survives an eviction.
		if len(s.log.list)*chunkSize+len(s.index)*perIndex+need <= s.limit-chunkSize {
			break
		}
		s.evict(now)
		need = perIndex
	}
	s.index[r.hash] = s.log.append(r)
}

// evict drops the oldest chunk. Entries of it that were asked for since they
// were written go to the end of the log instead (the CLOCK rule): a flood of
// names that nobody asks for twice does not push out those that are in use.
// At most half a chunk survives, so that every eviction gives room.
func (s *shard) evict(now time.Duration) {
	oldest, number := s.log.pop()
	room := chunkSize / 2
	for r := range oldest.records() {
		p, ok := s.index[r.hash]
		if !ok || p != (place{number, r.offset}) {
			continue // replaced since
		}
		if r.hot() && r.expires > now && r.size() <= room {
			room -= r.size()
			s.index[r.hash] = s.log.append(r)
			continue
		}
		delete(s.index, r.hash)
		if r.expires > now {
			s.stats.Evicted++
		}
	}
	s.log.spare = oldest[:0]
}
