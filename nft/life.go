package nft

import (
	"time"

	"smartdns/routing"
)

// rounding is too little of a life to be worth a commit: TTLs count whole
// seconds.
const rounding = 5 * time.Second

func elementLife(life time.Duration) time.Duration {
	return min(max(life, routing.MinMarkLife), routing.MaxMarkLife)
}

// enough reports whether a mark with so much left needs no renewal: it lasts
// long enough, and more than half a life. The shortest life is that of every
// TTL up to 50 minutes, so it says nothing about what is enough.
func enough(left, life time.Duration) bool {
	least := min(life, routing.MaxMarkLife)
	if life <= routing.MinMarkLife {
		least = 0
	}
	return left+rounding >= max(least, elementLife(life)/2)
}
