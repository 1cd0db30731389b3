package nft_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

// BenchmarkLiveMarks measures what one more mark takes where there are many: the
// tables take turns, and the medians are reported, with the ratio to the
// smallest. What is added is taken away again, untimed. The octets are the
// ledger's, for each mark. Wants -benchtime 2000x or more.
func BenchmarkLiveMarks(b *testing.B) {
	netnstest.Require(b)
	type crowd struct {
		live   int
		marker *nft.Marker
		octets float64
		took   []time.Duration
	}
	var crowds []*crowd
	for _, live := range []int{1_000, 10_000, 100_000, 200_000} {
		netnstest.Do(b, netnstest.New(b), func() {
			table, err := nft.Open(context.Background(), nft.Options{Mode: nft.Owned})
			if err != nil {
				b.Error(err)
				return
			}
			b.Cleanup(func() { table.Close() })
			r := gateway()
			r.SetSize = 262_144
			if _, err := table.Set(context.Background(), r); err != nil {
				b.Error(err)
				return
			}
			if err := nft.Filled(table); err != nil {
				b.Error(err)
			}
			c := &crowd{live: live, marker: table.Marker()}
			before := heap()
			fill(b, c.marker, live)
			c.octets = float64(heap()-before) / float64(live)
			crowds = append(crowds, c)
		})
	}
	if b.Failed() {
		return
	}
	marks := make([]routing.Mark, 1)
	next := uint32(1 << 20)
	for b.Loop() {
		next++
		for _, c := range crowds {
			marks[0] = routing.Mark{Addr: nth(next), Path: "wg0", Life: time.Hour}
			begun := time.Now()
			if _, err := c.marker.Mark(context.Background(), 0, marks); err != nil {
				b.Fatal(err)
			}
			c.took = append(c.took, time.Since(begun))
			if had, err := c.marker.Forget(context.Background(), marks[0].Addr, "wg0"); err != nil || !had {
				b.Fatal(had, err)
			}
		}
	}
	var least float64
	for _, c := range crowds {
		slices.Sort(c.took)
		median := float64(c.took[len(c.took)/2])
		if least == 0 {
			least = median
		}
		b.ReportMetric(median/1000, fmt.Sprintf("us/mark@%dk", c.live/1000))
		b.ReportMetric(median/least, fmt.Sprintf("ratio@%dk", c.live/1000))
		b.ReportMetric(c.octets, fmt.Sprintf("B/mark@%dk", c.live/1000))
	}
	b.ReportMetric(0, "ns/op")
}

// fill makes live marks, 64 at a time.
func fill(b *testing.B, m *nft.Marker, live int) {
	b.Helper()
	var next atomic.Uint32
	var all sync.WaitGroup
	begun := time.Now()
	for range 64 {
		all.Go(func() {
			marks := make([]routing.Mark, 1)
			for n := next.Add(1); n <= uint32(live); n = next.Add(1) {
				marks[0] = routing.Mark{Addr: nth(n), Path: "wg0", Life: time.Hour}
				if _, err := m.Mark(context.Background(), 0, marks); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.Logf("%d marks, %.0f a second", live, float64(live)/time.Since(begun).Seconds())
}

// heap is what lives on it.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
