package resolver

import (
	"sync"
	"sync/atomic"
	"time"

	"smartdns/resolver/upstream"
	"smartdns/resolver/work"
)

// flights lets equal questions share one exchange with an upstream: whoever
// asks while one is under way waits for its outcome (RFC 5452 section 5).
type flights struct {
	start func(func()) // in a goroutine of its own
	ends  *work.Deadlines
	over  chan struct{} // closed
	mu    sync.Mutex    // guards the maps, and what their flights say it does
	m     map[string]*flight
	zones map[string]int // flights of each zone
	loops loops
}

// flight is one exchange under way.
type flight struct {
	of, zone  string        // its key
	done      chan struct{} // closed when out is there; until then flights.mu guards it, and it is nil while nobody waits
	suspected chan struct{} // closed when the first suspicious reply came in; nil: none ever does
	once      sync.Once     // of closing suspected
	begun     time.Time
	shared    atomic.Bool // somebody else asked the same meanwhile
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

// join returns the flight of key, and reports whether there was one: if not, it
// is the caller's to fill and to land. ok is false when there is none of key, and
// no room for one within limits for zone. Doubtable says that a suspicious reply
// may be waited for.
func (f *flights) join(key []byte, zone string, doubtable bool, limits Limits) (fl *flight, shared, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, ok := f.m[string(key)]; ok {
		fl.awaited()
		fl.shared.Store(true)
		return fl, true, true
	}
	if len(f.m) >= limits.InFlight || f.zones[zone] >= limits.PerZone {
		return nil, false, false
	}
	fl = &flight{of: string(key), zone: zone, begun: time.Now()}
	if doubtable {
		fl.suspected = make(chan struct{})
	}
	if f.m == nil {
		f.m, f.zones = map[string]*flight{}, map[string]int{}
	}
	f.m[fl.of] = fl
	f.zones[zone]++
	return fl, false, true
}

// has reports whether there is a flight of key.
func (f *flights) has(key []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m[string(key)] != nil
}

// land ends a flight that is filled.
func (f *flights) land(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.m, fl.of)
	if f.zones[fl.zone]--; f.zones[fl.zone] == 0 {
		delete(f.zones, fl.zone)
	}
	if fl.done != nil {
		close(fl.done)
	} else {
		fl.done = f.over
	}
}

// await is called before the one who began a flight waits for it.
func (f *flights) await(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.awaited()
}

// awaited is called before anybody waits for a flight, with flights.mu held.
func (f *flight) awaited() {
	if f.done == nil {
		f.done = make(chan struct{})
	}
}

// landed returns a flight that is over.
func (f *flights) landed(out outcome) *flight {
	fl := &flight{done: f.over, out: out}
	if out.suspect.why != "" {
		fl.suspected = fl.done
	}
	return fl
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
