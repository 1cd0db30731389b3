package policy_test

import (
	"net/netip"
	"testing"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/routing"
)

func clientsOf(prefixes ...string) (c policy.Clients) {
	for _, p := range prefixes {
		c.Prefixes = append(c.Prefixes, netip.MustParsePrefix(p))
	}
	return c
}

func TestViewsFollowAddressMACAndListener(t *testing.T) {
	tablet, laptop := routing.MAC{2, 1}, routing.MAC{2, 2}
	lines := []policy.Clients{
		clientsOf("192.168.8.0/24"),
		clientsOf("192.168.8.20/32", "fd00:8::/64"),
		{MACs: []routing.MAC{tablet}},
		{MACs: []routing.MAC{tablet, laptop}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	}
	guest := netip.MustParseAddrPort("192.168.9.1:53")
	v, next, err := policy.NewViews(lines, map[netip.AddrPort]string{guest: "foreign"}, 100)
	if err != nil {
		t.Fatal(err)
	}
	if !v.ByMAC() {
		t.Error("no MAC matters")
	}
	ids := map[policy.View]uint16{}
	for _, tt := range []struct {
		at   netip.AddrPort
		addr string
		mac  routing.MAC
		side string
		want policy.Lines
	}{
		{addr: "127.0.0.1"},
		{addr: "192.168.7.20", mac: routing.MAC{2, 3}},
		{addr: "192.168.8.21", want: 0b1},
		{addr: "192.168.8.20", want: 0b11},
		{addr: "fd00:8::20", want: 0b10},
		{addr: "192.168.7.20", mac: tablet, want: 0b1100},
		{addr: "192.168.8.20", mac: tablet, want: 0b1111},
		{addr: "10.1.1.1", want: 0b1000},
		{addr: "10.1.1.1", mac: laptop, want: 0b1000},
		{at: guest, addr: "127.0.0.1", side: "foreign"},
		{at: guest, addr: "192.168.8.20", mac: tablet, side: "foreign", want: 0b1111},
		{at: netip.MustParseAddrPort("127.0.0.1:53"), addr: "127.0.0.1"},
	} {
		got := v.Of(policy.Client{Listener: tt.at, Addr: netip.MustParseAddr(tt.addr), MAC: tt.mac})
		if got.Side != tt.side || got.Lines != tt.want {
			t.Errorf("%+v: side %q, lines %b", tt, got.Side, got.Lines)
		}
		if got.ID < 100 || got.ID >= next {
			t.Errorf("%+v has ID %d, of 100 to %d", tt, got.ID, next)
		}
		what := policy.View{Side: got.Side, Lines: got.Lines}
		for other, id := range ids {
			if other != what && id == got.ID {
				t.Errorf("%+v and %+v share ID %d", other, what, id)
			}
		}
		ids[what] = got.ID
	}
	c := policy.Client{Listener: guest, Addr: netip.MustParseAddr("192.168.8.20"), MAC: tablet}
	if n := testing.AllocsPerRun(100, func() { v.Of(c) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if _, again, err := policy.NewViews(lines, nil, 65530); err != nil || again < 2 || again > 200 {
		t.Errorf("behind the last ID comes %d, %v", again, err)
	}
	if (*policy.Views)(nil).Of(c) != (policy.View{}) {
		t.Error("without views there is more than one")
	}
}

// A link-local client is the one behind the link that a line says; one without a
// link is meant behind each.
func TestLinkLocalClientsAreToldByTheirLink(t *testing.T) {
	lines := []policy.Clients{
		{Zoned: []netip.Addr{netip.MustParseAddr("fe80::20%lan0")}},
		{Prefixes: []netip.Prefix{netip.MustParsePrefix("fe80::20/128")}},
		{Prefixes: []netip.Prefix{netip.MustParsePrefix("fe80::/64")}},
	}
	v, _, err := policy.NewViews(lines, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]policy.Lines{
		"fe80::20%lan0": 0b111, "fe80::20%lan1": 0b110, "fe80::21%lan0": 0b100, "fe80::20": 0b110, "fd00::20": 0,
	} {
		c := policy.Client{Addr: netip.MustParseAddr(addr)}
		if got := v.Of(c).Lines; got != want {
			t.Errorf("%s: lines %b, want %b", addr, got, want)
		}
		if n := testing.AllocsPerRun(100, func() { v.Of(c) }); n != 0 {
			t.Errorf("%s: %v allocations", addr, n)
		}
	}
}

func TestViewsAreBounded(t *testing.T) {
	if _, _, err := policy.NewViews(make([]policy.Clients, 65), nil, 1); err == nil {
		t.Error("65 lines for some clients were taken")
	}
	// 255 sets of addresses, as many of MACs: each pair would be a view.
	var lines []policy.Clients
	for bit := range 8 {
		c := policy.Clients{}
		for j := range 256 {
			if j>>bit&1 == 1 {
				c.Prefixes = append(c.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(j)}), 32))
				c.MACs = append(c.MACs, routing.MAC{2, byte(j)})
			}
		}
		lines = append(lines, c)
	}
	if _, _, err := policy.NewViews(lines, nil, 1); err == nil {
		t.Error("65,536 views were taken")
	}
}

func TestLinesForSomeClientsComeInTheOrderOfTheFile(t *testing.T) {
	kids, guests := clientsOf("192.168.8.20/32"), clientsOf("192.168.9.0/24")
	entry := func(names ...string) (all []policy.Entry) {
		for _, n := range names {
			if n == "*" {
				all = append(all, policy.Entry{Kind: policy.All})
			} else {
				all = append(all, suffix(t, n))
			}
		}
		return all
	}
	names, err := policy.NewNames(rules(
		policy.NameRule{Rule: policy.Rule{Text: "kids games"}, Entries: entry("games.example"), Clients: kids},
		policy.NameRule{Rule: policy.Rule{Text: "games", Via: "wg0"}, Entries: entry("games.example")},
		policy.NameRule{Rule: policy.Rule{Text: "kids late"}, Entries: entry("www.games.example", "news.example"), Clients: kids},
		policy.NameRule{Rule: policy.Rule{Text: "guests all"}, Entries: entry("*"), Clients: guests},
		policy.NameRule{Rule: policy.Rule{Text: "all"}, Entries: entry("*")},
	))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		lines policy.Lines
		want  string
		via   routing.Path
	}{
		{"www.games.example.", 0, "games", "wg0"},
		{"www.games.example.", 0b1, "kids games", "wg0"},
		{"www.games.example.", 0b10, "games", "wg0"},
		{"news.example.", 0b10, "kids late", ""},
		{"news.example.", 0b110, "kids late", ""},
		{"news.example.", 0b100, "guests all", ""},
		{"other.example.", 0b011, "all", ""},
		{"other.example.", 0, "all", ""},
	} {
		r, ok := names.MatchFor(dnsname.FQDN(tt.name), tt.lines)
		if !ok || r.Text != tt.want || r.Via != tt.via {
			t.Errorf("%s for lines %b: %q via %q, want %q via %q", tt.name, tt.lines, r.Text, r.Via, tt.want, tt.via)
		}
	}
}
