package daemon

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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
[side.domestic]
servers = ["192.0.2.53"]
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
[side.domestic]
servers = ["192.0.2.53"]
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

func TestExceptionsOfLists(t *testing.T) {
	zone := "@ SOA a. b. 1 2 3 4 5\nads.example.com CNAME .\n*.ads.example.com CNAME .\ngood.ads.example.com CNAME rpz-passthru.\n" +
		"24.0.9.9.9.rpz-ip CNAME .\n32.9.9.9.9.rpz-ip CNAME rpz-passthru.\n"
	p, err := compileText(t, `
[list.gfw]
file = "DIR/gfwlist.txt"
[list.ads]
file = "DIR/zone"
[list.ad-nets]
file = "DIR/zone"
[list.rules]
file = "DIR/rules"
[decide]
names = [
  { match = "list:ads", answer = "block" },
  { match = "list:rules", answer = "nxdomain" },
  { match = "list:gfw", ask = "foreign" },
  { match = "*", ask = "auto" },
]
addresses = [
  { match = "list:ad-nets", via = "direct" },
  { match = "*", via = "direct" },
]
`, map[string]string{
		"gfwlist.txt": "W0F1dG9Qcm94eSAwLjIuOV0KfHxnb29nbGUuY29tCkBAfHxkbC5nb29nbGUuY29tCg==", // ||google.com, @@||dl.google.com
		"zone":        zone,
		"rules":       "[Adblock Plus 2.0]\n||tracker.example^\n@@||ok.tracker.example^\nexample.com##.ad\n||a.example^$third-party\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, l := range p.Lists {
		got += fmt.Sprintln(l.Name, l.Kind, l.Format, l.Entries, l.Exceptions, l.Dropped)
	}
	const want = "gfw names gfwlist 2 1 0\nads names rpz 3 1 2\nad-nets prefixes rpz 2 1 3\nrules names adblock 2 1 2\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for name, want := range map[string]string{
		"www.google.com.": "gfw", "dl.google.com.": "", "x.ads.example.com.": "ads", "good.ads.example.com.": "",
		"a.tracker.example.": "rules", "ok.tracker.example.": "", "a.example.": "",
	} {
		if r, _ := p.Names.Match(dnsname.FQDN(name)); r.By.List != want {
			t.Errorf("%s: %q, want %q", name, r.By.List, want)
		}
	}
	// The exception is cut out for the resolver and the kernel alike.
	prefixes := p.Sets.Lists[0].Prefixes
	if len(prefixes) != 8 || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr("9.9.9.9")) }) {
		t.Errorf("the set is %v", prefixes)
	}
	for a, want := range map[string]string{"9.9.9.8": "ad-nets", "9.9.9.9": ""} {
		addr := netip.MustParseAddr(a)
		if r := p.Addresses.Match(p.Geo.Lookup(addr), addr); r.List != want {
			t.Errorf("%s: %q, want %q", a, r.List, want)
		}
	}
}

func TestListsIncludeFilesBesideThem(t *testing.T) {
	const config = `
[list.foreign]
file = "DIR/foreign"
[decide]
names = [
  { match = "list:foreign", ask = "foreign" },
  { match = "*", ask = "auto" },
]
`
	p, err := compileText(t, config, map[string]string{"foreign": "include:google\ninclude:video @-cn\n", "google": "google.com\n", "video.txt": "video.com\nvideo.cn @cn\n"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"www.google.com.": 1, "video.com.": 2, "video.cn.": 0} {
		if r, _ := p.Names.Match(dnsname.FQDN(name)); r.By.Line != want {
			t.Errorf("%s: %+v, want line %d", name, r.By, want)
		}
	}
	if _, err := compileText(t, config, map[string]string{"foreign": "include:none\n"}); err == nil || !strings.Contains(err.Error(), "including none: ") {
		t.Errorf("a file that is not there: %v", err)
	}
}
