package cache

// Resize makes capacity the cap, and evicts the oldest entries down to it.
func (c *Cache) Resize(capacity int) {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		s.limit = max(capacity, MinCapacity) / shards
		// The index never shrinks: one that is too large for the new cap goes
		// with all that it points to.
		if s.index.bytes() > s.limit/2 {
			s.stats.Evicted += uint64(s.index.used)
			s.reset()
		}
		for len(s.log.list) > 0 && s.bytes() > s.limit-chunkSize {
			s.evict(c.stamp())
			s.log.spare = nil
		}
		s.mu.Unlock()
	}
}
