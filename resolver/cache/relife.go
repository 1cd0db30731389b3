package cache

import (
	"encoding/binary"
	"time"
)

// Relife gives each entry that has not expired the life that f says, at most its
// kind's MaxLife, counted like the old one from when it was put: one that is
// over by now leaves a stale entry. It calls f while others wait for the cache:
// f must be quick and must not call the cache.
func (c *Cache) Relife(f func(kind Kind, life time.Duration) time.Duration) (changed int) {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		now := c.now()
		for r := range s.log.records() {
			if r.expires().duration() <= now || s.current(r) < 0 {
				continue
			}
			kind := r.flags.kind()
			if life := stamp(max(0, min(f(kind, r.life.duration()), kind.MaxLife())) / tick); life != r.life {
				r.setLife(life)
				changed++
			}
		}
		s.mu.Unlock()
	}
	if changed > 0 {
		c.changes.Add(1)
	}
	return changed
}

// setLife changes the life of a record in its chunk.
func (r record) setLife(life stamp) {
	binary.BigEndian.PutUint32(r.header[atFlags:], uint32(r.flags)<<24|uint32(life))
}
