package daemon

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

const (
	// gcEvery is how often the collector is told how full the cache is.
	gcEvery = 5 * time.Second
	// besides is about what we hold beside the cache, in octets.
	besides = 16 << 20
)

// gcPercent is how much garbage there may be, in percent of what is in use,
// when the cache holds so many octets: as much as there is beside the cache, and
// three tenths of it. The runtime's own rule, as much as all that is in use,
// would make every octet of the cache cost two. The collector has no more work
// for that: the cache has no pointers that it would have to follow.
func gcPercent(cached int) int {
	return (besides + cached/10*3) / ((besides + cached) / 100)
}

// followCache tells the collector how full the cache is, until ctx ends.
// $GOGC is somebody's will and stands.
func followCache(ctx context.Context, cached func() int) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(gcEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if old := debug.SetGCPercent(gcPercent(cached())); old < 0 {
				debug.SetGCPercent(old) // a config is being loaded
			}
		}
	}
}
