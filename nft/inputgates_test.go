package nft_test

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"smartdns/lab/netnstest"
	"smartdns/nft"
)

// inputs are rulesets as firewalls load them, and what each of them adds when it
// is told to let the LAN ask us: ufw, firewalld, fw4, and somebody's own with
// all that nftables has to match by. Each takes UDP port 80.
var inputs = []struct{ name, rules, gates, open string }{
	{"ufw", `
table ip filter {
	chain ufw-user-input { udp dport 80 accept; ip saddr 10.0.0.0/8 udp dport 53 accept; }
	chain ufw-not-local {
		fib daddr type local return
		fib daddr type multicast return
		drop
	}
	chain ufw-before-input {
		iifname "lo" accept
		ct state related,established accept
		ct state invalid drop
		udp sport 67 udp dport 68 accept
		jump ufw-not-local
		ip daddr 224.0.0.251 udp dport 5353 accept
		jump ufw-user-input
	}
	chain ufw-after-input { udp dport 137 goto ufw-skip-to-policy; limit rate 3/minute log; }
	chain ufw-skip-to-policy { drop; }
	chain INPUT {
		type filter hook input priority 0; policy drop;
		jump ufw-before-input
		jump ufw-after-input
	}
}
`, "ip filter INPUT by INPUT: 53 5300 [tcp udp]", `add rule ip filter ufw-user-input iifname "lan0" meta l4proto { tcp, udp } th dport { 53, 5300 } accept`},
	{"firewalld", `
table inet firewalld {
	chain filter_IN_public { jump filter_IN_public_allow; meta l4proto { icmp, ipv6-icmp } accept; }
	chain filter_IN_public_allow { udp dport { 80, 443 } ct state { new, untracked } accept; }
	chain filter_INPUT_ZONES { iifname "wan0" goto filter_IN_public; goto filter_IN_public; }
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		jump filter_INPUT_ZONES
		ct state invalid drop
		reject with icmpx admin-prohibited
	}
}
`, "inet firewalld filter_INPUT by filter_INPUT: 53 [tcp udp]", `add rule inet firewalld filter_IN_public_allow meta l4proto { tcp, udp } th dport 53 ct state { new, untracked } accept`},
	{"fw4, the LAN is trusted", `
table inet fw4 {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state vmap { established : accept, related : accept }
		iifname "lan0" jump input_lan
	}
	chain input_lan { iifname "lan0" counter accept comment "!fw4: Accept lan IPv4/IPv6 traffic"; }
}
`, "", ""},
	{"fw4, a zone for guests", `
table inet fw4 {
	set guests { type ifname; elements = { "lan0", "lan7" }; }
	chain input {
		type filter hook input priority filter; policy accept;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname @guests jump input_guest
	}
	chain input_guest {
		udp dport { 67, 80 } counter accept
		ct status dnat counter accept
		jump reject_from_guest
	}
	chain reject_from_guest { meta l4proto tcp reject with tcp reset; reject; }
}
`, "inet fw4 input by reject_from_guest: 53 [tcp udp]", `insert rule inet fw4 input_guest meta l4proto { tcp, udp } th dport 53 accept`},
	{"own", `
table ip6 mine {
	chain input {
		type filter hook input priority -5; policy drop;
		ip6 nexthdr udp udp dport 53 accept
		meta l4proto ipv6-icmp accept
	}
}
table inet mine {
	map by { type inet_proto . inet_service : verdict; flags interval; elements = { udp . 80 : accept, udp . 5300-5310 : goto more, tcp . 53 : accept }; }
	set known { type ipv4_addr; flags interval; elements = { 192.168.8.16-192.168.8.31 }; }
	set hosts { type ipv4_addr . inet_service; elements = { 192.168.8.20 . 5301 }; }
	chain more { ip saddr != @known accept; ip saddr . udp dport @hosts accept; }
	chain input {
		type filter hook input priority 5; policy accept;
		meta nfproto ipv6 accept
		iifname != "lan*" accept
		th dport 1-79 ip saddr & 255.255.255.0 == 192.168.8.0 meta l4proto udp drop
		meta l4proto . th dport vmap @by
		meta l4proto tcp accept
		drop
	}
}
`, "ip6 mine input by input: 53 5300 [tcp udp]; inet mine input by input: 53 [udp]", `insert rule inet mine input th dport { 53, 5300 } accept
insert rule ip6 mine input meta l4proto { tcp, udp } th dport { 53, 5300 } accept`},
	{"what cannot be known", `
table ip filter {
	chain INPUT {
		type filter hook input priority 0; policy drop;
		meta mark & 0xff == 0 accept
		udp dport 80 accept
	}
}
`, "", ""},
}

// Where a chain of somebody else's drops what clients ask us, and only there, it
// is named: by what real packets do, before and after each of the two commands
// that let them in.
func TestGatesBeforeThisHost(t *testing.T) {
	w := newWorld(t)
	table := w.set(nft.Owned, gateway())
	w.serve(w.gw, 80)
	netnstest.Do(t, w.gw, func() {
		load(t, `table inet smartdns-seen {
			counter seen { }
			chain c { type filter hook input priority 300; iifname "lan0" udp dport { 53, 5300 } counter name seen; }
		}`)
	})
	var lan []nft.Client
	for us, client := range map[string]string{"192.168.8.1": "192.168.8.20", "fd08::1": "fd08::20"} {
		lan = append(lan, nft.Client{Link: "lan0", Addr: netip.MustParseAddr(client), Us: netip.MustParseAddr(us)})
	}
	asks := func(clients []nft.Client, ports ...nft.Port) (said string, all []nft.Gate) {
		var err error
		netnstest.Do(t, w.gw, func() { all, err = table.InputGates(t.Context(), clients, ports) })
		if err != nil {
			t.Error(err)
		}
		var out []string
		for _, g := range all {
			out = append(out, fmt.Sprintf("%s by %s: %s %v", g, g.By, strings.Trim(fmt.Sprint(g.Ports), "[]"), g.Protocols))
		}
		return strings.Join(out, "; "), all
	}
	direct, redirected := nft.Port{Number: 53}, nft.Port{Number: 5300, Redirected: true}
	// agrees checks that a query over UDP arrives where no gate is said to be.
	agrees := func(when string) {
		for _, c := range lan {
			for _, p := range []nft.Port{direct, redirected} {
				_, gates := asks([]nft.Client{c}, p)
				shut := false
				for _, g := range gates {
					shut = shut || strings.Contains(fmt.Sprint(g.Protocols), "udp")
				}
				to := c.Us
				if p.Redirected {
					to = map[bool]netip.Addr{true: netip.MustParseAddr("8.8.8.8"), false: netip.MustParseAddr("2001:4860:4860::8888")}[to.Is4()]
				}
				if arrives := w.queryArrives(netip.AddrPortFrom(to, 53), !shut); arrives == shut {
					t.Errorf("%s: a query to %s arrives: %t, and the gates are %v", when, to, arrives, gates)
				}
			}
		}
	}
	agrees("with nothing")
	for _, in := range inputs {
		netnstest.Do(t, w.gw, func() { load(t, in.rules) })
		said, gates := asks(lan, direct, redirected)
		w.want(in.name, said, in.gates)
		if in.name != "what cannot be known" {
			agrees(in.name)
		}
		reload := func(then string) {
			netnstest.Do(t, w.gw, func() {
				for l := range strings.Lines(in.rules) {
					if table, ok := strings.CutPrefix(l, "table "); ok {
						load(t, "delete table "+strings.TrimSuffix(strings.TrimSpace(table), " {"))
					}
				}
				if then != "" {
					load(t, in.rules+then)
				}
			})
		}
		var ours []string
		for _, g := range gates {
			ours = append(ours, strings.ReplaceAll(strings.Join(g.Fix(), "\n"), "nft ", ""))
		}
		for _, fix := range []string{in.open, strings.Join(ours, "\n")} {
			if fix == "" {
				continue
			}
			reload(fix)
			if said, _ := asks(lan, direct, redirected); said != "" {
				t.Errorf("%s: after %s: %s", in.name, fix, said)
			}
			agrees(in.name + " after " + fix)
		}
		reload("")
	}
}

// What ufw loads by iptables, as the kernel shows it, is read as well: it drops
// clients' queries, until "ufw allow in on lan0 to any port 53" and one for ports
// 5953 and 5954 over UDP.
func TestGateThatIptablesMade(t *testing.T) {
	text, err := os.ReadFile("../testdata/nft/ufw-iptables.hex")
	if err != nil {
		t.Fatal(err)
	}
	rules := map[bool]map[string][][]byte{false: {}, true: {}} // by whether it was told to let them in
	for l := range strings.Lines(string(text)) {
		chain, hexed, _ := strings.Cut(strings.TrimSpace(l), " ")
		chain, later := strings.CutPrefix(chain, "+")
		b, err := hex.DecodeString(hexed)
		if err != nil {
			t.Fatal(err)
		}
		for open, all := range rules {
			if open || !later {
				all[chain] = append(all[chain], b)
			}
		}
	}
	client := nft.Client{Link: "lan0", Addr: netip.MustParseAddr("192.168.8.20"), Us: netip.MustParseAddr("192.168.8.1")}
	other := client
	other.Link = "lan7"
	for _, c := range []struct {
		open bool
		from nft.Client
		port nft.Port
		tcp  bool
		want bool
	}{
		{false, client, nft.Port{Number: 53}, false, true}, {false, client, nft.Port{Number: 53}, true, true},
		{false, client, nft.Port{Number: 5953, Redirected: true}, false, true},
		{false, client, nft.Port{Number: 22}, true, false}, {false, client, nft.Port{Number: 443}, true, false},
		{true, client, nft.Port{Number: 53}, false, false}, {true, client, nft.Port{Number: 53}, true, false},
		{true, client, nft.Port{Number: 5953, Redirected: true}, false, false}, {true, client, nft.Port{Number: 5954}, false, false},
		{true, client, nft.Port{Number: 5953, Redirected: true}, true, true}, {true, other, nft.Port{Number: 53}, false, true},
	} {
		by, got := nft.DropsIPv4(rules[c.open], c.from, c.port, c.tcp)
		if got != c.want || got && by != "INPUT" {
			t.Errorf("%+v: %t, by %q", c, got, by)
		}
	}
}

// queryArrives sends a query over UDP from the LAN and reports whether it passed
// every filter of gw.
func (w *world) queryArrives(to netip.AddrPort, expected bool) bool {
	w.t.Helper()
	seen := func() (n int) {
		netnstest.Do(w.t, w.gw, func() { n = packets(w.t, "smartdns-seen", "seen") })
		return n
	}
	before := seen()
	netnstest.Do(w.t, w.lan, func() {
		c, err := net.Dial("udp", to.String())
		if err != nil {
			w.t.Error(err)
			return
		}
		defer c.Close()
		if _, err := c.Write([]byte("?")); err != nil {
			w.t.Error(err)
		}
	})
	if got := w.ask(w.lan, "udp", "192.168.8.1:80"); got != "192.168.8.20" {
		w.t.Errorf("port 80: %s", got)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		if n := seen(); n != before || !expected || time.Now().After(end) {
			return n != before
		}
	}
}
