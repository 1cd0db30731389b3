// Package cache keeps answers, packed, for as long as they may be given.
package cache

import (
	"hash/maphash"
	"sync/atomic"
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
// negative answers, five minutes for a doubt and, as RFC 9520 section 3.2 has
// it, for a failure, 5 s for negative answers without a SOA.
func (k Kind) MaxLife() time.Duration {
	switch k {
	case Positive:
		return 24 * time.Hour
	case Negative:
		return time.Hour
	case Doubt, Failure:
		return 5 * time.Minute
	case Bare:
		return 5 * time.Second
	}
	return 0
}

// outlives reports whether entries of kind k may still be given, as stale,
// after they expired, and are worth keeping over a restart.
func (k Kind) outlives() bool { return k == Positive || k == Negative }

const (
	// MaxBody is the size of the largest body that is kept.
	MaxBody = 16 << 10
	// MaxStale is for how long after its end an entry may be given at most
	// (RFC 8767 section 5 suggests one to three days).
	MaxStale = 24 * time.Hour
	// MinCapacity is the least that a cache can hold, in octets.
	MinCapacity = shards * 4 * chunkSize
)

// Entry is what the cache knows about a key.
type Entry struct {
	Kind       Kind
	Body       []byte        // a copy; the caller owns it
	Age        time.Duration // since Put, the machine's sleep included; no change of the wall clock moves it
	Left       time.Duration // until it expires; of a stale entry, zero or negative
	Prefetched bool          // it came before anybody had to wait for it
	Asked      int           // how often it was asked for: 0, 1, or 2 for more
	// Refresh says that the entry is asked for again and again and that a tenth
	// of its life is left: the caller should fetch it anew. It is said once of an
	// entry.
	Refresh bool
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
// concurrent use. Neither bodies nor index have pointers in them, so that a
// full cache costs the garbage collector nothing.
type Cache struct {
	seed    maphash.Seed
	clock   *clock
	changes atomic.Uint64
	shard   [shards]shard
}

// New returns an empty cache that holds at most capacity bytes, and never less
// than MinCapacity. Memory is taken as entries come.
func New(capacity int) *Cache {
	c := &Cache{seed: maphash.MakeSeed(), clock: newClock()}
	for i := range c.shard {
		c.shard[i].seed = c.seed
		c.shard[i].limit = max(capacity, MinCapacity) / shards
	}
	return c
}

// past is how old an entry can be when it is loaded: stamps have room for it
// before the cache's own start.
const past = 24*time.Hour + MaxStale + time.Hour

func (c *Cache) now() time.Duration { return c.clock.now() + past }

func (c *Cache) stamp() stamp { return stamp(c.now() / tick) }

func (s stamp) duration() time.Duration { return time.Duration(s) * tick }

func (c *Cache) at(key []byte) (*shard, uint64) {
	h := maphash.Bytes(c.seed, key)
	return &c.shard[h%shards], h
}

// Get returns the live entry of key: what was answered last, else the failure
// to get an answer.
func (c *Cache) Get(key []byte) (Entry, bool) {
	s, h := c.at(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.now()
	for _, failed := range []bool{false, true} {
		r, i := s.find(h, key, failed)
		if i < 0 || r.expires().duration() <= now {
			continue
		}
		s.stats.Hits++
		e := r.entry(now)
		f := r.flags | hot
		if f.asked() < 2 {
			f += askedOnce
		}
		e.Refresh = f.asked() >= 2 && f&refreshed == 0 && e.Kind.outlives() && e.Left < (e.Age+e.Left)/10
		if e.Refresh {
			f |= refreshed
		}
		r.set(f)
		return e, true
	}
	s.stats.Misses++
	return Entry{}, false
}

// Peek is Get for somebody who does not count as asking.
func (c *Cache) Peek(key []byte) (Entry, bool) {
	s, h := c.at(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.now()
	for _, failed := range []bool{false, true} {
		if r, i := s.find(h, key, failed); i >= 0 && r.expires().duration() > now {
			return r.entry(now), true
		}
	}
	return Entry{}, false
}

// Stale returns the last answer for key when it ended at most window ago. It
// counts neither as a hit nor as a miss.
func (c *Cache) Stale(key []byte, window time.Duration) (Entry, bool) {
	s, h := c.at(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.now()
	r, i := s.find(h, key, false)
	if i < 0 || !r.flags.kind().outlives() {
		return Entry{}, false
	}
	e := r.entry(now)
	return e, -e.Left < window
}

// entry returns r as it is now, with a body of its own.
func (r record) entry(now time.Duration) Entry {
	return Entry{
		Kind: r.flags.kind(), Body: append([]byte(nil), r.body...), Prefetched: r.flags&prefetched != 0, Asked: r.flags.asked(),
		Age: now - r.stored.duration(), Left: r.expires().duration() - now,
	}
}

// Put keeps body under key for life, at most kind's MaxLife, and replaces what
// was there; but a Failure leaves the last answer, which Stale then returns. It
// reports whether it did: not without a life of 100 ms, and not when body is
// larger than MaxBody.
func (c *Cache) Put(key []byte, kind Kind, body []byte, life time.Duration) bool {
	return c.keep(key, flags(kind)|askedOnce, body, life)
}

// Prefetched is Put for an answer that nobody has asked for yet.
func (c *Cache) Prefetched(key []byte, kind Kind, body []byte, life time.Duration) bool {
	return c.keep(key, flags(kind)|prefetched, body, life)
}

func (c *Cache) keep(key []byte, f flags, body []byte, life time.Duration) bool {
	now := c.stamp()
	return c.put(record{stored: now, life: stamp(min(life, f.kind().MaxLife()) / tick), flags: f, key: key, body: body}, now)
}

func (c *Cache) put(r record, now stamp) bool {
	if int32(r.life) <= 0 || len(r.body) > MaxBody || len(r.key) > maxKey {
		return false
	}
	s, h := c.at(r.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(h, r, now)
	if _, i := s.find(h, r.key, true); i >= 0 && !r.failed() {
		s.index.remove(i)
	}
	c.changes.Add(1)
	return true
}

// Changes returns a number that is another one after each Put and each flush.
func (c *Cache) Changes() uint64 { return c.changes.Load() }

// Flush forgets everything and gives the memory back.
func (c *Cache) Flush() {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		s.reset()
		s.mu.Unlock()
	}
	c.changes.Add(1)
}

// Drop forgets the entries that f says so of, and returns how many. It calls f
// for every entry, stale ones too, while others wait for the cache: f must be
// quick, must not call the cache, and keeps neither key nor body.
func (c *Cache) Drop(f func(key []byte, e Entry) bool) (dropped int) {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		now := c.now()
		dropped += s.drop(func(r record) bool {
			e := Entry{
				Kind: r.flags.kind(), Body: r.body, Prefetched: r.flags&prefetched != 0, Asked: r.flags.asked(),
				Age: now - r.stored.duration(), Left: r.expires().duration() - now,
			}
			return f(r.key, e)
		})
		s.mu.Unlock()
	}
	if dropped > 0 {
		c.changes.Add(1)
	}
	return dropped
}

// Stats returns a snapshot.
func (c *Cache) Stats() Stats {
	var sum Stats
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		sum.Entries += s.index.used
		sum.Bytes += s.bytes()
		sum.Capacity += s.limit
		sum.Hits += s.stats.Hits
		sum.Misses += s.stats.Misses
		sum.Evicted += s.stats.Evicted
		s.mu.Unlock()
	}
	return sum
}
