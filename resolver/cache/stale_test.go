package cache_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/cache"
)

// A failure lies beside the last answer and does not hide it.
func TestFailureLeavesTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := cache.New(0), []byte("k")
		want := func(kind cache.Kind, ok bool) {
			t.Helper()
			if e, got := c.Get(k); got != ok || ok && e.Kind != kind {
				t.Errorf("Get = %v, %v; want %v, %v", e.Kind, got, kind, ok)
			}
		}
		c.Put(k, cache.Positive, []byte("answer"), time.Minute)
		c.Put(k, cache.Failure, []byte("down"), 5*time.Minute)
		want(cache.Positive, true)
		time.Sleep(time.Minute)
		want(cache.Failure, true)
		if e, ok := c.Stale(k, time.Hour); !ok || string(e.Body) != "answer" || e.Age != time.Minute || e.Left != 0 {
			t.Errorf("Stale = %+v, %v", e, ok)
		}
		time.Sleep(time.Hour - time.Second)
		want(0, false)
		if e, ok := c.Stale(k, time.Hour); !ok || e.Left != time.Second-time.Hour {
			t.Errorf("Stale = %+v, %v", e, ok)
		}
		time.Sleep(time.Second)
		if e, ok := c.Stale(k, time.Hour); ok {
			t.Errorf("after the window: %+v", e)
		}
		// An answer ends the failure.
		c.Put(k, cache.Failure, []byte("down"), time.Minute)
		c.Put(k, cache.Positive, []byte("answer"), 5*time.Second)
		time.Sleep(5 * time.Second)
		want(0, false)
		for _, kind := range []cache.Kind{cache.Bare, cache.Doubt} {
			c.Put(k, kind, []byte("nothing much"), time.Second)
			time.Sleep(time.Second)
			if e, ok := c.Stale(k, time.Hour); ok {
				t.Errorf("%s is given when stale: %+v", kind, e)
			}
		}
	})
}

// An entry is to be refreshed when a tenth of its life is left and it was
// asked for before; once.
func TestRefreshIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := cache.New(0), []byte("k")
		get := func(want bool) {
			t.Helper()
			if e, ok := c.Get(k); !ok || e.Refresh != want {
				t.Errorf("with %s left: refresh %v, %v; want %v", e.Left, e.Refresh, ok, want)
			}
		}
		c.Put(k, cache.Positive, nil, 100*time.Second)
		get(false)
		time.Sleep(90 * time.Second)
		get(false)
		time.Sleep(time.Second)
		get(true)
		get(false)
		// Asked for once, when it was put: the first hit makes it two.
		c.Put(k, cache.Positive, nil, 100*time.Second)
		time.Sleep(95 * time.Second)
		get(true)
		get(false)
		// Nobody asked for a prefetched one.
		c.Prefetched(k, cache.Positive, nil, 100*time.Second)
		time.Sleep(95 * time.Second)
		get(false)
		get(true)
		get(false)
		if e, _ := c.Get(k); !e.Prefetched {
			t.Error("it was prefetched")
		}
		c.Put(k, cache.Failure, nil, 100*time.Second)
		time.Sleep(99 * time.Second)
		get(false) // the failure's
		get(false)
	})
}

func TestDrop(t *testing.T) {
	c := cache.New(0)
	for i := range 1000 {
		c.Put(key(i), cache.Positive, key(i), time.Hour)
		c.Put(key(i), cache.Positive, key(i), time.Hour)
	}
	before := c.Changes()
	n := c.Drop(func(k []byte, e cache.Entry) bool {
		if string(k) != string(e.Body) {
			t.Errorf("%x has the body %x", k, e.Body)
		}
		return k[7]%2 == 0
	})
	if s := c.Stats(); n != 500 || s.Entries != 500 || c.Changes() == before {
		t.Errorf("dropped %d, %d left", n, s.Entries)
	}
	for i := range 1000 {
		if _, ok := c.Get(key(i)); ok != (i%2 == 1) {
			t.Errorf("%d: %v", i, ok)
		}
	}
	if n := c.Drop(func([]byte, cache.Entry) bool { return true }); n != 500 || c.Stats().Bytes != 0 {
		t.Errorf("dropped %d, %+v", n, c.Stats())
	}
}

func TestResize(t *testing.T) {
	c := cache.New(16 << 20)
	for i := range 200_000 {
		c.Put(key(i), cache.Positive, make([]byte, 50), time.Hour)
	}
	for _, size := range []int{8 << 20, cache.MinCapacity, 0, 16 << 20} {
		c.Resize(size)
		if s := c.Stats(); s.Capacity != max(size, cache.MinCapacity) || s.Bytes > s.Capacity {
			t.Errorf("to %d: %+v", size, s)
		}
		for i := range 100_000 {
			c.Put(key(i), cache.Positive, make([]byte, 50), time.Hour)
		}
		if s := c.Stats(); s.Bytes > s.Capacity || s.Entries < 10_000 {
			t.Errorf("at %d: %+v", size, s)
		}
	}
}

// What an entry costs is a figure that PERFORMANCE rests on: 100,000 names with
// an answer of one address.
func TestCostOfAnEntry(t *testing.T) {
	const n, most = 100_000, 96
	c := cache.New(64 << 20)
	for i := range n {
		question := fmt.Appendf(nil, "\x03www\x08n%07d\x03com\x00\x00\x01\x00\x01", i)
		c.Put(cache.AppendKey(nil, "8 octets", question, false, false), cache.Positive, make([]byte, 21), time.Hour)
	}
	if s := c.Stats(); s.Entries != n || s.Bytes > n*most {
		t.Errorf("%d octets for %d entries: %d each, want at most %d", s.Bytes, s.Entries, s.Bytes/n, most)
	}
}
