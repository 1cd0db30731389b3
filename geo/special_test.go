package geo_test

import (
	"net/netip"
	"testing"

	"go4.org/netipx"

	"smartdns/geo"
)

// special is written out once more, and read by the plainest code there is, so
// that a slip in one table shows.
var special = map[geo.SpecialKind][]string{
	geo.SpecialPrivate: {
		"10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
		"::1/128", "64:ff9b:1::/48", "fc00::/7", "fe80::/10", "fec0::/10",
	},
	geo.SpecialBogon: {
		"0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"224.0.0.0/4", "240.0.0.0/4",
		"::/3", "2001::/32", "2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:30::/28", "2001:db8::/32", "3fff::/20",
		"4000::/2", "8000::/1",
	},
}

// modelSpecial expects an address that carries no other.
func modelSpecial(a netip.Addr) (kind geo.SpecialKind, best netip.Prefix) {
	for k, prefixes := range special {
		for _, s := range prefixes {
			if p := prefix(s); p.Contains(a) && (!best.IsValid() || p.Bits() > best.Bits()) {
				kind, best = k, p
			}
		}
	}
	return kind, best
}

func TestSpecialPrefixesFromEndToEnd(t *testing.T) {
	for kind, prefixes := range special {
		for _, s := range prefixes {
			p := prefix(s)
			for _, a := range []netip.Addr{p.Addr(), netipx.PrefixLastIP(p)} {
				for _, a := range append(carriersOf(a), a) {
					got, evidence := geo.Special(a)
					if got != kind || evidence != p {
						t.Errorf("Special(%s) = %v %s, want %v %s", a, got, evidence, kind, p)
					}
				}
			}
			for _, a := range []netip.Addr{p.Addr().Prev(), netipx.PrefixLastIP(p).Next()} {
				if !a.IsValid() || a.Is6() && prefix("2002::/16").Contains(a) {
					continue
				}
				want, _ := modelSpecial(a)
				if got, _ := geo.Special(a); got != want {
					t.Errorf("Special(%s), beside %s, = %v, want %v", a, p, got, want)
				}
			}
		}
	}
}

// TestNeverInsertList has the addresses of the security design that must never
// enter a set, and some that look like them.
func TestNeverInsertList(t *testing.T) {
	for s, want := range map[string]geo.SpecialKind{
		"0.0.0.0": geo.SpecialBogon, "255.255.255.255": geo.SpecialBogon, "239.255.255.250": geo.SpecialBogon, "241.1.2.3": geo.SpecialBogon,
		"100.64.0.1": geo.SpecialPrivate, "100.127.255.255": geo.SpecialPrivate, "100.128.0.0": geo.NotSpecial,
		"::": geo.SpecialBogon, "::1": geo.SpecialPrivate, "::ffff:127.0.0.1": geo.SpecialPrivate, "::ffff:8.8.8.8": geo.NotSpecial,
		"64:ff9b::10.0.0.1": geo.SpecialPrivate, "64:ff9b::8.8.8.8": geo.NotSpecial, "64:ff9b:1::8.8.8.8": geo.SpecialPrivate,
		"100::1": geo.SpecialBogon, "2001::1": geo.SpecialBogon, "2001:db8::1": geo.SpecialBogon, "2001:250::1": geo.NotSpecial,
		"2002:a00:1::1": geo.SpecialPrivate, "2002:808:808::1": geo.NotSpecial, "2002:cb00:7101::": geo.SpecialBogon,
		"fd00::1": geo.SpecialPrivate, "fe80::1": geo.SpecialPrivate, "fec0::1": geo.SpecialPrivate, "ff02::1": geo.SpecialBogon,
		"::8.8.8.8": geo.SpecialBogon, "4000::1": geo.SpecialBogon, "2a00::1": geo.NotSpecial, "192.0.1.1": geo.NotSpecial,
	} {
		if got, _ := geo.Special(addr(s)); got != want {
			t.Errorf("Special(%s) = %v, want %v", s, got, want)
		}
	}
	if got, p := geo.Special(netip.Addr{}); got != geo.SpecialBogon || p.IsValid() {
		t.Errorf("Special of no address = %v %v", got, p)
	}
}
