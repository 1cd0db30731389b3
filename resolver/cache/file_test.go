package cache_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/cache"
)

func all([]byte) bool { return true }

func saved(t testing.TB, c *cache.Cache) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := c.Save(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Entries age while they lie on disk, and those that ended too long ago are
// left out (SECURITY F-26).
func TestFileAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := cache.New(0)
		old.Put([]byte("minute"), cache.Positive, []byte("m"), time.Minute)
		old.Put([]byte("hour"), cache.Negative, []byte("h"), time.Hour)
		old.Prefetched([]byte("day"), cache.Positive, []byte("d"), 24*time.Hour)
		old.Put([]byte("failure"), cache.Failure, []byte("f"), time.Minute)
		old.Put([]byte("doubt"), cache.Doubt, []byte("f"), time.Minute)
		old.Put([]byte("gone"), cache.Positive, []byte("g"), time.Hour)
		old.Drop(func(k []byte, _ cache.Entry) bool { return string(k) == "gone" })
		time.Sleep(30 * time.Second)
		file := saved(t, old)
		time.Sleep(10 * time.Minute)
		c := cache.New(0)
		if n, behind, err := c.Load(bytes.NewReader(file), all); n != 3 || behind || err != nil {
			t.Fatalf("Load: %d, %v, %v", n, behind, err)
		}
		if e, ok := c.Get([]byte("hour")); !ok || e.Kind != cache.Negative || string(e.Body) != "h" || e.Age != 630*time.Second || e.Left != time.Hour-e.Age {
			t.Errorf("hour: %+v, %v", e, ok)
		}
		if e, ok := c.Get([]byte("day")); !ok || !e.Prefetched || e.Age != 630*time.Second {
			t.Errorf("day: %+v, %v", e, ok)
		}
		if _, ok := c.Get([]byte("minute")); ok {
			t.Error("an entry that ended is fresh")
		}
		if e, ok := c.Stale([]byte("minute"), time.Hour); !ok || e.Age != 630*time.Second {
			t.Errorf("minute, stale: %+v, %v", e, ok)
		}
		time.Sleep(24 * time.Hour)
		c = cache.New(0)
		if n, _, err := c.Load(bytes.NewReader(file), all); n != 2 || err != nil {
			t.Errorf("a day later: %d, %v", n, err)
		}
		time.Sleep(10 * 365 * 24 * time.Hour)
		c = cache.New(0)
		if n, _, err := c.Load(bytes.NewReader(file), all); n != 0 || err != nil {
			t.Errorf("after a jump of ten years: %d, %v", n, err)
		}
	})
}

// With a clock from before the file nobody knows how old it is: its entries are
// stale, and end as such (SECURITY F-24).
func TestFileFromTheFuture(t *testing.T) {
	var file []byte
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(365 * 24 * time.Hour)
		old := cache.New(0)
		old.Put([]byte("k"), cache.Positive, []byte("body"), time.Hour)
		file = saved(t, old)
	})
	synctest.Test(t, func(t *testing.T) {
		c := cache.New(0)
		if n, behind, err := c.Load(bytes.NewReader(file), all); n != 1 || !behind || err != nil {
			t.Fatalf("Load: %d, %v, %v", n, behind, err)
		}
		if e, ok := c.Get([]byte("k")); ok {
			t.Errorf("fresh: %+v", e)
		}
		if e, ok := c.Stale([]byte("k"), time.Hour); !ok || e.Left != 0 {
			t.Errorf("stale: %+v, %v", e, ok)
		}
	})
}

func TestFileKeepsWhatIsWanted(t *testing.T) {
	old := cache.New(0)
	for i := range 10_000 {
		old.Put(key(i), cache.Positive, key(i), time.Hour)
	}
	c := cache.New(0)
	n, _, err := c.Load(bytes.NewReader(saved(t, old)), func(k []byte) bool { return k[7]%2 == 0 })
	if n != 5000 || err != nil || c.Stats().Entries != 5000 {
		t.Errorf("Load: %d, %v; %+v", n, err, c.Stats())
	}
}

// A file of a larger cache is evicted down to the cap while it is read.
func TestFileLargerThanTheCap(t *testing.T) {
	old := cache.New(32 << 20)
	for i := range 100_000 {
		old.Put(key(i), cache.Positive, make([]byte, 150), time.Hour)
	}
	c := cache.New(0)
	if _, _, err := c.Load(bytes.NewReader(saved(t, old)), all); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.Bytes > s.Capacity || s.Entries < 3000 {
		t.Errorf("%+v", s)
	}
}

func FuzzLoad(f *testing.F) {
	c := cache.New(0)
	question := []byte("\x03www\x07example\x00\x00\x01\x00\x01")
	for i := range 3 {
		c.Put(cache.AppendKey(nil, fmt.Sprint("side", i), question, i == 1, i == 2), cache.Kind(i&1), make([]byte, 21*i), time.Hour)
	}
	whole := saved(f, c)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append(bytes.Clone(whole[:8]), bytes.Repeat([]byte{0xff}, 40)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := cache.New(0)
		n, _, err := c.Load(bytes.NewReader(data), all)
		if n > len(data)/17 || n < 0 {
			t.Fatalf("%d entries of %d octets, %v", n, len(data), err)
		}
		if s := c.Stats(); s.Entries > n || s.Bytes > s.Capacity {
			t.Fatalf("%d loaded: %+v", n, s)
		}
		c.Drop(func(k []byte, e cache.Entry) bool {
			cache.ParseKey(k)
			if e.Kind != cache.Positive && e.Kind != cache.Negative || e.Age < 0 || e.Left < -cache.MaxStale || e.Age+e.Left > e.Kind.MaxLife() {
				t.Fatalf("%x: %+v", k, e)
			}
			return false
		})
		// What was read can be written and read again.
		again := cache.New(0)
		if m, _, err := again.Load(bytes.NewReader(saved(t, c)), all); err != nil || m > c.Stats().Entries {
			t.Fatalf("again: %d, %v", m, err)
		}
		if err := c.Save(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}
