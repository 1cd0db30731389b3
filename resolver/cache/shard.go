package cache

import (
	"hash/maphash"
	"sync"
)

// shard is a part of the cache with a lock of its own.
type shard struct {
	seed maphash.Seed

	mu    sync.Mutex // guards the rest
	limit int
	index index
	log   chunks
	stats Stats // Hits, Misses and Evicted only
}

func (s *shard) reset() {
	s.index = index{}
	s.log = chunks{}
}

func (s *shard) bytes() int { return s.log.bytes() + s.index.bytes() }

// find returns the record of key among the failures, or among all others, and
// its slot: -1 when there is none.
func (s *shard) find(hash uint64, key []byte, failed bool) (record, int) {
	var r record
	i := s.index.find(tagOf(hash), func(p place) bool {
		r = s.log.read(p)
		return r.failed() == failed && string(r.key) == string(key)
	})
	return r, i
}

// current returns the slot that points to r, -1 when r was replaced.
func (s *shard) current(r record) int {
	return s.index.find(tagOf(maphash.Bytes(s.seed, r.key)), func(p place) bool { return p == r.at })
}

// put appends r to the log, after evicting the oldest chunks as far as the cap
// asks.
func (s *shard) put(hash uint64, r record, now stamp) {
	for !s.room(r.size()) {
		s.evict(now)
	}
	if _, i := s.find(hash, r.key, r.failed()); i >= 0 {
		s.index.slots[i] = newSlot(tagOf(hash), s.log.append(r))
		return
	}
	s.index.add(tagOf(hash), s.log.append(r))
}

// room reports whether size octets and a slot can be added. One chunk is kept
// back for what survives an eviction, and the index takes at most half.
func (s *shard) room(size int) bool {
	need := s.index.bytes()
	if s.index.full() {
		if need = s.index.grown(); need > s.limit/2 {
			return false
		}
	}
	need += len(s.log.list)*chunkSize + cap(s.log.list)*chunkHead
	if !s.log.fits(size) {
		need += chunkSize
	}
	return need <= s.limit-chunkSize || len(s.log.list) == 0
}

// evict drops the oldest chunk. Entries of it that were asked for since they
// were written go to the end of the log instead (the CLOCK rule): a flood of
// names that nobody asks for twice does not push out those that are in use.
// At most half a chunk survives, so that every eviction gives room.
func (s *shard) evict(now stamp) {
	oldest, number := s.log.pop()
	room := chunkSize / 2
	for r := range oldest.records(number) {
		i := s.current(r)
		if i < 0 {
			continue // replaced since
		}
		live := r.expires() > now
		if live && r.flags&hot != 0 && r.size() <= room {
			room -= r.size()
			r.flags &^= hot
			s.index.slots[i] = newSlot(s.index.slots[i].tag(), s.log.append(r))
			continue
		}
		s.index.remove(i)
		if live {
			s.stats.Evicted++
		}
	}
	s.log.spare = oldest[:0]
}

// drop forgets the records that f says so of, and returns how many. f is given
// every record that is in force; it must not keep its slices.
func (s *shard) drop(f func(record) bool) (dropped int) {
	for r := range s.log.records() {
		if i := s.current(r); i >= 0 && f(r) {
			s.index.remove(i)
			dropped++
		}
	}
	if s.index.used == 0 {
		s.reset()
	}
	return dropped
}
