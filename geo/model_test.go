package geo_test

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go4.org/netipx"

	"smartdns/geo"
	"smartdns/geo/list"
)

func lines(text string) iter.Seq2[list.Line, error] { return list.Prefixes(strings.NewReader(text)) }

// model is a Table as slow and plain as it can be.
type model struct{ lists []modelList }

type modelList struct {
	name     string
	region   geo.Region
	prefixes []netip.Prefix // line by line
}

func (m model) lookup(a netip.Addr) geo.Verdict {
	a = a.Unmap()
	for _, carrier := range []struct {
		prefix netip.Prefix
		at     int
	}{{prefix("64:ff9b::/96"), 12}, {prefix("2002::/16"), 2}} {
		if carrier.prefix.Contains(a) {
			b := a.As16()
			a = netip.AddrFrom4([4]byte(b[carrier.at : carrier.at+4]))
		}
	}
	if kind, p := modelSpecial(a); kind != geo.NotSpecial {
		region := map[geo.SpecialKind]geo.Region{geo.SpecialPrivate: geo.Private, geo.SpecialBogon: geo.Unknown}[kind]
		return geo.Verdict{Region: region, List: kind.String(), Prefix: p}
	}
	for _, l := range m.lists {
		best := geo.Verdict{}
		for i, p := range l.prefixes {
			if p.Contains(a) && (!best.Prefix.IsValid() || p.Bits() > best.Prefix.Bits()) {
				best = geo.Verdict{Region: l.region, List: l.name, Line: i + 1, Prefix: p}
			}
		}
		if best.Prefix.IsValid() {
			return best
		}
	}
	return geo.Verdict{Region: geo.Abroad}
}

func randomPrefix(r *rand.Rand) netip.Prefix {
	if r.IntN(2) == 0 {
		// A few octets only, so that prefixes overlap and touch.
		a := netip.AddrFrom4([4]byte{byte(1 + r.IntN(12)), byte(r.IntN(4) * 64), byte(r.IntN(256)), byte(r.IntN(256))})
		return netip.PrefixFrom(a, 6+r.IntN(27)).Masked()
	}
	b := [16]byte{0x24, byte(r.IntN(8))}
	if r.IntN(16) == 0 {
		b[0], b[1] = 0, 0x64
	}
	for i := 2; i < 16; i++ {
		b[i] = byte(r.IntN(3)) * 0x7f
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), 10+r.IntN(119)).Masked()
}

// boundaries returns the first and last address of p and their neighbours.
func boundaries(p netip.Prefix) []netip.Addr {
	first, last := p.Masked().Addr(), netipx.PrefixLastIP(p)
	return []netip.Addr{first.Prev(), first, last, last.Next()}
}

func randomAddr(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	n := p.Bits()
	if p.Addr().Is4() {
		n += 96
	}
	for i := n; i < 128; i++ {
		b[i/8] ^= byte(r.IntN(2)) << (7 - i%8)
	}
	if p.Addr().Is4() {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b)
}

func TestLookupAgreesWithModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			m := model{[]modelList{{name: "a", region: geo.Abroad}, {name: "b", region: geo.Home}, {name: "c", region: geo.Abroad}}}
			b := geo.NewBuilder("CN")
			var probes []netip.Addr
			for i := range m.lists {
				l := &m.lists[i]
				for range 200 {
					l.prefixes = append(l.prefixes, randomPrefix(r))
				}
				var text strings.Builder
				for _, p := range l.prefixes {
					fmt.Fprintln(&text, p)
					probes = append(probes, boundaries(p)...)
					for range 4 {
						probes = append(probes, randomAddr(r, p))
					}
				}
				country := "US"
				if l.region == geo.Home {
					country = "CN"
				}
				addText(t, b, l.name, country, text.String())
			}
			for range 2000 {
				probes = append(probes, randomAddr(r, prefix("0.0.0.0/0")), randomAddr(r, prefix("2000::/3")))
			}
			table := b.Table()
			checkAgainst(t, probes, table.Lookup, m.lookup)
			checkPrefixes(t, table, probes)
		})
	}
}

func checkAgainst(t *testing.T, probes []netip.Addr, got, want func(netip.Addr) geo.Verdict) {
	t.Helper()
	for _, a := range probes {
		if !a.IsValid() {
			continue
		}
		for _, a := range append(carriersOf(a), a) {
			if g, w := got(a), want(a); g != w {
				t.Fatalf("Lookup(%s)\n got %+v\nwant %+v", a, g, w)
			}
		}
	}
}

// carriersOf returns the v6 addresses that carry a.
func carriersOf(a netip.Addr) []netip.Addr {
	if !a.Is4() {
		return nil
	}
	b := a.As4()
	return []netip.Addr{
		netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: b[0], 13: b[1], 14: b[2], 15: b[3]}),
		netip.AddrFrom16([16]byte{1: 0x64, 2: 0xff, 3: 0x9b, 12: b[0], 13: b[1], 14: b[2], 15: b[3]}),
		netip.AddrFrom16([16]byte{0x20, 0x02, b[0], b[1], b[2], b[3], 15: 1}),
	}
}

// checkPrefixes holds the prefixes of each region, as the kernel's static sets
// get them, to Lookup.
func checkPrefixes(t *testing.T, table *geo.Table, probes []netip.Addr) {
	t.Helper()
	for _, region := range []geo.Region{geo.Home, geo.Private, geo.Abroad} {
		v4, v6 := table.Prefixes(region)
		if has := table.Has(region); len(v4)+len(v6) > 0 && !has {
			t.Fatalf("Has(%v) is false; %d prefixes are", region, len(v4)+len(v6))
		}
		for _, family := range [][]netip.Prefix{v4, v6} {
			if !slices.IsSortedFunc(family, netip.Prefix.Compare) {
				t.Fatalf("the prefixes of %v are not in order: %v", region, family)
			}
		}
		var set netipx.IPSetBuilder
		for _, p := range append(v4, v6...) {
			set.AddPrefix(p)
			probes = append(probes, boundaries(p)...)
		}
		all, err := set.IPSet()
		if err != nil {
			t.Fatal(err)
		}
		if fewest := len(all.Prefixes()); len(v4)+len(v6) != fewest {
			t.Fatalf("%d prefixes of %v, %d would do", len(v4)+len(v6), region, fewest)
		}
		for _, a := range probes {
			if !a.IsValid() || a.Is4In6() {
				continue
			}
			for _, a := range append(carriersOf(a), a) {
				if in, want := all.Contains(a), table.Lookup(a).Region == region; in != want && !a.Is4In6() {
					t.Fatalf("%s: in the prefixes of %v: %v; Lookup says %+v", a, region, in, table.Lookup(a))
				}
			}
		}
	}
}

func TestEmbeddedPrefixesAgreeWithLookup(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	var probes []netip.Addr
	for range 20_000 {
		probes = append(probes, randomAddr(r, prefix("0.0.0.0/0")), randomAddr(r, prefix("2400::/5")), randomAddr(r, prefix("::/0")))
	}
	checkPrefixes(t, embeddedTable(t), probes)
}

// TestManyStartsInOneBucket has more addresses below one /64 than the index
// can tell apart.
func TestManyStartsInOneBucket(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	var text strings.Builder
	m := model{[]modelList{{name: "hosts", region: geo.Home}}}
	var probes []netip.Addr
	for range 500 {
		p := netip.PrefixFrom(randomAddr(r, prefix("2400:1:2:3::/112")), 128)
		m.lists[0].prefixes = append(m.lists[0].prefixes, p)
		fmt.Fprintln(&text, p)
		probes = append(probes, boundaries(p)...)
	}
	b := geo.NewBuilder("CN")
	addText(t, b, "hosts", "CN", text.String())
	checkAgainst(t, probes, b.Table().Lookup, m.lookup)
}

func FuzzLookupAgreesWithModel(f *testing.F) {
	f.Add("1.2.3.0/24\n1.2.0.0/16\n", "1.2.3.0-1.2.3.7\n2400::/32\n", "1.2.3.4")
	f.Add("::/1\n", "2002:102:304::/48\n64:ff9b::/96\n", "2002:102:304::1")
	f.Add("128.0.0.0/1\n", "255.255.255.255\nffff::/16\n", "255.255.255.255")
	f.Fuzz(func(t *testing.T, home, abroad, s string) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return
		}
		b := geo.NewBuilder("CN")
		m := model{}
		for _, l := range []struct{ name, country, text string }{{"home", "CN", home}, {"abroad", "US", abroad}} {
			if b.AddPrefixes(l.name, l.country, lines(l.text)) != nil {
				return
			}
			region := map[string]geo.Region{"CN": geo.Home, "US": geo.Abroad}[l.country]
			ml := modelList{name: l.name, region: region}
			for line := range lines(l.text) {
				if line.Kind == list.Prefix {
					ml.prefixes = append(ml.prefixes, line.Prefix)
				}
			}
			m.lists = append(m.lists, ml)
		}
		got, want := b.Table().Lookup(a), m.lookup(a.WithZone(""))
		got.Line, want.Line = 0, 0 // the model counts prefixes, not lines
		if got != want {
			t.Fatalf("Lookup(%s)\n got %+v\nwant %+v", a, got, want)
		}
	})
}
