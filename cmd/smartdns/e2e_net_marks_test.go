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

	"github.com/google/nftables"
	"github.com/miekg/dns"

	"smartdns/lab"
	"smartdns/web/api"
)

// marksWorld is a world in which only a mark leads into the tunnel.
func marksWorld(t testing.TB, more ...func(config string) string) *world {
	t.Helper()
	w := newWorld(t)
	w.config = marksOnly(w.config)
	for _, f := range more {
		w.config = f(w.config)
	}
	w.start()
	w.waitUp()
	return w
}

// sameName returns one name n times.
func sameName(name string, n int) []string { return slices.Repeat([]string{name}, n) }

// Fifty clients ask for the same fresh name at once: one question goes out, and
// the address is in its set before any of the fifty answers is (SECURITY N-02).
func TestCoalescedAnswersAreAllMarked(t *testing.T) {
	w := marksWorld(t)
	for i, name := range lab.Numbered("foreign", 40) {
		q, clients := lab.Question{Server: gatewayDNS}, 50
		if i%2 == 1 {
			q.Net, clients = "tcp", 15 // of one address at a time
		}
		if i%4 >= 2 {
			q.Type = dns.TypeAAAA
		}
		n := w.Client.Burst(w.context(20*time.Second), lab.Burst{Question: q, Names: sameName(name, clients), Port: 443, Parallel: clients})
		if n.Tunnel != clients {
			t.Fatalf("%s: %d through the tunnel, %d direct, %d failed of %d\n%s", name, n.Tunnel, n.Direct, n.Failed, clients, strings.Join(n.Failures, "\n"))
		}
		servers := map[netip.Addr]bool{} // a second one is asked when the first is slow
		for _, asked := range w.DNS.Asked(name) {
			if servers[asked.Server] {
				t.Errorf("%s was asked again: %v", name, w.DNS.Asked(name))
			}
			servers[asked.Server] = true
		}
	}
	if w.counter("shared with an equal question") == 0 {
		t.Error("no question was shared: nothing was tested")
	}
	w.noLeaks()
}

// The other ways to an answer mark it too: along CNAMEs, several addresses, a
// cached chain, names in capitals, and a name whose servers were silent at
// first (SECURITY N-02).
func TestEveryWayToAnAnswerMarksIt(t *testing.T) {
	w := marksWorld(t)
	for _, name := range []string{"chain.foreign.test", "chain2.foreign.test", "chain.foreign.test", "CHAIN.foreign.TEST", "many.foreign.test", "many.foreign.test"} {
		for _, a := range lab.Addresses(w.ask(name, lab.Question{})) {
			if err := w.carries(w.Client, a, "tunnel", 0); err != nil {
				t.Errorf("%s at %s: %v", name, a, err)
			}
		}
	}
	w.DNS.SetSilent(lab.Google, true)
	w.DNS.SetSilent(lab.Cloudflare, true)
	if m, err := w.Client.Ask(w.context(20*time.Second), lab.Question{Server: gatewayDNS, Name: "n00077.foreign.test"}); err == nil && m.Rcode != dns.RcodeServerFailure {
		t.Errorf("with silent servers: %v", m)
	}
	w.DNS.SetSilent(lab.Google, false)
	w.DNS.SetSilent(lab.Cloudflare, false)
	w.waitFor("an answer", 15*time.Second, func() error {
		m := w.ask("n00077.foreign.test", lab.Question{})
		if len(lab.Addresses(m)) != 1 {
			return fmt.Errorf("%v", m)
		}
		return w.carries(w.Client, lab.Addresses(m)[0], "tunnel", 0)
	})
	w.noLeaks()
}

// flushSet does what nft flush set does, and returns when the kernel has.
func (w *world) flushSet(name string) {
	w.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(int(w.Gateway.Handle())))
	if err != nil {
		w.t.Fatal(err)
	}
	c.FlushSet(&nftables.Set{Table: &nftables.Table{Name: "smartdns", Family: nftables.TableFamilyINet}, Name: name})
	if err := c.Flush(); err != nil {
		w.t.Fatal(err)
	}
}

// Somebody flushes the sets, and a cached name is asked for: the element is
// there again when the reply arrives, a hundred times of a hundred. That the
// repair of the set brings it back, too, is later (SECURITY N-03).
func TestCachedAnswerAfterAFlushIsMarkedAgain(t *testing.T) {
	w := marksWorld(t, func(c string) string { return c + "\n[routing]\ntable = \"shared\"\n" })
	const name = "n00042.foreign.test"
	to := w.resolve(name, 0)
	// The control: without its element the address is reached directly.
	if _, err := w.cli("marks", "forget", to.String()); err != nil {
		t.Fatal(err)
	}
	if err := w.carries(w.Client, to, "direct", 0); err != nil {
		t.Fatalf("forgotten, without asking: %v", err)
	}
	w.Sniffer.Reset()
	asked := len(w.DNS.Asked(name))
	for i := range 100 {
		w.flushSet("wg0_4")
		// On one thread: nothing is between the answer and the connection.
		n := w.Client.Burst(w.context(10*time.Second), lab.Burst{Question: lab.Question{Server: gatewayDNS}, Names: []string{name}, Port: 443, Parallel: 1})
		if n.Tunnel != 1 {
			t.Errorf("flush %d: %+v, want a connection through the tunnel", i, n)
		}
		if _, err := w.Gateway.Exec(w.context(5*time.Second), "nft", "get", "element", "inet", "smartdns", "wg0_4", fmt.Sprintf("{ %s }", to)); err != nil {
			t.Errorf("flush %d: %v", i, err)
		}
	}
	if n := len(w.DNS.Asked(name)) - asked; n != 0 {
		t.Errorf("the name was asked %d times again: its answer was not a cached one", n)
	}
	w.noLeaks()
}

// The fast lane answers 500 names; after a flush of their set, the same answers
// bring every address back before they leave.
func TestSealedAnswersAfterAFlushAreMarkedAgain(t *testing.T) {
	w := marksWorld(t, func(c string) string { return c + "\n[routing]\ntable = \"shared\"\n" })
	names := lab.Numbered("foreign", 500)
	ask := func() lab.Count {
		return w.Client.Burst(w.context(60*time.Second), lab.Burst{Question: lab.Question{Server: gatewayDNS}, Names: names, Port: 443, Parallel: 1})
	}
	ask()
	before := w.counter("answered by the fast lane")
	if n := ask(); n.Tunnel != len(names) {
		t.Errorf("sealed: %+v, want %d connections through the tunnel", n, len(names))
	}
	if n := w.counter("answered by the fast lane") - before; n < uint64(len(names)) {
		t.Fatalf("the fast lane gave %d answers, want %d", n, len(names))
	}
	asked := len(w.DNS.Asked(names[0]))
	w.flushSet("wg0_4")
	if n := ask(); n.Tunnel != len(names) {
		t.Errorf("after a flush: %+v, want %d connections through the tunnel", n, len(names))
	}
	if n := len(w.DNS.Asked(names[0])) - asked; n != 0 {
		t.Errorf("the name was asked %d times again: its answer was not a cached one", n)
	}
	w.noLeaks()
}

// A domestic name with a foreign address does not pull it out of the tunnel: as
// an address, behind a CNAME, or as a hint of HTTPS. Neither where the foreign
// side confirms the address nor where the domestic side's word is final
// (SECURITY N-07).
func TestDomesticNamePullsNothingOutOfTheTunnel(t *testing.T) {
	for _, auto := range []string{"foreign-first", "foreign-only"} {
		t.Run(auto, func(t *testing.T) {
			w := newWorld(t)
			w.config = inTable(w.config, "[decide]", fmt.Sprintf("auto = %q", auto))
			w.start()
			w.waitUp()
			for _, v := range []lab.View{lab.AtHome, lab.Abroad} {
				if err := w.Zone.Add(v, `
alias.cn.test.  CNAME attacker.cn.test.
hints.cn.test.  HTTPS 1 . alpn=h2 ipv4hint=93.184.216.34 ipv6hint=2606:2800:220:1:248:1893:25c8:1946
six.cn.test.    AAAA  2606:2800:220:1:248:1893:25c8:1946
`); err != nil {
					t.Fatal(err)
				}
			}
			refused := w.counter("foreign addresses not pulled direct")
			for _, q := range []struct {
				name string
				typ  uint16
			}{
				{"attacker.cn.test", dns.TypeA}, {"alias.cn.test", dns.TypeA}, {"hints.cn.test", dns.TypeHTTPS}, {"six.cn.test", dns.TypeAAAA},
				{"attacker.cn.test", dns.TypeA}, {"hints.cn.test", dns.TypeHTTPS}, // cached
			} {
				m := w.ask(q.name, lab.Question{Type: q.typ})
				if len(lab.Addresses(m))+len(lab.Hints(m)) == 0 {
					t.Errorf("%s: %v", q.name, m)
				}
				for _, a := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
					if slices.Contains(w.marked(a), "direct") {
						t.Errorf("%s: %s is marked direct", q.name, a)
					}
					for _, from := range w.hosts() {
						if err := w.carries(from, a, "tunnel", 0); err != nil {
							t.Errorf("after %s, %s to %s: %v", q.name, from.Name, a, err)
						}
					}
				}
			}
			if n := w.counter("foreign addresses not pulled direct") - refused; auto == "foreign-only" && n < 6 {
				t.Errorf("counted %d times, want at least once for each answer", n)
			}
			w.noLeaks()
		})
	}
}

// A tunnel name and a direct name share an address: the tunnel wins, in
// whatever order they are asked, and even when the user pinned both (SECURITY
// N-08).
func TestSharedAddressTakesTheTunnel(t *testing.T) {
	pinned := func(c string) string {
		return strings.Replace(c, "names = [\n", "names = [\n  { match = \"direct.test\", ask = \"foreign\", via = \"direct\" },\n", 1)
	}
	w := marksWorld(t, pinned)
	var text strings.Builder
	for _, name := range []string{"shared.cn.test", "shared.foreign.test"} {
		fmt.Fprintf(&text, "%s. A 39.156.90.1\n", name) // at home
	}
	for _, name := range []string{"shared.direct.test", "pinned.foreign.test"} {
		fmt.Fprintf(&text, "%s. A 93.184.90.2\n", name) // abroad
	}
	for _, v := range []lab.View{lab.AtHome, lab.Abroad} {
		if err := w.Zone.Add(v, text.String()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ direct, tunnel string }{
		{"shared.cn.test", "shared.foreign.test"}, {"shared.direct.test", "pinned.foreign.test"},
	} {
		// The control: by its direct name alone it goes direct.
		a := w.resolve(c.direct, 0)
		if err := w.carries(w.Client, a, "direct", 0); err != nil {
			t.Errorf("%s alone: %v", c.direct, err)
		}
		if p := w.marked(a); !slices.Equal(p, []string{"direct"}) {
			t.Errorf("%s alone is marked %v", c.direct, p)
		}
		w.Sniffer.Reset()
		for i := range 100 {
			name := c.tunnel
			if i%2 == 1 {
				name = c.direct
			}
			if got := w.resolve(name, 0); got != a {
				t.Fatalf("%s is at %s, want %s", name, got, a)
			}
			s, err := w.Client.Connect(w.context(5*time.Second), port443(a))
			if err != nil {
				t.Fatal(err)
			}
			if way(s.Seen) != "tunnel" {
				t.Errorf("round %d, after %s: went %s", i, name, way(s.Seen))
			}
			s.Close()
		}
		w.noLeaks()
		conflicts := w.marks().Conflicts
		if i := slices.IndexFunc(conflicts, func(x api.Conflict) bool { return x.Addr == a }); i < 0 || conflicts[i].Used != "wg0" {
			t.Errorf("conflicts are %+v, want %s used for wg0", conflicts, a)
		}
	}
	if w.counter("addresses marked for two paths") < 2 {
		t.Error("the conflicts are not counted")
	}
}

// A client that uses nothing but the hints of service records takes the marked
// path, whatever type brought them; what brings addresses without marks is not
// answered (SECURITY N-17).
func TestServiceHintsAreMarked(t *testing.T) {
	w := marksWorld(t)
	if err := w.Zone.Add(lab.Abroad, `
svc.foreign.test.        HTTPS 1 svc2.foreign.test. alpn=h3 port=443 ipv4hint=93.184.91.1,93.184.91.2 ipv6hint=2606:2800:220:1::9101
svc.foreign.test.        HTTPS 2 . ipv4hint=93.184.91.3
_dns.foreign.test.       SVCB  1 dns.foreign.test. alpn=dot ipv4hint=93.184.91.4 ipv6hint=2606:2800:220:1::9104
`); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		typ  uint16
		want []string
	}{
		{"svc.foreign.test", dns.TypeHTTPS, []string{"93.184.91.1", "93.184.91.2", "93.184.91.3", "2606:2800:220:1::9101"}},
		{"_dns.foreign.test", dns.TypeSVCB, []string{"93.184.91.4", "2606:2800:220:1::9104"}},
	} {
		for _, network := range []string{"udp", "tcp"} { // the second is cached
			m := w.ask(c.name, lab.Question{Type: c.typ, Net: network})
			text := m.String()
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("%s %s: no hint %s in %s", c.name, network, want, text)
				}
				if err := w.carries(w.Client, netip.MustParseAddr(want), "tunnel", 0); err != nil {
					t.Errorf("%s %s, hint %s: %v", c.name, network, want, err)
				}
			}
			if len(m.Extra) > 1 {
				t.Errorf("%s %s: records beside the answer: %v", c.name, network, m.Extra)
			}
		}
	}
	if m := w.ask("n00090.foreign.test", lab.Question{Type: dns.TypeANY}); len(lab.Addresses(m)) != 0 {
		t.Errorf("ANY: %v", m)
	}
	w.noLeaks()
}

// A reload drops the marks of names that a list pinned and no longer does, and
// keeps the others, although the file itself says the same.
func TestReloadDropsTheMarksOfNamesThatAListLost(t *testing.T) {
	w := newWorld(t)
	list := filepath.Join(t.TempDir(), "pinned.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("n1.foreign.test\nn2.foreign.test\n")
	w.config = strings.Replace(marksOnly(w.config), "[decide]\nnames = [", "[list.pinned]\nfile = \""+list+"\"\n\n[decide]\nnames = [\n  { match = \"list:pinned\", ask = \"foreign\", via = \"wg0\" },", 1)
	w.config = strings.Replace(w.config, `match = ["foreign.test", "blocked.test"]`, `match = ["blocked.test"]`, 1)
	w.start()
	w.waitUp()
	one, two := w.resolve("n1.foreign.test", dns.TypeA), w.resolve("n2.foreign.test", dns.TypeA)
	marked := func(what string, first, second []string) {
		t.Helper()
		if a, b := w.marked(one), w.marked(two); !slices.Equal(a, first) || !slices.Equal(b, second) {
			t.Errorf("%s: the addresses are marked for %v and %v, want %v and %v", what, a, b, first, second)
		}
	}
	tunnel := []string{"wg0"}
	marked("at first", tunnel, tunnel)
	write("# the same\nn1.foreign.test\nn2.foreign.test\nn3.foreign.test\n")
	w.reload(w.config)
	marked("after a list grew", tunnel, tunnel)
	write("n2.foreign.test\n")
	w.reload(w.config)
	marked("after a list lost a name", nil, nil)
	w.resolve("n2.foreign.test", dns.TypeA)
	marked("after an answer", nil, tunnel)
}
