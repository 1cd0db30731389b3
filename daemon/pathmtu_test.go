package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/wire"
)

// The largest packet that arrives is found to within a block of WireGuard's,
// whatever was found before, in three rounds at most.
func TestTheLargestPacketThatArrives(t *testing.T) {
	for _, hint := range []int{0, 1216, 1408} {
		for limit := leastMTU4; limit <= 1420; limit++ {
			asked := 0
			got, ok := largest(1420, hint, func(sizes ...int) (best int) {
				asked++
				for _, size := range sizes {
					if size <= limit {
						best = max(best, size)
					}
				}
				return best
			})
			if !ok || got > limit || got <= limit-wgBlock && limit < 1420 {
				t.Fatalf("of %d after %d: %d, %t", limit, hint, got, ok)
			}
			if asked > 3 {
				t.Fatalf("of %d after %d: asked %d times", limit, hint, asked)
			}
		}
	}
	if got, ok := largest(1420, 0, func(...int) int { return 0 }); ok {
		t.Errorf("where nobody answers: %d", got)
	}
	lost := 0
	if got, ok := largest(1420, 0, func(sizes ...int) int {
		if lost++; lost < 3 {
			return sizes[0] * (lost - 1)
		}
		return sizes[len(sizes)-1]
	}); !ok || got != 1420 {
		t.Errorf("where one was lost: %d, %t", got, ok)
	}
}

// A way is measured when it is there, and every ten minutes: what is found is
// told once, kept where nobody answers, and raised when larger packets arrive
// again. Another way has to be measured anew.
func TestTheWayIsMeasuredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit, asked atomic.Int32
		limit.Store(1300)
		told := 0
		p := newPathMTU(func(_ context.Context, size int) bool {
			asked.Add(1)
			arrives := size <= int(limit.Load())
			if !arrives {
				time.Sleep(answerTime)
			}
			return arrives
		}, func() { told++ }, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go p.run(ctx)
		way := mtuTo{netip.MustParseAddr("192.0.2.1"), 1420}
		want := func(what string, wait time.Duration, fits, tellings int) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			if got := p.of(way); got != fits || told != tellings {
				t.Errorf("%s: %d fit, told %d times; want %d, %d", what, got, told, fits, tellings)
			}
		}
		want("before anything is known", time.Hour, 0, 0)
		p.want(way)
		want("at first", time.Minute, 1296, 1)
		if p.of(mtuTo{way.endpoint, 1400}) != 0 {
			t.Error("another way has the same measure")
		}
		limit.Store(0)
		want("nobody answers", 2*measureEvery, 1296, 1)
		limit.Store(1500)
		want("larger packets arrive again", 2*measureEvery, 0, 2)
		limit.Store(1200)
		want("they do not", 2*measureEvery, 1200, 3)
		p.want(mtuTo{})
		synctest.Wait()
		before := asked.Load()
		want("the tunnel is down", time.Hour, 1200, 3)
		if asked.Load() != before {
			t.Errorf("%d packets while it was down", asked.Load()-before)
		}
	})
}

// The packets of a probe have the size that they shall have, and are questions.
func TestSizeProbesAreOfTheirSize(t *testing.T) {
	for _, size := range []int{leastMTU4, 1201, 1420} {
		for _, to := range []string{"192.0.2.1", "2001:db8::1"} {
			p := sizeProbe{to: netip.MustParseAddr(to), size: size}
			head := 28
			if p.to.Is6() {
				head = 48
			}
			packet := p.packet()
			if got := len(packet) + head; got != size {
				t.Errorf("to %s: %d bytes, want %d", to, got, size)
			}
			if _, action, _ := wire.ParseQuery(packet); action != wire.Accept {
				t.Errorf("to %s: a server would not take it", to)
			}
		}
	}
}
