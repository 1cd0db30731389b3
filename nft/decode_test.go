package nft_test

import (
	"context"
	"encoding/hex"
	"testing"

	"go4.org/netipx"

	"smartdns/nft"
)

// xtRule is -m conntrack --ctstate INVALID -j DROP of iptables.
const xtRule = "d80001000a0001006d61746368000000c80002000e000100636f6e6e747261636b0000000800020000000003ac0003000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000010000000600000000000000000000000000000000002c0001000c000100636f756e746572001c0002000c00010000000000000000000c0002000000000000000000300001000e000100696d6d6564696174650000001c0002000800010000000000100002000c0002000800010000000001"

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(nft.Expressions())
	f.Add(nft.MarkMessages())
	f.Add(make([]byte, 72))
	if rule, err := hex.DecodeString(xtRule); err == nil {
		f.Add(rule)
	}
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
