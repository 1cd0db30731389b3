package daemon

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/configs"
	"smartdns/geo/list"
	"smartdns/resolver/dnsname"
)

// compileText compiles a config that may name files as DIR/NAME, which are
// written first.
func compileText(t *testing.T, text string, files map[string]string) (*Parts, error) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := configs.Parse(strings.NewReader(strings.ReplaceAll(text, "DIR", dir)), "smartdns.toml")
	if err != nil {
		t.Fatal(err)
	}
	return Compile(c)
}

// gzipped is text as gzip.
func gzipped(text string) string {
	var b strings.Builder
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

func TestEveryFormatOfTheFileIsRead(t *testing.T) {
	for _, f := range configs.ListFormats() {
		if f == configs.ListMMDB {
			continue
		}
		for _, err := range list.Parse(strings.NewReader(""), list.Format(f), list.Options{}) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestListsSayHowTheyAreWritten(t *testing.T) {
	p, err := compileText(t, `
[list.blocked]
file = "DIR/blocked"
[list.cn]
file = "DIR/cn"
format = "dnsmasq"
[decide]
home = "IR"
names = [
  { match = "list:blocked", answer = "block" },
  { match = "list:cn", ask = "domestic" },
  { match = "*", ask = "auto" },
]
[list.iran]
file = "DIR/iran"
[geo]
sources = ["list:iran"]
`, map[string]string{
		"blocked": gzipped("127.0.0.1 localhost\n0.0.0.0 ads.example.com\n"),
		"cn":      "server=/example.com/1.2.3.4\nserver=/www.example.com/#\n",
		"iran":    "2|ripencc|20260214|2|19830613|20260213|+1000\nripencc|IR|ipv4|2.144.0.0|262144|20100101|allocated\nripencc|FR|ipv4|2.0.0.0|1048576|20100101|allocated\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, l := range p.Lists {
		got += fmt.Sprintln(l.Name, l.Kind, l.Format+l.Packing, l.Entries, l.Exceptions, l.Dropped)
	}
	const want = "blocked names hostsgzip 1 0 1\ncn names dnsmasq 2 1 0\niran prefixes apnic 1 0 0\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for name, want := range map[string]string{"ads.example.com.": "list:blocked", "a.example.com.": "list:cn", "www.example.com.": "*", "a.ads.example.com.": "list:cn"} {
		if r, _ := p.Names.Match(dnsname.FQDN(name)); !strings.Contains(r.Text, want) {
			t.Errorf("%s: %s, want %s", name, r.Text, want)
		}
	}
	if v := p.Geo.Lookup(netip.MustParseAddr("2.147.255.255")); v.Region.String() != "home" || v.Line != 2 {
		t.Errorf("a prefix of the home country is %+v", v)
	}
	if v := p.Geo.Lookup(netip.MustParseAddr("2.0.0.1")); v.Region.String() != "abroad" {
		t.Errorf("a prefix of another country is %+v", v)
	}
}
