package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
)

// What the file gives names of its own, clients get: records, hosts files as
// they change on disk, IPv6 addresses made for a NAT64. Where such an answer
// has public addresses, the kernel knows their paths before it is given.
func TestAnswersOfOurOwn(t *testing.T) {
	w := newWorld(t)
	hosts := filepath.Join(t.TempDir(), "hosts")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(hosts, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(fmt.Sprintf("192.168.8.77 tv.home.arpa\n%s mirror.example\n", lab.AbroadWebV4))
	w.config = strings.Replace(w.config, "names = [\n", `names = [
  { match = "ads.foreign.test", answer = "null" },
  { match = "www.foreign.test", ask = "foreign", aaaa = "drop", https = "drop" },
`, 1) + `
[records]
lines = ["nas.home.arpa A 192.168.8.2", "*.dev.home.arpa CNAME nas.home.arpa"]
hosts = ["` + hosts + `"]

[dns64]
prefix = "64:ff9b::/96"
`
	w.start()
	w.waitUp()
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"nas.home.arpa", dns.TypeA, "192.168.8.2"},
		{"www.dev.home.arpa", dns.TypeA, "192.168.8.2"},
		{"tv.home.arpa", dns.TypeA, "192.168.8.77"},
		{"mirror.example", dns.TypeA, lab.AbroadWebV4.String()},
		{"ads.foreign.test", dns.TypeAAAA, "::"},
		{"ads.foreign.test", dns.TypeHTTPS, ""},
		{"www.foreign.test", dns.TypeAAAA, ""},
		{"v4.foreign.test", dns.TypeAAAA, "64:ff9b::5db8:da04"},
	} {
		var got []string
		for _, a := range lab.Addresses(w.ask(c.name, lab.Question{Type: c.qtype})) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, dns.TypeToString[c.qtype], got, c.want)
		}
	}
	for _, a := range []netip.Addr{lab.AbroadWebV4, netip.MustParseAddr("93.184.218.4")} {
		if got := w.marked(a); !slices.Equal(got, []string{"wg0"}) {
			t.Errorf("%s is marked for %s", a, got)
		}
	}
	if got := w.marked(netip.MustParseAddr("64:ff9b::5db8:da04")); len(got) != 0 {
		t.Errorf("the address before the NAT64 is marked for %s", got)
	}
	if err := w.carries(w.Client, lab.AbroadWebV4, "tunnel", 0); err != nil {
		t.Error(err)
	}
	for query, want := range map[string]string{
		"tv.home.arpa":          "hosts:1",
		"x.dev.home.arpa":       "[records] *.dev.home.arpa",
		"v4.foreign.test AAAA":  "dns64",
		"www.foreign.test AAAA": `aaaa = "drop"`,
	} {
		if out := w.says(0, append([]string{"query"}, strings.Fields(query)...)...); !strings.Contains(out, want) {
			t.Errorf("smartdns query %s does not say %q:\n%s", query, want, out)
		}
	}

	write("192.168.8.78 tv.home.arpa\nnonsense here\n")
	w.waitFor("the hosts file that changed", 10*time.Second, func() error {
		if got := lab.Addresses(w.ask("tv.home.arpa", lab.Question{})); len(got) != 1 || got[0] != netip.MustParseAddr("192.168.8.78") {
			return fmt.Errorf("the client gets %s", got)
		}
		return nil
	})
	w.waitFor("the line that is none, in status", 5*time.Second, func() error {
		l := w.status().Lists
		if len(l) == 0 || !strings.Contains(l[len(l)-1].FirstDropped, "hosts:2: ") {
			return fmt.Errorf("lists: %+v", l)
		}
		return nil
	})
	w.noLeaks()
}
