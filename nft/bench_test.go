package nft_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

func benchTable(b *testing.B, mode nft.Mode, f func(*nft.Table)) {
	netnstest.Require(b)
	netnstest.Do(b, netnstest.New(b), func() {
		table, err := nft.Open(context.Background(), nft.Options{Mode: mode})
		if err != nil {
			b.Error(err)
			return
		}
		defer table.Close()
		r := gateway()
		r.SetSize = 16 << 20
		if _, err := table.Set(context.Background(), r); err != nil {
			b.Error(err)
			return
		}
		if err := nft.Filled(table); err != nil {
			b.Error(err)
		}
		// Not on the thread that is bound to the namespace: waking that one
		// costs more than the mark.
		done := make(chan struct{})
		go func() {
			defer close(done)
			f(table)
		}()
		<-done
	})
}

func nth(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n*2654435761)))
}

func BenchmarkMark(b *testing.B) {
	for _, m := range []struct {
		name string
		mode nft.Mode
	}{{"owned", nft.Owned}, {"shared", nft.Shared}} {
		b.Run("alone/"+m.name, func(b *testing.B) {
			benchTable(b, m.mode, func(table *nft.Table) {
				marks := make([]routing.Mark, 1)
				n := uint32(0)
				b.ReportAllocs()
				for b.Loop() {
					n++
					marks[0] = routing.Mark{Addr: nth(n), Path: "wg0", Life: time.Hour}
					if _, err := table.Marker().Mark(context.Background(), 0, marks); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
		b.Run("64 in flight/"+m.name, func(b *testing.B) {
			benchTable(b, m.mode, func(table *nft.Table) {
				var next atomic.Uint32
				var wg sync.WaitGroup
				b.ResetTimer()
				for range 64 {
					wg.Go(func() {
						marks := make([]routing.Mark, 1)
						for {
							n := next.Add(1)
							if n > uint32(b.N) {
								return
							}
							marks[0] = routing.Mark{Addr: nth(n), Path: "wg0", Life: time.Hour}
							if _, err := table.Marker().Mark(context.Background(), 0, marks); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		})
		b.Run("known/"+m.name, func(b *testing.B) {
			benchTable(b, m.mode, func(table *nft.Table) {
				marks := []routing.Mark{{Addr: nth(1), Path: "wg0", Life: time.Hour}}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := table.Marker().Mark(context.Background(), 0, marks); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// homePrefixes are the real ones where they lie beside the checkout, else as
// many made ones.
func homePrefixes(b testing.TB) []netip.Prefix {
	var out []netip.Prefix
	for _, name := range []string{"cn4.txt", "cn6.txt"} {
		f, err := os.Open(filepath.Join("..", "..", "shared", "data", "own", name))
		if err != nil {
			continue
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if p, err := netip.ParsePrefix(s.Text()); err == nil {
				out = append(out, p)
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	for i := range uint32(8600) {
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 1<<24+i<<12))), 21))
	}
	for i := range uint16(2000) {
		a := [16]byte{0x24}
		binary.BigEndian.PutUint16(a[2:], i*3)
		out = append(out, netip.PrefixFrom(netip.AddrFrom16(a), 32))
	}
	return out
}

func BenchmarkSet(b *testing.B) {
	big := gateway()
	big.Addresses.Home = homePrefixes(b)
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			_ = big.String()
		}
	})
	bench := func(name string, each func(*nft.Table) error) {
		b.Run(name, func(b *testing.B) {
			benchTable(b, nft.Owned, func(table *nft.Table) {
				for b.Loop() {
					if err := each(table); err != nil {
						b.Error(err)
						return
					}
				}
				b.ReportMetric(float64(len(big.Addresses.Home)), "prefixes")
			})
		})
	}
	ctx := context.Background()
	bench("replace", func(table *nft.Table) error {
		b.StopTimer()
		defer b.StartTimer()
		if _, err := table.Set(ctx, gateway()); err != nil {
			return err
		}
		b.StartTimer()
		_, err := table.Set(ctx, big)
		b.StopTimer()
		return err
	})
	bench("equal", func(table *nft.Table) error {
		_, err := table.Set(ctx, big)
		return err
	})
}
