package nft_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"go4.org/netipx"

	"smartdns/nft"
)

// Set asks what long sets hold only where somebody else can have changed it, and
// what it wrote itself only where the kernel does not count.
func TestSetReadsLongSetsOnlyIfOthersCanChangeThem(t *testing.T) {
	const look = 6 // table, sets, chains, rules, flowtable, counters
	for _, mode := range []nft.Mode{nft.Owned, nft.Shared} {
		r, counted := gateway(), true
		inTable(t, mode, r, func(table *nft.Table) {
			counts, err := nft.Counts(table)
			if counted = counts; err != nil || !counts {
				return
			}
			owned := nft.IsOwned(table)
			asked := func(r nft.Ruleset) (steps int, asked uint32) {
				before := nft.Asked(table)
				done, err := table.Set(context.Background(), r)
				if err != nil {
					t.Error(err)
				}
				return len(done), nft.Asked(table) - before
			}
			if steps, n := asked(r); steps != 0 || owned != (n == look) {
				t.Errorf("owned %t: nothing new: %d steps, %d questions", owned, steps, n)
			}
			r.Tunnels[0].MTU = 1380 // rules change, and no set
			if steps, n := asked(r); steps == 0 || owned != (n == 2*look) {
				t.Errorf("owned %t: a new rule: %d steps, %d questions", owned, steps, n)
			}
			r.Addresses.Home = r.Addresses.Home[1:]
			if steps, n := asked(r); steps == 0 || owned != (n == 2*look) {
				t.Errorf("owned %t: other prefixes: %d steps, %d questions", owned, steps, n)
			}
			if steps, _ := asked(r); steps != 0 {
				t.Errorf("owned %t: the same again: %d steps", owned, steps)
			}
			if _, err := table.Delete(context.Background()); err != nil {
				t.Error(err)
			}
			if steps, _ := asked(r); steps == 0 {
				t.Errorf("owned %t: nothing was done after a delete", owned)
			}
			if steps, _ := asked(r); steps != 0 {
				t.Errorf("owned %t: the same once more: %d steps", owned, steps)
			}
		})
		if !counted {
			t.Skip("SKIPPED: this kernel does not count the elements of sets (Linux 6.17 does)")
		}
	}
}

// A Set makes the long sets again only when their prefixes are others.
func TestSetKeepsTheLongSetsItMade(t *testing.T) {
	r := gateway()
	r.Addresses.Home = homePrefixes(t)
	inTable(t, nft.Owned, r, func(table *nft.Table) {
		set := func(what string, want int, r nft.Ruleset, makes bool) {
			before := nft.MadeHome(table)
			steps, err := table.Set(context.Background(), r)
			if err != nil || len(steps) != want {
				t.Errorf("%s: %d steps, %v", what, len(steps), err)
			}
			if made := nft.MadeHome(table) != before; made != makes {
				t.Errorf("%s: the set was made again: %t", what, made)
			}
		}
		set("the same", 0, r, false)
		r.Addresses.Home = slices.Clone(r.Addresses.Home)
		set("a copy", 0, r, true)
		r.Addresses.Home = slices.Clone(r.Addresses.Home)
		r.Addresses.Home[0] = netip.MustParsePrefix("39.0.0.0/24")
		set("another prefix", 2, r, true)
		r.Addresses.Home = r.Addresses.Home[:len(r.Addresses.Home)-1]
		set("fewer", 2, r, true)
	})
}

// The ranges of a static set hold what its prefixes hold, and neither overlap
// nor touch.
func TestStaticRangesAreThePrefixes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var all []netip.Prefix
		var b netipx.IPSetBuilder
		for range random.IntN(40) {
			var a netip.Addr
			if random.IntN(2) == 0 {
				a = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, random.Uint32()&0xc00000ff)))
			} else {
				a = netip.AddrFrom16([16]byte{15: byte(random.Uint32()), 0: byte(random.Uint32() & 0x81)})
			}
			p := netip.PrefixFrom(a, random.IntN(a.BitLen()+1)) // host bits stay
			all = append(all, p)
			b.AddPrefix(p)
		}
		all = append(all, netip.Prefix{})
		want, err := b.IPSet()
		if err != nil {
			t.Fatal(err)
		}
		if got := nft.Ranges(all); !slices.Equal(got, want.Ranges()) {
			t.Fatalf("%v:\n%v, want\n%v", all, got, want.Ranges())
		}
	}
}

func BenchmarkStatic(b *testing.B) {
	all := homePrefixes(b)
	b.ReportAllocs()
	for b.Loop() {
		_ = nft.Ranges(all)
	}
}
