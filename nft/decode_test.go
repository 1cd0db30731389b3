package nft_test

import (
	"context"
	"testing"

	"go4.org/netipx"

	"smartdns/nft"
)

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(nft.Expressions())
	f.Add(nft.MarkMessages())
	f.Add(make([]byte, 72))
	f.Fuzz(func(t *testing.T, b []byte) { nft.Decode(b) })
}

func TestSetTakesEveryPrefixOfALongList(t *testing.T) {
	r := gateway()
	r.Addresses.Home = homePrefixes(t)
	var b netipx.IPSetBuilder
	for _, p := range r.Addresses.Home {
		b.AddPrefix(p)
	}
	all, err := b.IPSet()
	if err != nil {
		t.Fatal(err)
	}
	inTable(t, nft.Owned, r, func(table *nft.Table) {
		s, err := table.Observe(context.Background())
		if err != nil {
			t.Error(err)
		}
		if got, want := s.Sets["home_4"]+s.Sets["home_6"], len(all.Ranges()); got != want {
			t.Errorf("%d ranges in the kernel, want %d", got, want)
		}
		t.Logf("%d prefixes are %d ranges", len(r.Addresses.Home), len(all.Ranges()))
		if steps := set(t, table, r); len(steps) != 0 {
			t.Errorf("a second Set took %d steps", len(steps))
		}
		r.Addresses.Home = r.Addresses.Home[:len(r.Addresses.Home)-1]
		if steps := set(t, table, r); len(steps) == 0 || len(steps) > 4 {
			t.Errorf("one prefix less took %d steps", len(steps))
		}
	})
}
