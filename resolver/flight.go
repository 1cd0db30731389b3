package resolver

import (
	"sync"
	"time"

	"smartdns/resolver/upstream"
	"smartdns/resolver/work"
)

// flights lets equal questions share one exchange with an upstream: whoever
// asks while one is under way waits for its outcome (RFC 5452 section 5).
type flights struct {
	start func(func()) // in a goroutine of its own
	ends  *work.Deadlines
	mu    sync.Mutex // guards the maps
	m     map[string]*flight
	zones map[string]int // flights of each zone
}

// flight is one exchange under way.
type flight struct {
	done      chan struct{} // closed when out is there
	suspected chan struct{} // closed when the first suspicious reply came in; nil: none ever does
	once      sync.Once     // of closing suspected
	out       outcome
}

// aged is what is known of an answer that the cache had.
type aged struct {
	age        time.Duration
	prefetched bool
	why        string // a stale one is given
}

// outcome is what an exchange came to. Waiters share it and change nothing.
type outcome struct {
	msg  message
	kind string // of cache entry it came from; "" for an exchange
	aged
	suspect doubt
	err     error
	tries   []upstream.Try
	took    time.Duration
	lasts   time.Duration // it may be given so long without looking again
}

// join returns the flight of key, which run fills in a goroutine of its own
// when there is none yet, and reports whether there was one. ok is false when
// there is none of key, and no room for one within limits for zone.
func (f *flights) join(key, zone string, limits Limits, run func(*flight)) (fl *flight, shared, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, ok := f.m[key]; ok {
		return fl, true, true
	}
	if len(f.m) >= limits.InFlight || f.zones[zone] >= limits.PerZone {
		return nil, false, false
	}
	fl = &flight{done: make(chan struct{}), suspected: make(chan struct{})}
	if f.m == nil {
		f.m, f.zones = map[string]*flight{}, map[string]int{}
	}
	f.m[key] = fl
	f.zones[zone]++
	f.start(func() {
		defer close(fl.done)
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.m, key)
			if f.zones[zone]--; f.zones[zone] == 0 {
				delete(f.zones, zone)
			}
		}()
		run(fl)
	})
	return fl, false, true
}

// landed returns a flight that is over.
func landed(out outcome) *flight {
	f := &flight{done: make(chan struct{}), out: out}
	close(f.done)
	if out.suspect.why != "" {
		f.suspected = f.done
	}
	return f
}

// doubted reports whether a reply looked forged so far.
func (f *flight) doubted() bool {
	select {
	case <-f.suspected:
		return true
	default:
		return false
	}
}

func (f *flight) suspect() { f.once.Do(func() { close(f.suspected) }) }
