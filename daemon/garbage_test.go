package daemon

import (
	"context"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An empty cache leaves the collector as it is; a full one may not double
// (SECURITY R-23).
func TestGarbageDoesNotDoubleTheCache(t *testing.T) {
	if p := gcPercent(0); p != 100 {
		t.Errorf("with an empty cache: %d %%", p)
	}
	for _, mib := range []int{4, 16, 64, 1024} {
		cached := mib << 20
		most := besides + cached + (besides+cached)/100*gcPercent(cached)
		if got := float64(most-2*besides) / float64(cached); got > 1.3 || got < 1.2 {
			t.Errorf("%d MiB of cache may cost %.2f times that", mib, got)
		}
	}
}

func TestCollectorFollowsTheCache(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	is := func() int { p := debug.SetGCPercent(100); debug.SetGCPercent(p); return p }
	synctest.Test(t, func(t *testing.T) {
		var cached atomic.Int64
		cached.Store(64 << 20)
		ctx, cancel := context.WithCancel(t.Context())
		go followCache(ctx, func() int { return int(cached.Load()) })
		pass := func() { <-time.After(gcEvery + time.Second); synctest.Wait() }
		if pass(); is() != gcPercent(64<<20) {
			t.Errorf("with a full cache: %d %%", is())
		}
		cached.Store(0)
		if pass(); is() != 100 {
			t.Errorf("with an empty one: %d %%", is())
		}
		debug.SetGCPercent(-1)
		if pass(); is() != -1 {
			t.Errorf("while a config is loaded: %d %%", is())
		}
		cancel()
		synctest.Wait()
	})
}
