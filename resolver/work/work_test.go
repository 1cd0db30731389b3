package work_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/work"
)

// A crew never lets work wait for other work, and leaves nobody behind.
func TestCrewRunsAllAtOnceAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c work.Crew
		for range 3 {
			var all sync.WaitGroup
			gate := make(chan struct{})
			for range 200 {
				all.Add(1)
				c.Go(func() { <-gate; all.Done() })
			}
			synctest.Wait()
			close(gate)
			all.Wait()
			synctest.Wait()
		}
		c.Close()
		done := make(chan struct{})
		c.Go(func() { close(done) })
		<-done
	}) // which fails when a goroutine is left
}

func TestCrewKeepsGoroutines(t *testing.T) {
	var c work.Crew
	defer c.Close()
	done := make(chan struct{})
	f := func() { done <- struct{}{} }
	for range 10 { // until one waits
		c.Go(f)
		<-done
		runtime.Gosched()
	}
	if n := testing.AllocsPerRun(1000, func() { c.Go(f); <-done }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestDeadlinesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(context.Background())
		defer cancel()
		d := work.NewDeadlines(parent, 5*time.Second)
		first := d.Context()
		time.Sleep(99 * time.Millisecond)
		if d.Context() != first {
			t.Error("99 ms later, another context")
		}
		time.Sleep(time.Millisecond)
		second := d.Context()
		if second == first {
			t.Error("100 ms later, the same context")
		}
		begun := time.Now()
		<-second.Done()
		if took := time.Since(begun); took != 5*time.Second {
			t.Errorf("ended after %s", took)
		}
		third := d.Context()
		cancel()
		if third.Err() == nil {
			t.Error("outlived its parent")
		}
	})
}

func BenchmarkCrew(b *testing.B) {
	var c work.Crew
	defer c.Close()
	done := make(chan struct{})
	f := func() { done <- struct{}{} }
	b.ReportAllocs()
	for b.Loop() {
		c.Go(f)
		<-done
	}
}
