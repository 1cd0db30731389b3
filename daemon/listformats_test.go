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
		if f == configs.ListMMDB || f == configs.ListGeosite || f == configs.ListGeoIP {
			continue // which refuse a file without content
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

func TestCategoriesOfListFiles(t *testing.T) {
	const config = `
[list.cn-domains]
file = "DIR/dlc.dat"
code = "%s"
[list.iran]
file = "DIR/geoip.dat"
[decide]
home = "IR"
names = [
  { match = "list:cn-domains", ask = "domestic" },
  { match = "*", ask = "auto" },
]
[geo]
sources = ["list:iran"]
`
	files := map[string]string{
		"dlc.dat":   "\n\x0e\n\x02CN\x12\x08\x08\x02\x12\x04a.cn",
		"geoip.dat": "\n\x0e\n\x02US\x12\x08\n\x04\x02\x00\x00\x00\x10\x0e" + "\n\x0e\n\x02IR\x12\x08\n\x04\x02\x90\x00\x00\x10\x0e",
	}
	p, err := compileText(t, fmt.Sprintf(config, "cn"), files)
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := p.Names.Match("www.a.cn."); r.By.List != "cn-domains" {
		t.Errorf("a name of the category: %+v", r)
	}
	// Without a code the home country's is taken, and its prefixes are at home.
	for a, want := range map[string]string{"2.144.0.1": "home", "2.0.0.1": "abroad"} {
		if v := p.Geo.Lookup(netip.MustParseAddr(a)); v.Region.String() != want {
			t.Errorf("%s: %+v, want %s", a, v, want)
		}
	}
	for code, want := range map[string]string{
		"":   `holds 1 category: write code = "NAME" beside file, such as cn`,
		"us": `has no category "us" of its 1 category`,
	} {
		if _, err := compileText(t, fmt.Sprintf(config, code), files); err == nil || !strings.HasPrefix(err.Error(), "smartdns.toml:2: [list.cn-domains] ") || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("code %q: %v", code, err)
		}
	}
	files["dlc.dat"] = "a.cn\n"
	if _, err := compileText(t, fmt.Sprintf(config, "cn"), files); err == nil || !strings.Contains(err.Error(), "it has no categories (format domains), so code means nothing") {
		t.Errorf("a code of a file without categories: %v", err)
	}
}
