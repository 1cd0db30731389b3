package geo_test

import (
	"bytes"
	"encoding/csv"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"smartdns/geo"
)

func TestLookup(t *testing.T) {
	b := geo.NewBuilder("CN")
	addText(t, b, "mine", "CN", "# mine\n1.2.0.0/16\n1.2.3.0/24\n1.2.3.0/24\n\n2400:1::-2400:1::2\n10.0.0.0/8\n")
	addText(t, b, "us", "US", "1.2.3.4\n8.0.0.0/8\n2600::/16\n")
	table := b.Table()
	for _, test := range []struct {
		name, addr string
		want       geo.Verdict
	}{
		{"longest prefix of a list", "1.2.3.9", geo.Verdict{Region: geo.Home, List: "mine", Line: 3, Prefix: prefix("1.2.3.0/24")}},
		{"shorter prefix around it", "1.2.4.9", geo.Verdict{Region: geo.Home, List: "mine", Line: 2, Prefix: prefix("1.2.0.0/16")}},
		{"earlier list before longer prefix", "1.2.3.4", geo.Verdict{Region: geo.Home, List: "mine", Line: 3, Prefix: prefix("1.2.3.0/24")}},
		{"part of a range", "2400:1::1", geo.Verdict{Region: geo.Home, List: "mine", Line: 6, Prefix: prefix("2400:1::/127")}},
		{"end of a range", "2400:1::2", geo.Verdict{Region: geo.Home, List: "mine", Line: 6, Prefix: prefix("2400:1::2/128")}},
		{"after a range", "2400:1::3", geo.Verdict{Region: geo.Abroad}},
		{"another country's list", "8.8.8.8", geo.Verdict{Region: geo.Abroad, List: "us", Line: 2, Prefix: prefix("8.0.0.0/8")}},
		{"no list", "9.9.9.9", geo.Verdict{Region: geo.Abroad}},
		{"special before every list", "10.1.2.3", geo.Verdict{Region: geo.Private, List: "private", Prefix: prefix("10.0.0.0/8")}},
		{"bogon", "203.0.113.9", geo.Verdict{Region: geo.Unknown, List: "bogon", Prefix: prefix("203.0.113.0/24")}},
		{"Teredo", "2001::1f0d:5805", geo.Verdict{Region: geo.Unknown, List: "bogon", Prefix: prefix("2001::/32")}},
		{"v4-mapped", "::ffff:1.2.4.9", geo.Verdict{Region: geo.Home, List: "mine", Line: 2, Prefix: prefix("1.2.0.0/16")}},
		{"NAT64", "64:ff9b::1.2.4.9", geo.Verdict{Region: geo.Home, List: "mine", Line: 2, Prefix: prefix("1.2.0.0/16")}},
		{"NAT64 of a private address", "64:ff9b::192.168.1.1", geo.Verdict{Region: geo.Private, List: "private", Prefix: prefix("192.168.0.0/16")}},
		{"6to4", "2002:102:409:1::1", geo.Verdict{Region: geo.Home, List: "mine", Line: 2, Prefix: prefix("1.2.0.0/16")}},
		{"6to4 from abroad", "2002:808:808::1", geo.Verdict{Region: geo.Abroad, List: "us", Line: 2, Prefix: prefix("8.0.0.0/8")}},
		{"zone", "fe80::1%eth0", geo.Verdict{Region: geo.Private, List: "private", Prefix: prefix("fe80::/10")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := table.Lookup(addr(test.addr)); got != test.want {
				t.Errorf("Lookup(%s)\n got %+v\nwant %+v", test.addr, got, test.want)
			}
		})
	}
	if got := table.Lookup(netip.Addr{}); got != (geo.Verdict{}) {
		t.Errorf("Lookup of no address = %+v", got)
	}
}

func TestClaimsComeBeforeSources(t *testing.T) {
	b := geo.NewBuilder("CN")
	claim := func(p string, r geo.Region, list string, line int) {
		b.AddClaim(geo.Claim{Prefix: prefix(p), Region: r, List: list, Line: line})
	}
	claim("1.2.0.0/16", geo.Abroad, "smartdns.toml", 7)
	claim("1.2.3.0/24", geo.Home, "hongkong", 2)
	claim("1.2.3.0/24", geo.Abroad, "smartdns.toml", 8) // too late
	claim("10.0.0.0/8", geo.Home, "smartdns.toml", 9)
	addText(t, b, "mine", "CN", "1.2.3.4\n1.3.0.0/16\n")
	claim("9.0.0.0/8", geo.Home, "mine", 3) // a list that is a source, too
	table := b.Table()
	for addrText, want := range map[string]geo.Verdict{
		"1.2.9.9":  {Region: geo.Abroad, List: "smartdns.toml", Line: 7, Prefix: prefix("1.2.0.0/16")},
		"1.2.3.4":  {Region: geo.Home, List: "hongkong", Line: 2, Prefix: prefix("1.2.3.0/24")},
		"1.3.0.1":  {Region: geo.Home, List: "mine", Line: 2, Prefix: prefix("1.3.0.0/16")},
		"9.9.9.9":  {Region: geo.Home, List: "mine", Line: 3, Prefix: prefix("9.0.0.0/8")},
		"10.0.0.1": {Region: geo.Private, List: "private", Prefix: prefix("10.0.0.0/8")},
		"8.8.8.8":  {Region: geo.Abroad},
	} {
		if got := table.Lookup(addr(addrText)); got != want {
			t.Errorf("Lookup(%s)\n got %+v\nwant %+v", addrText, got, want)
		}
	}
	b = geo.NewBuilder("CN")
	claim("1.2.0.0/16", geo.Home, "smartdns.toml", 7)
	if got := b.Table().Lookup(addr("8.8.8.8")); got != (geo.Verdict{}) {
		t.Errorf("a claim makes the rest of the world %+v", got)
	}
}

func TestLookupWithoutCompleteSourceIsUnknown(t *testing.T) {
	b := geo.NewBuilder("CN")
	addText(t, b, "us", "US", "8.0.0.0/8\n")
	table := b.Table()
	if got := table.Lookup(addr("9.9.9.9")); got != (geo.Verdict{}) {
		t.Errorf("got %+v, want Unknown without evidence", got)
	}
	if got := table.Lookup(addr("8.8.8.8")).Region; got != geo.Abroad {
		t.Errorf("got %v, want abroad", got)
	}
}

func TestEmbeddedAwayFromHome(t *testing.T) {
	b := geo.NewBuilder("DE")
	if err := b.AddEmbedded(); err != nil {
		t.Fatal(err)
	}
	table := b.Table()
	if got := table.Lookup(addr("223.5.5.5")); got.Region != geo.Abroad || got.List != geo.Embedded {
		t.Errorf("a Chinese address is %+v for a German home", got)
	}
	if got := table.Lookup(addr("8.8.8.8")).Region; got != geo.Unknown {
		t.Errorf("an address of no list is %v, want unknown", got)
	}
}

func TestAddPrefixesOfNothing(t *testing.T) {
	b := geo.NewBuilder("CN")
	for name, text := range map[string]string{
		"empty":     "",
		"comments":  "# nothing\n",
		"catch-all": "0.0.0.0/0\n::/0\n",
		"HTML":      "<html><body>Moved</body></html>\n",
	} {
		err := b.AddPrefixes(name, "CN", lines(text))
		if err == nil || !strings.Contains(err.Error(), "list "+name) {
			t.Errorf("%s: error %v, want one that names the list", name, err)
		}
	}
	if got := b.Table().Lookup(addr("9.9.9.9")); got != (geo.Verdict{}) {
		t.Errorf("a failed source left %+v behind", got)
	}
}

// TestIPCases holds the embedded table to the cases that were measured when it
// was made.
func TestIPCases(t *testing.T) {
	in := csv.NewReader(bytes.NewReader(readFile(t, sharedData(t, "own/ip-cases.csv"))))
	in.Comment = '#'
	rows, err := in.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := slices.Index(rows[0], "own_table")
	table := embeddedTable(t)
	for _, row := range rows[1:] {
		v := table.Lookup(addr(row[0]))
		if home := row[column] == "1"; home != (v.Region == geo.Home) {
			t.Errorf("%s (%s): %+v, want home %v", row[0], row[len(row)-1], v, home)
		}
	}
	t.Logf("%d cases", len(rows)-1)
}

func TestEmbeddedVerdictCitesItsLine(t *testing.T) {
	text := strings.Split(string(readFile(t, "data/cn.txt")), "\n")
	table := embeddedTable(t)
	for _, s := range []string{"223.5.5.5", "114.114.114.114", "2400:3200::1", "1.0.1.0", "240e::"} {
		v := table.Lookup(addr(s))
		if v.List != geo.Embedded || v.Line < 1 || text[v.Line-1] != v.Prefix.String() || !v.Prefix.Contains(addr(s)) {
			t.Errorf("%s: verdict %+v does not cite its line", s, v)
		}
	}
}

func TestPrefixesAreMinimalAndSorted(t *testing.T) {
	b := geo.NewBuilder("CN")
	addText(t, b, "mine", "CN", "1.2.3.0/25\n1.2.3.128/25\n1.2.2.0/24\n9.9.9.9\n192.168.0.0/16\n2400::/32\n2400:1::/32\n2002::/16\n")
	v4, v6 := b.Table().Home()
	want4 := []netip.Prefix{prefix("1.2.2.0/23"), prefix("9.9.9.9/32")}
	want6 := []netip.Prefix{
		prefix("64:ff9b::102:200/119"), prefix("64:ff9b::909:909/128"),
		prefix("2002:102:200::/39"), prefix("2002:909:909::/48"),
		prefix("2400::/31"),
	}
	if !slices.Equal(v4, want4) || !slices.Equal(v6, want6) {
		t.Errorf("Home() = %v, %v\nwant %v, %v", v4, v6, want4, want6)
	}
}

func TestPrivatePrefixes(t *testing.T) {
	v4, v6 := embeddedTable(t).Prefixes(geo.Private)
	for _, s := range []string{"10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} {
		if !slices.Contains(v4, prefix(s)) {
			t.Errorf("%s is not private", s)
		}
	}
	for _, s := range []string{"::1/128", "fc00::/7", "fe80::/10", "fec0::/10", "64:ff9b::a00:0/104", "2002:a00::/24"} {
		if !slices.ContainsFunc(v6, func(p netip.Prefix) bool { return p.Overlaps(prefix(s)) && p.Bits() <= prefix(s).Bits() }) {
			t.Errorf("%s is not private in %v", s, v6)
		}
	}
}

func TestEmbeddedHomeIsWhatWasEmbedded(t *testing.T) {
	v4, v6 := embeddedTable(t).Home()
	native := 0
	for _, p := range v6 {
		if !p.Overlaps(prefix("64:ff9b::/96")) && !p.Overlaps(prefix("2002::/16")) {
			native++
		}
	}
	if len(v4) != 5527 || native != 2026 || len(v6) != native+2*len(v4) {
		t.Errorf("home has %d IPv4 and %d IPv6 prefixes, %d of them native; want 5527, 2026 native", len(v4), len(v6), native)
	}
}

func TestMerge(t *testing.T) {
	got := geo.Merge([]netip.Prefix{
		prefix("2001:db8:1::/48"), prefix("10.0.1.0/24"), prefix("10.0.0.0/24"), {}, prefix("10.0.0.7/32"),
		prefix("2001:db8::/48"), prefix("255.255.255.255/32"), prefix("64:ff9b::/96"),
	})
	want := []netip.Prefix{prefix("10.0.0.0/23"), prefix("255.255.255.255/32"), prefix("64:ff9b::/96"), prefix("2001:db8::/47")}
	if !slices.Equal(got, want) {
		t.Errorf("Merge = %v, want %v", got, want)
	}
	all := geo.Merge([]netip.Prefix{prefix("0.0.0.0/1"), prefix("128.0.0.0/1"), prefix("::/0")})
	if !slices.Equal(all, []netip.Prefix{prefix("0.0.0.0/0"), prefix("::/0")}) {
		t.Errorf("Merge of everything = %v", all)
	}
	if got := geo.Merge(nil); len(got) != 0 {
		t.Errorf("Merge of nothing = %v", got)
	}
}

func TestHandleSwaps(t *testing.T) {
	first, second := embeddedTable(t), new(geo.Builder).Table()
	h := geo.NewHandle(first)
	if got := h.Classify(addr("223.5.5.5")).Region; got != geo.Home {
		t.Errorf("before the swap: %v", got)
	}
	if old := h.Swap(second); old != first || h.Table() != second {
		t.Error("Swap did not exchange the tables")
	}
	if got := h.Classify(addr("223.5.5.5")).Region; got != geo.Unknown {
		t.Errorf("after the swap: %v", got)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table := embeddedTable(t)
	for _, s := range []string{"223.5.5.5", "8.8.8.8", "2400:3200::1", "2606:4700::1", "::ffff:223.5.5.5", "64:ff9b::223.5.5.5", "10.0.0.1", "::1"} {
		a := addr(s)
		if n := testing.AllocsPerRun(100, func() { table.Lookup(a) }); n != 0 {
			t.Errorf("Lookup(%s) allocates %v times", s, n)
		}
	}
}
