package daemon

import (
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smartdns/geo"
	"smartdns/resolver"
)

// A verdict cites the list, the line and the day of the data, whoever says so.
func TestVerdictsCiteTheirLines(t *testing.T) {
	p, err := compileText(t, `[list.hk]
file = "DIR/hk"
[geo]
home = ["list:hk", "93.184.216.0/24"]
abroad = ["119.28.0.0/24"]
`, map[string]string{"hk": "# Hong Kong\n119.28.0.0/16\n"})
	if err != nil {
		t.Fatal(err)
	}
	today := p.dates()["hk"]
	if _, err := time.Parse(time.DateOnly, today); err != nil {
		t.Error(err)
	}
	for addr, want := range map[string]string{
		"119.28.9.9":    "home 119.28.0.0/16 in hk:2 (" + today + ")",
		"119.28.0.9":    "abroad 119.28.0.0/24 in smartdns.toml:5",
		"93.184.216.34": "home 93.184.216.0/24 in smartdns.toml:4",
		"1.0.1.1":       "home 1.0.1.0/24 in embedded:6 (" + geo.EmbeddedDate + ")",
		"8.8.8.8":       "abroad no list matches",
		"10.0.0.1":      "private 10.0.0.0/8 in private",
	} {
		v := p.Geo.Lookup(netip.MustParseAddr(addr))
		s := resolver.Source{List: v.List, Line: v.Line}
		if v.Prefix.IsValid() {
			s.Prefix = v.Prefix
		}
		if got := v.Region.String() + " " + because(s, p.dates()); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if got := p.dates().cite(geo.CNDomains, 12); got != "cn-domains:12 ("+geo.CNDomainsDate+")" {
		t.Errorf("a line of the names of the program is %s", got)
	}
}

const elsewhere = `[list.jp]
file = "DIR/jp"
[geo]
sources = ["list:jp", "embedded"]
[side.domestic]
servers = ["192.0.2.53"]
[decide]
home = "JP"
`

func TestAnotherHomeByTheFileOfItsRegistry(t *testing.T) {
	f, err := os.Open(filepath.Join("..", "..", "shared", "data", "apnic", "delegated-apnic-20260213.txt.gz"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("SKIPPED: no shared test data: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	p, err := compileText(t, elsewhere, map[string]string{"jp": string(text)})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]geo.Region{
		"133.11.0.1": geo.Home, "202.12.27.33": geo.Home, "2001:200::1": geo.Home, // Tokyo
		"223.5.5.5": geo.Abroad, "2400:3200::1": geo.Abroad, "8.8.8.8": geo.Abroad,
	} {
		if got := p.Geo.Lookup(netip.MustParseAddr(addr)).Region; got != want {
			t.Errorf("%s is %s, want %s", addr, got, want)
		}
	}
	if home := homeSubnet("JP", p.Geo); p.Geo.Lookup(home.Addr()).Region != geo.Home {
		t.Errorf("names are judged for %s, which is not at home", home)
	}
	if r, _ := p.Names.Match("www.baidu.com."); r.Text != `"*"` {
		t.Errorf("a name of China is decided by %s", r.Text)
	}
}

func TestAHomeThatNoSourceKnows(t *testing.T) {
	_, err := compileText(t, strings.Replace(elsewhere, "file = \"DIR/jp\"", "file = \"DIR/jp\"\nregion = \"KR\"", 1), map[string]string{"jp": "133.11.0.0/16\n"})
	if want := `smartdns.toml: [geo] sources: none of them knows an address in JP: `; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
