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

// Least returns how long a mark has to last from now when an answer with that
// TTL is sent: the TTL and 10 minutes, at most 24 h 10 min. It is the Life of
// a routing.Mark given to a Marker.
func Least(ttl time.Duration) time.Duration { return min(max(ttl, 0)+grace, maxLife) }

// Life returns how long the kernel keeps the address of an answer with that
// TTL: the TTL and 10 minutes, at least 1 h, at most 24 h 10 min.
func Life(ttl time.Duration) time.Duration { return elementLife(Least(ttl)) }

func elementLife(least time.Duration) time.Duration { return min(max(least, minLife), maxLife) }

// enough reports whether a mark with so much left needs no renewal: it lasts
// long enough, and more than half a life.
func enough(left, least time.Duration) bool {
	return left+rounding >= max(min(least, maxLife), elementLife(least)/2)
}
