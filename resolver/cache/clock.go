package cache

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// clock is what TTLs age by: monotonic through every change of the wall clock,
// and going on while the machine sleeps, which Go's monotonic clock does not. It
// is safe for concurrent use.
//
// What would say so, CLOCK_BOOTTIME, costs a system call. But when the machine
// wakes the kernel puts the wall clock forward by as much: only when that has
// moved against the monotonic one is the kernel asked. Where time is virtual it
// never has.
type clock struct {
	read  func() (wall, monotonic time.Duration)
	sleep func() time.Duration // of the machine, since it was started

	base  time.Duration // sleep when the clock was made
	slept atomic.Int64  // since then
	gap   atomic.Int64  // between wall and monotonic when sleep was looked at last
}

// gapTolerance is how far the wall clock is put right without a look.
const gapTolerance = 100 * time.Millisecond

func newClock() *clock {
	start := time.Now()
	return makeClock(func() (wall, monotonic time.Duration) {
		now := time.Now()
		return time.Duration(now.UnixNano()), now.Sub(start)
	}, machineSlept)
}

func makeClock(read func() (wall, monotonic time.Duration), sleep func() time.Duration) *clock {
	c := &clock{read: read, sleep: sleep, base: sleep()}
	wall, monotonic := read()
	c.gap.Store(int64(wall - monotonic))
	return c
}

// now returns the time since the clock was made.
func (c *clock) now() time.Duration {
	wall, monotonic := c.read()
	if gap := wall - monotonic; (gap - time.Duration(c.gap.Load())).Abs() > gapTolerance {
		c.look(gap)
	}
	return monotonic + time.Duration(c.slept.Load())
}

// look finds out how long the machine slept. Whoever sees the new gap sees that.
func (c *clock) look(gap time.Duration) {
	slept := int64(c.sleep() - c.base)
	for old := c.slept.Load(); slept > old && !c.slept.CompareAndSwap(old, slept); old = c.slept.Load() {
	}
	c.gap.Store(int64(gap))
}

// machineSlept returns how long the machine has slept since it was started, as
// far as the kernel says.
func machineSlept() time.Duration {
	var boot, before, after unix.Timespec
	for range 3 { // what comes between the readings counts as sleep
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &before) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil ||
			unix.ClockGettime(unix.CLOCK_MONOTONIC, &after) != nil {
			return 0
		}
		if after.Nano()-before.Nano() < int64(time.Millisecond) {
			break
		}
	}
	return time.Duration(boot.Nano() - before.Nano())
}
