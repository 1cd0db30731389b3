package routing

import "time"

// Bounds of the life of a Mark.
const (
	// MarkGrace is how much longer than the TTL of its answer an address stays
	// marked, at least: clients use addresses after they expired.
	MarkGrace   = 10 * time.Minute
	MinMarkLife = time.Hour
	MaxMarkLife = 24*time.Hour + MarkGrace
)

// MarkLife returns for how long an address is marked that is answered with that
// TTL: the TTL and MarkGrace, at least MinMarkLife, at most MaxMarkLife.
func MarkLife(ttl time.Duration) time.Duration {
	return min(max(ttl+MarkGrace, MinMarkLife), MaxMarkLife)
}
