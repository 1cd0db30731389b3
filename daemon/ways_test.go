package daemon

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"smartdns/nft"
	"smartdns/routing"
)

// The most specific route says of every address what the first matching line
// does: of random ones, and of the ends of everything that is written.
func TestWaysAreTheFirstMatchingLine(t *testing.T) {
	list := filepath.Join(t.TempDir(), "nets.txt")
	if err := os.WriteFile(list, []byte("1.0.0.0/8\n39.156.66.0/24\n198.18.7.0/24\n2408:8000::/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := compiled(t, gateway+"[list.nets]\nfile = \""+list+`"
[decide]
addresses = [
  { match = "39.156.66.10",       via = "wg0" },
  { match = "39.156.0.0/16",      via = "direct" },
  { match = "list:nets",          via = "wg0" },
  { match = "private",            via = "direct" },
  { match = "198.18.0.0/16",      via = "direct" },
  { match = "home",               via = "direct" },
  { match = "2408::/16",          via = "wg0" },
  { match = "*",                  via = "wg0" },
]
[routing]
mode = "routes"
`, "0.0.0.0/0, ::/0")
	l, err := p.wanted(gatewayFacts(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ways := p.ways(l)
	var probes []netip.Addr
	seen := map[netip.Prefix]bool{}
	for _, w := range ways {
		if seen[w.Dst] || w.Dst != w.Dst.Masked() {
			t.Fatalf("%v is there twice, or not masked", w.Dst)
		}
		seen[w.Dst] = true
		probes = append(probes, w.Dst.Addr(), w.Dst.Addr().Prev(), w.Dst.Addr().Next())
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var b [16]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		probes = append(probes, netip.AddrFrom4([4]byte(b[:])), netip.AddrFrom16(b))
	}
	most := map[netip.Prefix]routing.Path{}
	for _, w := range ways {
		most[w.Dst] = w.Path
	}
	for _, a := range probes {
		// Of these the policy thinks otherwise than the table: no answer has them.
		if slices.ContainsFunc(nft.Private(), func(p netip.Prefix) bool { return a.IsValid() && p.Contains(a) }) {
			continue
		}
		if !a.IsValid() || a.Is4() && a.As4()[0] == 255 || a.IsLoopback() || netip.MustParsePrefix("fec0::/10").Contains(a) {
			continue
		}
		var got routing.Path
		for bits := a.BitLen(); bits >= 0; bits-- {
			prefix, _ := a.Prefix(bits)
			if path, ok := most[prefix]; ok {
				got = path
				break
			}
		}
		if got == "" {
			got = routing.Direct
		}
		onLAN := netip.MustParsePrefix("192.168.8.0/24").Contains(a) || netip.MustParsePrefix("fd00:8::/64").Contains(a)
		want, _ := p.pathOf(p.Geo.Lookup(a), a)
		if onLAN {
			want = routing.Direct
		}
		if got != want {
			t.Fatalf("%s: the routes say %s, the lines %s", a, got, want)
		}
	}
}

// While a tunnel is down whose when_down is direct, its lines lead to the main
// table; with block they stay where nothing else is.
func TestWaysLeadAroundATunnelThatIsDown(t *testing.T) {
	for whenDown, want := range map[string]routing.Path{"block": "wg0", "direct": ""} {
		p := compiled(t, "when_down = \""+whenDown+"\"\n"+gateway+"[routing]\nmode = \"routes\"\n", "0.0.0.0/0")
		l, err := p.wanted(gatewayFacts(), nil)
		if err != nil {
			t.Fatal(err)
		}
		n := l.links["wg0"]
		n.up = false
		l.links["wg0"] = n
		ways := p.ways(l)
		if got := ways[len(ways)-2]; got.Dst != routing.V4.All() || got.Path != want {
			t.Errorf("when_down = %q: %+v, want the path %q", whenDown, got, want)
		}
	}
}
