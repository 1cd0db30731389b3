package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"smartdns/geo"
	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// wholeGateway has everything that can be asked of a gateway.
const wholeGateway = `
[listen]
lan    = ["br-lan"]
bypass = "reject"

[decide]
clients = [
  { match = "192.168.8.20",                          via = "direct" },
  { match = ["00:11:22:aa:bb:cc", "192.168.8.0/24"], via = "wg0" },
]

[routing]
masquerade = "both"
flowtable  = true
`

// The plan of a gateway with everything that can be asked of one is a file that
// an admin can read.
func TestPlanOfAWholeGateway(t *testing.T) {
	p := compiled(t, wholeGateway, "0.0.0.0/0, ::/0")
	l, err := p.wanted(gatewayFacts(), nil)
	if err != nil {
		t.Fatal(err)
	}
	l.forwards = opened{true, true}
	r := p.ruleset(l)
	if len(r.Gateway.Offload) != 2 || len(r.Gateway.Bypass.DoH) < 100 {
		t.Errorf("offloads between %v, rejects %d servers", r.Gateway.Offload, len(r.Gateway.Bypass.DoH))
	}
	base := compiled(t, "[listen]\nlan = [\"br-lan\"]\n", "0.0.0.0/0, ::/0")
	got := added(base.ruleset(l).String(), r.String())
	const path = "../testdata/plan/gateway-clients.txt"
	if *updateGolden {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", path, diff)
	}
	r.Gateway.Offload = nil // which kernels may not have
	secondSet(t, r)

	// Nothing is rejected while nobody answers in its place.
	l.listen = nil
	if p.ruleset(l).Gateway.Bypass.Reject {
		t.Error("encrypted DNS is rejected while we do not listen")
	}
}

// added returns the lines of b that a has not, in their order.
func added(a, b string) string {
	has := map[string]bool{}
	for l := range strings.Lines(a) {
		has[l] = true
	}
	var out strings.Builder
	for l := range strings.Lines(b) {
		if !has[l] {
			out.WriteString(strings.TrimPrefix(l, "\t"))
		}
	}
	return out.String()
}

// asks resolves names by the policy of p, whose servers answer everything.
func asks(t *testing.T, p *Parts, facts routing.Facts) func(from, mac, name string, qtype uint16) *resolver.Decision {
	t.Helper()
	r := resolving(t, p, facts)
	return func(from, mac, name string, qtype uint16) *resolver.Decision {
		q := resolver.Ask(dnsname.FQDN(name), qtype, netip.Addr{})
		if from != "" {
			q.Client = netip.MustParseAddr(from)
		}
		q.From = policy.Client{Addr: q.Client}
		if hw, err := net.ParseMAC(mac); err == nil {
			q.From.MAC = routing.MAC(hw)
		}
		return r.Resolve(t.Context(), q)
	}
}

// resolving is a resolver of p whose servers all say the same.
func resolving(t *testing.T, p *Parts, facts routing.Facts) *resolver.Resolver {
	t.Helper()
	views, _, err := p.views(1)
	if err != nil {
		t.Fatal(err)
	}
	pol := p.policy(nil, geo.NewHandle(p.Geo))
	pol.Views = views
	for name, side := range pol.Sides {
		side.Exchanger = &resolvertest.Exchanger{Name: name, OnExchange: answered}
		pol.Sides[name] = side
	}
	return resolver.New(resolver.Config{
		Policy: pol, Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20),
		Paths: resolver.Paths{CanV6: func(path routing.Path) bool { return p.carriesV6(facts, path) }},
	})
}

// A portal does not open what a line of the file sends through a tunnel; what
// no line names, one for every name does, or one sends direct, a login may need.
func TestPortalKnowsNamesOfATunnel(t *testing.T) {
	own := strings.Replace(wholeGateway, "[decide]\n", `[decide]
names = [
  { match = "bank.example.com", ask = "foreign", via = "wg0" },
  { match = "hotel.example.com", ask = "domestic", via = "direct" },
  { match = "mail.example.com", ask = "foreign" },
  { match = "*", ask = "foreign", via = "wg0" },
]
`, 1)
	r := resolving(t, compiled(t, own, "0.0.0.0/0"), gatewayFacts())
	for name, want := range map[string]bool{
		"bank.example.com.": true, "www.bank.example.com.": true, "hotel.example.com.": false, "mail.example.com.": false, "captive.example.net.": false,
	} {
		if path, got := r.Tunnelled(dnsname.FQDN(name), policy.Client{Addr: netip.MustParseAddr("127.0.0.1")}); got != want || got && path != "wg0" {
			t.Errorf("%s: %s, %t", name, path, got)
		}
	}
}

// answered is what every server says: addresses abroad.
func answered(_ context.Context, q upstream.Query) (upstream.Reply, error) {
	asked := new(dns.Msg)
	if err := asked.Unpack(q.Msg); err != nil {
		return upstream.Reply{}, err
	}
	m := new(dns.Msg).SetReply(asked)
	question := asked.Question[0]
	text := map[uint16]string{
		dns.TypeA: "A 93.184.216.34", dns.TypeAAAA: "AAAA 2606:2800::34", dns.TypeHTTPS: "HTTPS 1 . alpn=h2 ipv4hint=93.184.216.34 ipv6hint=2606:2800::34",
	}[question.Qtype]
	if rr, err := dns.NewRR(question.Name + " 300 IN " + text); err == nil && text != "" {
		m.Answer = []dns.RR{rr}
	}
	msg, err := m.Pack()
	return upstream.Reply{Msg: msg}, err
}

// A client's path decides which IPv6 it gets, in addresses and in hints, and no
// answer of its own is marked; the tunnel of this one carries none.
func TestAnswersOfAClientWithAPathOfItsOwn(t *testing.T) {
	const mac = "00:11:22:aa:bb:cc"
	facts := gatewayFacts()
	facts.Defaults = append(facts.Defaults, routing.Default{Family: routing.V6, Dev: "eth0"})
	ask := asks(t, compiled(t, wholeGateway, "0.0.0.0/0"), facts)
	for _, c := range []struct {
		from, mac string
		path      routing.Path
		v6        bool
		rule      int // in clients; -1: none
	}{
		{"192.168.8.20", "", "direct", true, 0},
		{"192.168.8.20", mac, "direct", true, 0}, // the first line wins
		{"192.168.8.21", "", "wg0", false, 1},
		{"10.50.0.1", mac, "wg0", false, 1},
		{"10.50.0.1", "", "wg0", false, -1},
		{"", "", "wg0", false, -1},
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS} {
			d := ask(c.from, c.mac, "www.example.com.", qtype)
			for _, a := range d.Addresses {
				if a.Path != c.path || (a.Dropped == "") != (c.v6 || a.Addr.Is4()) || a.Rule.Client != (c.rule >= 0) || c.rule >= 0 && a.Rule.Index != c.rule {
					t.Errorf("%+v, %s: %+v", c, dns.TypeToString[qtype], a)
				}
				if r := addressRule(d, a, nil); c.rule >= 0 && (r.Where != fmt.Sprintf("clients[%d]", c.rule) || !strings.HasPrefix(r.At, "test.toml:")) {
					t.Errorf("%+v: the rule is shown as %+v", c, r)
				}
			}
			if len(d.Addresses) == 0 {
				t.Errorf("%+v, %s: no address: %+v", c, dns.TypeToString[qtype], d)
			}
		}
	}
}

// Names that keep programs from asking others are answered as [listen] bypass
// says, unless a line names them; those of the others for clients alone.
func TestNamesThatLeadPastUs(t *testing.T) {
	const own = `
[decide]
names = [
  { match = "mask-h2.icloud.com", ask = "foreign" },
  { match = "dns.quad9.net", ask = "foreign" },
  { match = "com", ask = "foreign" },
  { match = "*", ask = "auto" },
]
`
	for mode, want := range map[string]map[string]string{
		"allow":  {"use-application-dns.net.": "NOERROR", "mask.icloud.com.": "NOERROR", "dns.google.": "NOERROR"},
		"signal": {"use-application-dns.net.": "NXDOMAIN", "mask.icloud.com.": "NXDOMAIN", "mask-h2.icloud.com.": "NOERROR", "icloud.com.": "NOERROR", "dns.google.": "NOERROR"},
		"reject": {"use-application-dns.net.": "NXDOMAIN", "dns.google.": "NXDOMAIN", "abc123.dns.nextdns.io.": "NXDOMAIN", "dns.quad9.net.": "NOERROR", "doh.mine.example.": "NXDOMAIN", "mine.example.": "NOERROR", "www.google.com.": "NOERROR"},
	} {
		list := filepath.Join(t.TempDir(), "more.txt")
		nets := filepath.Join(filepath.Dir(list), "nets.txt")
		for file, text := range map[string]string{list: "doh.mine.example\n", nets: "198.51.100.7\n2001:db8:9::/48\n"} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := compiled(t, fmt.Sprintf("[listen]\nlan = [\"br-lan\"]\nbypass = %q\ndoh_servers = [\"list:more\", \"embedded\", \"list:nets\"]\n[list.more]\nfile = %q\n[list.nets]\nfile = %q\n", mode, list, nets)+own, "0.0.0.0/0")
		ask := asks(t, p, gatewayFacts())
		for name, rcode := range want {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeHTTPS} {
				d := ask("192.168.8.20", "", name, qtype)
				if d.RCode != rcode {
					t.Errorf("%s, %s %s: %s, want %s", mode, name, dns.TypeToString[qtype], d.RCode, rcode)
				}
				if r := nameRule(d.Steps[0], nil); rcode == "NXDOMAIN" && (r.Where != "[listen]" || r.Text != fmt.Sprintf("bypass = %q", mode) || r.At != "test.toml:5") {
					t.Errorf("%s, %s: the rule is shown as %+v", mode, name, r)
				}
			}
			for _, host := range []string{"", "127.0.0.1", "::1"} {
				canary := strings.HasPrefix(name, "use-") || strings.HasPrefix(name, "mask.")
				if d := ask(host, "", name, dns.TypeA); !canary && d.RCode != "NOERROR" {
					t.Errorf("%s: this host (%s) asks for %s: %s", mode, host, name, d.RCode)
				}
			}
		}
		if d := ask("192.168.8.20", "", "_dns.resolver.arpa.", 64); d.RCode != "NOERROR" || len(d.Steps[0].Lookup) != 0 {
			t.Errorf("%s: _dns.resolver.arpa SVCB: %s", mode, d.RCode)
		}
		if has := slices.Contains(p.Gateway.doh, netip.MustParsePrefix("2001:db8:9::/48")); has != (mode == "reject") {
			t.Errorf("%s: the list of addresses is among %d: %t", mode, len(p.Gateway.doh), has)
		}
	}
}

// The doctor speaks of flowtables that know nothing of our marks.
func TestFlowtablesOfOthers(t *testing.T) {
	got := othersFlowtables([]string{"inet fw4 ft", "inet smartdns direct", "ip smartdns ft", "inet smartdns2 ft"})
	if want := []string{"inet fw4 ft", "ip smartdns ft", "inet smartdns2 ft"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
