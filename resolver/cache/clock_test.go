package cache

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/wire"
)

// machine has clocks that a test moves.
type machine struct{ wall, monotonic, slept atomic.Int64 }

func (m *machine) clock() *clock {
	return makeClock(func() (wall, monotonic time.Duration) {
		return time.Duration(m.wall.Load()), time.Duration(m.monotonic.Load())
	}, func() time.Duration { return time.Duration(m.slept.Load()) })
}

func (m *machine) pass(d time.Duration) {
	m.wall.Add(int64(d))
	m.monotonic.Add(int64(d))
}

func (m *machine) suspend(d time.Duration) {
	m.slept.Add(int64(d)) // whoever sees the other sees this
	m.wall.Add(int64(d))
}

// (SECURITY F-24, F-25)
func TestTheClockCountsSleepAndNoStepsOfTheWallClock(t *testing.T) {
	var m machine
	m.slept.Store(int64(1000 * time.Hour)) // before us
	c := m.clock()
	for _, step := range []struct {
		what string
		do   func()
		want time.Duration
	}{
		{"nothing", func() {}, 0},
		{"a minute", func() { m.pass(time.Minute) }, time.Minute},
		{"8 hours of sleep", func() { m.suspend(8 * time.Hour) }, 8*time.Hour + time.Minute},
		{"a step back", func() { m.wall.Add(-int64(10 * 365 * 24 * time.Hour)) }, 8*time.Hour + time.Minute},
		{"a step ahead", func() { m.wall.Add(int64(20 * 365 * 24 * time.Hour)) }, 8*time.Hour + time.Minute},
		{"a minute again", func() { m.pass(time.Minute) }, 8*time.Hour + 2*time.Minute},
		{"slewing", func() {
			for range 1000 {
				m.wall.Add(int64(time.Millisecond))
				c.now()
			}
		}, 8*time.Hour + 2*time.Minute},
		{"sleep, and a step that hides half of it", func() { m.suspend(time.Hour); m.wall.Add(-int64(30 * time.Minute)) }, 9*time.Hour + 2*time.Minute},
	} {
		step.do()
		if got := c.now(); got != step.want {
			t.Errorf("after %s it is %s, want %s", step.what, got, step.want)
		}
	}
}

// Nobody is given as fresh what expired while the machine slept (SECURITY F-25).
func TestNothingIsFreshThatExpiredWhileTheMachineSlept(t *testing.T) {
	var m machine
	c, s := New(0), NewSealed(0, &Generation{})
	c.clock, s.clock = m.clock(), m.clock()
	msg := []byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 'w', 'w', 'w', 2, 'c', 'n', 0, 0, 1, 0, 1}
	q, action, _ := wire.ParseQuery(msg)
	if action != wire.Accept {
		t.Fatal("not accepted")
	}
	reply := append([]byte(nil), msg...)
	reply[2] |= 0x80
	given := func() (fresh, sealed bool) {
		_, fresh = c.Get([]byte("key"))
		_, sealed = s.Answer(nil, q, 0, wire.MaxUDP, s.Now())
		return fresh, sealed
	}
	c.Put([]byte("key"), Positive, []byte("body"), time.Hour)
	if !s.Put(Seal{Msg: wire.AppendOPT(reply, false, -1, ""), Life: time.Hour}) {
		t.Fatal("not sealed")
	}
	m.suspend(30 * time.Minute)
	if fresh, sealed := given(); !fresh || !sealed {
		t.Errorf("after half of its life: fresh %t, sealed %t", fresh, sealed)
	}
	if e, _ := c.Peek([]byte("key")); e.Left != 30*time.Minute {
		t.Errorf("%s left, want 30m", e.Left)
	}
	m.suspend(8 * time.Hour)
	if fresh, sealed := given(); fresh || sealed {
		t.Errorf("after 8 hours of sleep: fresh %t, sealed %t", fresh, sealed)
	}
	if e, ok := c.Stale([]byte("key"), MaxStale); !ok || e.Age != 8*time.Hour+30*time.Minute {
		t.Errorf("stale: %v, %s old", ok, e.Age)
	}
}

// However many look at once, time does not go back.
func TestTheClockNeverGoesBack(t *testing.T) {
	var m machine
	c := m.clock()
	var readers sync.WaitGroup
	var stop atomic.Bool
	for range 4 {
		readers.Go(func() {
			for last := time.Duration(0); !stop.Load(); {
				now := c.now()
				if now < last {
					t.Errorf("%s after %s", now, last)
					return
				}
				last = now
			}
		})
	}
	for range 2000 {
		m.suspend(time.Hour)
		m.pass(time.Millisecond)
		if now, want := c.now(), time.Duration(m.monotonic.Load()+m.slept.Load()); now != want {
			t.Fatalf("it is %s, want %s", now, want)
		}
	}
	stop.Store(true)
	readers.Wait()
}

// The real clock agrees with Go's while the machine is awake, and virtual time
// is virtual.
func TestTheClockOfThisMachine(t *testing.T) {
	begun := time.Now()
	c := newClock()
	first := c.now()
	second := c.now()
	if most := time.Since(begun) + time.Second; first < 0 || second < first || second > most {
		t.Errorf("%s, then %s, of at most %s", first, second, most)
	}
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		time.Sleep(1000 * time.Hour)
		if got := c.now(); got != 1000*time.Hour {
			t.Errorf("after 1000 virtual hours it is %s", got)
		}
	})
	if n := testing.AllocsPerRun(100, func() { c.now() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkClock(b *testing.B) {
	c, start := newClock(), time.Now()
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			c.now()
		}
	})
	b.Run("monotonic", func(b *testing.B) {
		for b.Loop() {
			_ = time.Since(start)
		}
	})
	b.Run("asking the kernel", func(b *testing.B) {
		for b.Loop() {
			machineSlept()
		}
	})
}
