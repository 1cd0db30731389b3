package cache_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/cache"
)

var full = flag.Bool("full", false, "show the rows of lab/conformance/README.md as large as they are written")

func TestLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New(0)
		for _, k := range []struct {
			about      string
			kind       cache.Kind
			life, want time.Duration
		}{
			{"as asked", cache.Positive, 300 * time.Second, 300 * time.Second},
			{"data at most a day", cache.Positive, 68 * 365 * 24 * time.Hour, 24 * time.Hour},
			{"negative at most an hour", cache.Negative, 3 * time.Hour, time.Hour},
			{"without a SOA at most 5 s", cache.Bare, time.Hour, 5 * time.Second},
			{"failures at most five minutes", cache.Failure, time.Hour, 5 * time.Minute},
		} {
			key := []byte(k.about)
			if !c.Put(key, k.kind, []byte("body"), k.life) {
				t.Errorf("%s: not kept", k.about)
			}
			time.Sleep(k.want - time.Second)
			e, ok := c.Get(key)
			if !ok || e.Left != time.Second || e.Age != k.want-time.Second || e.Kind != k.kind || string(e.Body) != "body" {
				t.Errorf("%s: a second before the end: %+v, %v", k.about, e, ok)
			}
			time.Sleep(time.Second)
			if e, ok := c.Get(key); ok {
				t.Errorf("%s: at the end: %+v", k.about, e)
			}
		}
		if c.Put([]byte("k"), cache.Positive, nil, 0) {
			t.Error("TTL 0 was kept")
		}
		if c.Put([]byte("k"), cache.Positive, make([]byte, cache.MaxBody+1), time.Hour) {
			t.Error("a body above MaxBody was kept")
		}
	})
}

func TestKeys(t *testing.T) {
	question := func(name string) []byte {
		return append(append([]byte{byte(len(name))}, name...), 0, 0, 'A', 0, 'B')
	}
	base := string(cache.AppendKey(nil, "domestic", question("example"), false, false))
	if k := string(cache.AppendKey(nil, "domestic", question("eXaMPLE"), false, false)); k != base {
		t.Errorf("the case of a name makes another key: %q, %q", k, base)
	}
	for about, k := range map[string][]byte{
		"side": cache.AppendKey(nil, "foreign", question("example"), false, false),
		"DO":   cache.AppendKey(nil, "domestic", question("example"), true, false),
		"CD":   cache.AppendKey(nil, "domestic", question("example"), false, true),
		"type": cache.AppendKey(nil, "domestic", append(question("example")[:9], 0, 'a', 0, 'B'), false, false),
	} {
		if string(k) == base {
			t.Errorf("another %s has the same key", about)
		}
	}
}

func TestReplaceAndFlush(t *testing.T) {
	c := cache.New(1 << 20)
	c.Put([]byte("k"), cache.Positive, []byte("old"), time.Hour)
	c.Put([]byte("k"), cache.Doubt, []byte("new"), time.Hour)
	if e, ok := c.Get([]byte("k")); !ok || string(e.Body) != "new" || e.Kind != cache.Doubt {
		t.Errorf("Get = %+v, %v", e, ok)
	}
	c.Flush()
	if _, ok := c.Get([]byte("k")); ok {
		t.Error("there after Flush")
	}
	if s := c.Stats(); s.Entries != 0 || s.Bytes != 0 || s.Hits != 1 || s.Misses != 1 {
		// Flush keeps the counters: they only ever grow.
		t.Errorf("Stats = %+v", s)
	}
}

func key(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

// (SECURITY R-23)
func TestCap(t *testing.T) {
	const capacity = 8 << 20
	for about, size := range map[string]int{"tiny": 0, "usual": 120, "largest": cache.MaxBody} {
		c := cache.New(capacity)
		body := make([]byte, size)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range 2 * capacity / (size + 40) {
			c.Put(key(i), cache.Positive, body, time.Hour)
			if s := c.Stats(); i%1000 == 0 && s.Bytes > s.Capacity {
				t.Fatalf("%s: %d octets held, the cap is %d", about, s.Bytes, s.Capacity)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		s := c.Stats()
		if held := int(after.HeapAlloc) - int(before.HeapAlloc); held > s.Bytes*101/100 || held < s.Bytes*99/100 {
			t.Errorf("%s: the heap grew by %d, and %d are said to be held", about, held, s.Bytes)
		}
		if s.Capacity != capacity || s.Evicted == 0 || s.Bytes < capacity/2 {
			t.Errorf("%s: Stats = %+v", about, s)
		}
	}
}

// A flood of names that do not exist leaves those in use alone: nearly all that
// are asked for are there, and who is not comes back as its answer does
// (SECURITY R-15; a 25th of the row's flood and of its cache, or all of both).
func TestFloodKeepsHotSet(t *testing.T) {
	part := 25
	if *full {
		part = 1
	}
	c := cache.New(50 << 20 / part)
	hot := 50_000 / part
	body := make([]byte, 100)
	for i := range hot {
		c.Put(key(i), cache.Positive, body, time.Hour)
	}
	hits, asked := 0, 0
	for i := range 5_000_000 / part {
		c.Put(key(hot+i), cache.Negative, body, time.Hour)
		if i%2 == 0 {
			asked++
			if _, ok := c.Get(key(i / 2 % hot)); ok {
				hits++
			} else {
				c.Put(key(i/2%hot), cache.Positive, body, time.Hour)
			}
		}
	}
	ratio := float64(hits) / float64(asked)
	t.Logf("%.4f of %d were hits", ratio, asked)
	if ratio < 0.95 {
		t.Errorf("hit ratio %.3f, want at least 0.95", ratio)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := cache.New(1 << 20)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 5000 {
				want := fmt.Sprint(i)
				c.Put(key(i), cache.Positive, []byte(want), time.Hour)
				if e, ok := c.Get(key((i + w) % 5000)); ok && string(e.Body) != fmt.Sprint((i+w)%5000) {
					t.Errorf("another key's body: %q", e.Body)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkGet(b *testing.B) {
	c := cache.New(64 << 20)
	body := make([]byte, 120)
	for i := range 100_000 {
		c.Put(key(i), cache.Positive, body, time.Hour)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Get(key(i % 100_000))
	}
}
