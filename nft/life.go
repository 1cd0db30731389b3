package nft

import "time"

// Bounds of the life of a mark. Clients keep an address beyond its TTL: grace
// is for them.
const (
	grace    = 10 * time.Minute
	minLife  = time.Hour
	maxLife  = 24*time.Hour + grace
	rounding = 5 * time.Second // TTLs count whole seconds: so little is not worth a commit
)

// Life returns how long the kernel keeps the address of an answer with that
// TTL: the TTL and 10 minutes, at least 1 h, at most 24 h 10 min. It is the Life
// of a routing.Mark given to a Marker.
func Life(ttl time.Duration) time.Duration { return elementLife(Least(ttl)) }

// Least returns how long a mark has to last from now when an answer with that
// TTL is sent: the TTL and 10 minutes, at most 24 h 10 min. A Marker takes it
// in place of Life, and then knows TTLs below 50 minutes apart: see Mark.
func Least(ttl time.Duration) time.Duration { return min(max(ttl, 0)+grace, maxLife) }

func elementLife(life time.Duration) time.Duration { return min(max(life, minLife), maxLife) }

// enough reports whether a mark with so much left needs no renewal: it lasts
// long enough, and more than half a life. A life of exactly an hour is that of
// every TTL up to 50 minutes, so it says nothing about what is enough.
func enough(left, life time.Duration) bool {
	least := min(life, maxLife)
	if life == minLife {
		least = 0
	}
	return left+rounding >= max(least, elementLife(life)/2)
}
