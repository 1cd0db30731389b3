package configs_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"smartdns/configs"
	"smartdns/routing"
)

// sameConfig compares what two files mean, wherever it stands in them.
var sameConfig = cmp.Options{
	cmpopts.IgnoreTypes(configs.Pos{}),
	cmpopts.IgnoreFields(configs.Config{}, "File"),
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b *regexp.Regexp) bool {
		return a == b || a != nil && b != nil && a.String() == b.String()
	}),
}

func mustParse(t testing.TB, text string) *configs.Config {
	t.Helper()
	cfg, err := configs.Parse(strings.NewReader(text), "/etc/smartdns/smartdns.toml")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestParseTakes(t *testing.T) {
	inputs, err := filepath.Glob("testdata/good/*.toml")
	if err != nil || len(inputs) == 0 {
		t.Fatal(inputs, err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			cfg, err := configs.Load(input)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.File != input {
				t.Errorf("File = %q, want %q", cfg.File, input)
			}
			got := cfg.Text()
			for _, w := range cfg.Warnings() {
				got += "# warning: " + w.String() + "\n"
			}
			golden := strings.TrimSuffix(input, ".toml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			checkRoundTrip(t, cfg)
		})
	}
}

// checkRoundTrip checks that the text of cfg means cfg, and is its own text.
func checkRoundTrip(t *testing.T, cfg *configs.Config) {
	t.Helper()
	again, err := configs.Parse(strings.NewReader(cfg.Text()), cfg.File)
	if err != nil {
		t.Fatalf("%v\n%s", err, cfg.Text())
	}
	if diff := cmp.Diff(cfg, again, sameConfig); diff != "" {
		t.Errorf("Text parses to something else (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(cfg.Text(), again.Text()); diff != "" {
		t.Errorf("Text is not its own text (-want +got)\n%s", diff)
	}
}

func TestDefaultIsAResolverOnLoopback(t *testing.T) {
	cfg := configs.Default()
	want := &configs.Config{
		Listen: configs.Listen{
			DNS:      []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:53")},
			Redirect: true,
			Bypass:   configs.Bypass{Mode: configs.BypassSignal, DoH: []string{configs.DoHEmbedded}},
		},
		Sides: []configs.Side{
			{
				Name: "domestic",
				Servers: []configs.Server{
					{Scheme: "udp", Addr: netip.MustParseAddrPort("223.5.5.5:53"), Text: "223.5.5.5"},
					{Scheme: "udp", Addr: netip.MustParseAddrPort("119.29.29.29:53"), Text: "119.29.29.29"},
				},
				Via: "direct", Choose: configs.ChooseFastest,
			},
			{
				Name: "foreign",
				Servers: []configs.Server{
					{Scheme: "tls", Addr: netip.MustParseAddrPort("1.1.1.1:853"), Text: "tls://1.1.1.1"},
					{Scheme: "tls", Addr: netip.MustParseAddrPort("8.8.8.8:853"), Text: "tls://8.8.8.8"},
				},
				Via: "direct", Choose: configs.ChooseFastest,
			},
		},
		Lists: []configs.List{{Name: "cn-domains", Format: "auto"}},
		Decide: configs.Decide{
			Home:  "CN",
			Auto:  "foreign-first",
			Mixed: "all",
			Names: []configs.NameRule{
				{Index: 0, Match: []configs.NameMatch{{Kind: configs.MatchList, Text: "cn-domains"}}, Ask: "domestic", AAAA: "auto", HTTPS: "auto", Text: `"list:cn-domains"`},
				{Index: 1, Match: []configs.NameMatch{{Kind: configs.MatchAll}}, Ask: "auto", AAAA: "auto", HTTPS: "auto", Text: `"*"`},
			},
			Addresses: []configs.AddressRule{
				{Index: 0, Match: []configs.AddressMatch{{Kind: configs.AddrPrivate}, {Kind: configs.AddrHome}}, Via: "direct", Text: `["private", "home"]`},
				{Index: 1, Match: []configs.AddressMatch{{Kind: configs.AddrAll}}, Via: "direct", Text: `"*"`},
			},
		},
		Geo:     configs.Geo{Sources: []string{"embedded"}},
		DNS64:   configs.DNS64{NAT64: "here"},
		Poison:  configs.Poison{Hold: 400_000_000, Probe: true},
		Cache:   configs.Cache{Stale: 24 * time.Hour, Prefetch: true, MaxTTL: 24 * time.Hour, Save: true},
		Marks:   configs.Marks{OnError: "servfail", Size: 262144},
		Routing: configs.Routing{Mode: configs.ModeMark, Table: "owned", Masquerade: configs.MasqueradeOff},
	}
	if diff := cmp.Diff(want, cfg, sameConfig); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if w := cfg.Warnings(); len(w) > 0 {
		t.Errorf("the defaults warn: %v", w)
	}
	for _, pos := range []configs.Pos{cfg.Sides[0].Pos, cfg.Lists[0].Pos, cfg.Decide.Names[0].Pos, cfg.Decide.Addresses[1].Pos} {
		if pos.String() != "default" {
			t.Errorf("a default is at %q", pos)
		}
	}
	if diff := cmp.Diff(cfg, mustParse(t, ""), sameConfig); diff != "" {
		t.Errorf("an empty file is not the default (-want +got)\n%s", diff)
	}
	checkRoundTrip(t, cfg)
}

// paths returns what is sent over which path.
func paths(cfg *configs.Config) map[string]routing.Path {
	all := make(map[string]routing.Path)
	for _, s := range cfg.Sides {
		all["side "+s.Name] = s.Via
	}
	for _, r := range cfg.Decide.Addresses {
		all["addresses "+r.Text] = r.Via
	}
	return all
}

func TestDefaultWayAbroad(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		abroad     routing.Path
	}{
		{"direct without a tunnel", "", "direct"},
		{"the first tunnel of the file", "[tunnel.wg1]\n[tunnel.wg0]\n", "wg1"},
		{"also of a side that is written without via", "[side.foreign]\nservers = [\"9.9.9.9\"]\n[tunnel.wg0]\n", "wg0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := map[string]routing.Path{
				"side domestic":                 "direct",
				"side foreign":                  tt.abroad,
				`addresses ["private", "home"]`: "direct",
				`addresses "*"`:                 tt.abroad,
			}
			if diff := cmp.Diff(want, paths(mustParse(t, tt.text))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestPositionsAreThoseOfTheFile(t *testing.T) {
	cfg := mustParse(t, `[tunnel.wg0]

[side.foreign]
via = "wg0"

[list.ads]
file = "/etc/smartdns/ads.txt"

[decide]
names = [
  { match = "list:ads",
    answer = "block" },

  { match = "*", ask = "auto" } ]
addresses = [ { match = "*", via = "wg0" } ]
`)
	for want, got := range map[string]configs.Pos{
		"smartdns.toml:1":  cfg.Tunnels[0].Pos,
		"smartdns.toml:3":  cfg.Sides[0].Pos,
		"smartdns.toml:6":  cfg.Lists[0].Pos,
		"smartdns.toml:11": cfg.Decide.Names[0].Pos,
		"smartdns.toml:14": cfg.Decide.Names[1].Pos,
		"smartdns.toml:15": cfg.Decide.Addresses[0].Pos,
		"default":          cfg.Lists[1].Pos,
	} {
		if got.String() != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestCRLFAndByteOrderMarkAreNoMatter(t *testing.T) {
	text := "[tunnel.wg0]\n[side.foreign]\nvia = \"wg0\"\n"
	want := mustParse(t, text)
	got := mustParse(t, "\ufeff"+strings.ReplaceAll(text, "\n", "\r\n"))
	if diff := cmp.Diff(want, got, cmp.Options{sameConfig[1:]}); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

const japan = `[list.jp]
file = "/etc/smartdns/jp.txt"
region = "JP"
[geo]
sources = ["list:jp"]
[side.domestic]
servers = ["192.0.2.53"]
[decide]
home = "JP"
`

func TestWarnsOfNamesOfAnotherCountry(t *testing.T) {
	cfg := mustParse(t, japan+`names = [ { match = "list:cn-domains", ask = "domestic" }, { match = "*", ask = "auto" } ]`)
	want := []string{"smartdns.toml:10: [decide] names[0]: asks domestic for the names of CN, but home is JP: give [list.cn-domains] a file or url, or write names without it"}
	var got []string
	for _, w := range cfg.Warnings() {
		got = append(got, w.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestNamesOfTheProgramAreDomesticInTheirCountryAlone(t *testing.T) {
	for text, want := range map[string]int{
		japan: 1,
		"[list.cn-domains]\nfile = \"/etc/smartdns/jp-names.txt\"\n" + japan: 2,
		"[decide]\nhome = \"cn\"\n": 2,
	} {
		if got := mustParse(t, text).Decide.Names; len(got) != want || got[want-1].Index != want-1 || got[want-1].Match[0].Kind != configs.MatchAll {
			t.Errorf("%s\n%d lines: %+v", text, len(got), got)
		}
	}
}

func TestWarnings(t *testing.T) {
	cfg := mustParse(t, `[tunnel.wg0]
[tunnel.wg1]
[listen]
clients = ["0.0.0.0/0", "::/0", "10.0.0.0/8"]
[side.foreign]
servers = ["8.8.8.8", "tcp://1.1.1.1", "127.0.0.1:5353", "tls://9.9.9.9:53"]
via = "direct"
[side.office]
servers = ["10.0.0.53:853"]
[list.ads]
file = "/etc/smartdns/ads.txt"
[list.forged]
file = "/etc/smartdns/forged.txt"
[poison]
bogus = ["list:forged"]
[decide]
auto = "foreign-only"
names = [
  { match = ["example.com", "keyword:ads"], ask = "foreign" },
  { match = ["full:www.example.com", "example.org"], ask = "domestic" },
  { match = ["keyword:ads", "www.example.net"], answer = "block" },
  { match = "*", ask = "auto" },
]
addresses = [
  { match = ["private", "203.0.113.0/24"], via = "direct" },
  { match = ["203.0.113.7", "private"], via = "wg0" },
  { match = "*", via = "direct" },
]
`)
	want := strings.TrimSpace(`
smartdns.toml: [listen] clients: 0.0.0.0/0 is a large part of the Internet: an open resolver is used in attacks on others
smartdns.toml: [listen] clients: ::/0 is a large part of the Internet: an open resolver is used in attacks on others
smartdns.toml:2: [tunnel.wg1]: no via names it: nothing goes through it
smartdns.toml:5: [side.foreign] servers: 8.8.8.8: asked directly without encryption, so its answers can be forged on the way: write tls:// or a tunnel's name after via
smartdns.toml:5: [side.foreign] servers: tcp://1.1.1.1: asked directly without encryption, so its answers can be forged on the way: write tls:// or a tunnel's name after via
smartdns.toml:5: [side.foreign] servers: tls://9.9.9.9:53: 53 is not the port of tls:// servers, which is 853
smartdns.toml:8: [side.office]: no line of [decide] names asks it
smartdns.toml:8: [side.office] servers: 10.0.0.53:853: 853 is the port of tls:// servers
smartdns.toml:10: [list.ads]: nothing uses it: no line says "list:ads"
smartdns.toml:20: [decide] names[1]: "full:www.example.com" is never reached: names[0] matches it first
smartdns.toml:21: [decide] names[2]: "keyword:ads" is never reached: names[0] matches it first
smartdns.toml:26: [decide] addresses[1]: "203.0.113.7/32" is never reached: addresses[0] matches it first
smartdns.toml:26: [decide] addresses[1]: "private" is never reached: addresses[0] matches it first
`)
	var got []string
	for _, w := range cfg.Warnings() {
		got = append(got, w.String())
	}
	if diff := cmp.Diff(strings.Split(want, "\n"), got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// The servers of a side that are names are found by the side's own servers by
// address, or by default ones that its path leads to; never by another side's.
func TestBootstrapIsTheSidesOwn(t *testing.T) {
	for _, tt := range []struct {
		name, text, side string
		want             []string
	}{
		{"no name", "[side.foreign]\nservers = [\"tls://9.9.9.9\"]\n", "foreign", nil},
		{"its addresses are written", "[side.foreign]\nservers = [{ server = \"tls://dns.google\", addresses = [\"8.8.8.8\"] }]\n", "foreign", nil},
		{"its own", "[side.foreign]\nservers = [\"tls://dns.google\", \"tls://9.9.9.9\"]\n", "foreign", []string{"tls://9.9.9.9"}},
		{"abroad", "[side.foreign]\nservers = [\"tls://dns.google\"]\n", "foreign", []string{"tls://1.1.1.1", "tls://8.8.8.8"}},
		{"at home", "[side.domestic]\nservers = [\"https://dns.alidns.com/dns-query\"]\n", "domestic", []string{"223.5.5.5", "119.29.29.29"}},
		{"written", "[side.domestic]\nservers = [\"https://dns.alidns.com\"]\nbootstrap = [\"tcp://1.12.12.12\"]\n", "domestic", []string{"tcp://1.12.12.12"}},
		{
			"what a proxy carries",
			"[side.office]\nservers = [\"tcp://dns.example\"]\nsocks5 = \"10.0.0.1\"\n[decide]\nnames = [{ match = \"*\", ask = \"office\" }]\n",
			"office", []string{"tls://1.1.1.1", "tls://8.8.8.8"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := mustParse(t, tt.text)
			var got []string
			for _, s := range cfg.Sides {
				if s.Name != tt.side {
					continue
				}
				for _, b := range s.Bootstrap {
					got = append(got, b.Text)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			checkRoundTrip(t, cfg)
		})
	}
}

func TestSideIsTyped(t *testing.T) {
	cfg := mustParse(t, `[side.foreign]
servers = [
  "https://dns.google",
  { server = "tls://dns.quad9.net:8853#quad9.example", addresses = ["9.9.9.9", "2620:fe::9"], pin = "9SLklscvzMYj8f+52lp5ze/hY0CFHyLSPQzSpYYIBm8=" },
]
choose = "race"
socks5 = "al:i:ce@10.0.0.1"
ecs = "client"
[side.domestic]
servers = ["h3://1.12.12.12/x/y#dot.pub", "quic://[2400:3200::1]"]
choose = "order"
ecs = "114.240.0.0/24"
`)
	foreign, domestic := cfg.Sides[0], cfg.Sides[1]
	if s := foreign.Servers[0]; s.Scheme != "https" || s.Host != "dns.google" || s.Path != "/dns-query" || s.Addr.Port() != 443 {
		t.Errorf("%+v", s)
	}
	if s := foreign.Servers[1]; s.ServerName != "quad9.example" || len(s.Known()) != 2 || s.Known()[1].String() != "[2620:fe::9]:8853" || len(s.Pins) != 1 {
		t.Errorf("%+v", s)
	}
	if s := domestic.Servers; s[0].Path != "/x/y" || s[0].ServerName != "dot.pub" || s[1].Addr.String() != "[2400:3200::1]:853" {
		t.Errorf("%+v", s)
	}
	if foreign.Choose != "race" || domestic.Choose != "order" || !foreign.ECS.Client || domestic.ECS.Prefix.String() != "114.240.0.0/24" {
		t.Errorf("%+v %+v", foreign, domestic)
	}
	if p := foreign.SOCKS5; p.Addr.String() != "10.0.0.1:1080" || p.User != "al" || p.Password != "i:ce" {
		t.Errorf("%+v", p)
	}
	cfg.Sides[0].SOCKS5.User, cfg.Sides[0].SOCKS5.Password = "", ""
	checkRoundTrip(t, cfg)
}

// A line can be for a link-local client behind one interface.
func TestLinkLocalClientsOfALine(t *testing.T) {
	line := func(client string) string {
		return "[decide]\nnames = [\n  { match = \"a.example\", answer = \"block\", clients = [\"" + client + "\"] },\n  { match = \"*\", ask = \"auto\" },\n]\n"
	}
	cfg := mustParse(t, line(`fe80::20%br-lan", "192.168.8.20`))
	if c := cfg.Decide.Names[0].Clients; len(c.Zoned) != 1 || c.Zoned[0] != netip.MustParseAddr("fe80::20%br-lan") || len(c.Prefixes) != 1 {
		t.Errorf("%+v", c)
	}
	checkRoundTrip(t, cfg)
	for _, bad := range []string{"fd00::20%br-lan", "192.168.8.20%br-lan", "fe80::20%", "fe80::20%no/interface", `fe80::20%br-lan", "fe80::20%br-lan`} {
		if _, err := configs.Parse(strings.NewReader(line(bad)), "smartdns.toml"); err == nil || !strings.HasPrefix(err.Error(), "smartdns.toml:3: [decide] names[0] clients") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// The line for some clients that is one too many is told by its place.
func TestTooManyLinesForSomeClientsAreLocated(t *testing.T) {
	for n, want := range map[int]string{
		configs.MaxLimited:     "",
		configs.MaxLimited + 3: fmt.Sprintf("smartdns.toml:%d: [decide] names[%d] clients: more than %d lines are for some clients", configs.MaxLimited+4, configs.MaxLimited+1, configs.MaxLimited),
	} {
		text := "[decide]\nnames = [\n  { match = \"x.example\", answer = \"block\" },\n"
		for i := range n {
			text += fmt.Sprintf("  { match = \"x%d.example\", answer = \"block\", clients = [\"192.168.8.%d\"] },\n", i, i+1)
		}
		_, err := configs.Parse(strings.NewReader(text+"  { match = \"*\", ask = \"auto\" },\n]\n"), "smartdns.toml")
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%d lines: %v, want %q", n, err, want)
		}
	}
}

// A password is in no text that a Config or an error gives, and what stands
// for it is not taken for one.
func TestPasswordsAreNotTold(t *testing.T) {
	const file = "[side.foreign]\nservers = [\"tls://8.8.8.8\"]\nsocks5 = \"al:s3cret@10.0.0.1\"\n"
	cfg := mustParse(t, file)
	tables, err := cfg.Tables()
	if err != nil {
		t.Fatal(err)
	}
	if again := mustParse(t, strings.Replace(file, "al:", "socks5://al:", 1)); again.Sides[0].SOCKS5 != cfg.Sides[0].SOCKS5 {
		t.Errorf("with a scheme: %v", again.Sides[0].SOCKS5)
	}
	for what, text := range map[string]string{"Text": cfg.Text(), "Tables": fmt.Sprint(tables), "a print": fmt.Sprintf("%v %+v", cfg.Sides, *cfg)} {
		if strings.Contains(text, "s3cret") || !strings.Contains(text, "al:***@10.0.0.1:1080") {
			t.Errorf("%s:\n%s", what, text)
		}
	}
	if _, err := configs.Parse(strings.NewReader(cfg.Text()), "smartdns.toml"); err == nil || !strings.Contains(err.Error(), "[side.foreign] socks5: *** stands for a password") {
		t.Errorf("the printed text parses with %v", err)
	}
	for _, broken := range []string{
		"socks5 = \"al:s3cret@10.0.0.1:port\"", "socks5 = \"al:s3cret@proxy.example\"", "socks5 = \"s3cret@10.0.0.1\"", "socks5 = \"http://al:s3cret@10.0.0.1\"",
		"socks5 = [\"al:s3cret@10.0.0.1\"]", "socks5 = al:s3cret@10.0.0.1", "socks = \"al:s3cret@10.0.0.1\"", "ecs = \"al:s3cret@10.0.0.1\"",
		"private = \"al:s3cret@10.0.0.1\"", "socks5 = \"al:s3cret@10.0.0.1", "servers = [\"https://al:s3cret@dns.example/dns-query\"]",
		"servers = [\"tls://al:s3cret@8.8.8.8\"]", "servers = [\"s3cret@8.8.8.8:853\"]", "via = \"al:s3cret@10.0.0.1\"", "bootstrap = \"al:s3cret@10.0.0.1\"",
	} {
		key, _, _ := strings.Cut(broken, " ")
		text := strings.Replace(file, "[side.foreign]\n", "[side.foreign]\n"+broken+"\n", 1)
		for line := range strings.Lines(file) {
			if strings.HasPrefix(line, key+" ") {
				text = strings.Replace(text, line, "", 1)
			}
		}
		_, err := configs.Parse(strings.NewReader(text), "smartdns.toml")
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", broken, err)
		}
	}
}
