package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
	"smartdns/web/api"
)

// overAll returns one asker of the gateway per transport, each over a
// connection of its own.
func (w *world) overAll() map[string]func(name string, qtype uint16) (*dns.Msg, error) {
	w.t.Helper()
	insecure := func(proto string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}} // the certificate is the gateway's own
	}
	dial := func(network string, port uint16) net.Conn {
		c, err := w.Client.Dial(w.context(10*time.Second), network, netip.AddrPort{}, netip.AddrPortFrom(lab.LANV4, port))
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { c.Close() })
		return c
	}
	over := func(dial func() net.Conn) func(string, uint16) (*dns.Msg, error) {
		var conn *dns.Conn
		asked := 0
		return func(name string, qtype uint16) (*dns.Msg, error) {
			if asked%900 == 0 { // a connection may ask 1,000 times
				if conn != nil {
					conn.Close()
				}
				conn = &dns.Conn{Conn: dial(), UDPSize: 4096}
			}
			asked++
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			if err := conn.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)); err != nil {
				return nil, err
			}
			return conn.ReadMsg()
		}
	}
	client := &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: insecure("h2"),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return w.Client.Dial(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(lab.LANV4, 443))
		},
	}}
	w.t.Cleanup(client.CloseIdleConnections)
	return map[string]func(string, uint16) (*dns.Msg, error){
		"udp": over(func() net.Conn { return dial("udp", 53) }), "tcp": over(func() net.Conn { return dial("tcp", 53) }),
		"tls": over(func() net.Conn { return tls.Client(dial("tcp", 853), insecure("dot")) }),
		"https": func(name string, qtype uint16) (*dns.Msg, error) {
			b, err := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype).Pack()
			if err != nil {
				return nil, err
			}
			r, err := client.Post("https://192.168.8.1/dns-query", "application/dns-message", bytes.NewReader(b))
			if err != nil {
				return nil, err
			}
			defer r.Body.Close()
			body, err := io.ReadAll(r.Body)
			m := new(dns.Msg)
			return m, errors.Join(err, m.Unpack(body))
		},
	}
}

// named reports whether a packet holds one of the names in wire form.
func named(names ...string) func(lab.Packet) bool {
	var all [][]byte
	for _, n := range names {
		b := make([]byte, 255)
		end, err := dns.PackDomainName(dns.Fqdn(n), b, 0, nil, false)
		if err != nil {
			panic(err)
		}
		all = append(all, b[:end])
	}
	return func(p lab.Packet) bool {
		text := bytes.ToLower(p.Payload)
		return slices.ContainsFunc(all, func(n []byte) bool { return bytes.Contains(text, n) })
	}
}

// A gateway whose clients shall ask nobody else. Names are asked where they
// belong, over every transport and of every type: those of the foreign side and
// unknown ones never on the uplink, where a sniffer reads what the questions
// say, those of the domestic side never in the tunnel. What a resolver asks
// beside that stays inside, too: the tunnel's addresses, servers of zones. And
// what clients would ask past us fails at once, while this host may; with 120
// names of each class on each transport, or 5,000 (SECURITY L-03, L-04, L-05,
// L-07).
func TestGatewayThatClientsCannotAskPast(t *testing.T) {
	w := newWorld(t)
	w.Zone.AnswerAll(func(string) bool { return false })
	listen := "bypass = \"reject\"\ndot = [\"192.168.8.1:853\"]\ndoh = [\"192.168.8.1:443\"]"
	w.config = inTable(w.config, "[listen]", listen) + "\n[routing]\nflowtable = true\n"
	w.Sniffer.Forbid(named("foreign.test", "unknown.example", "2.0.9.10.in-addr.arpa", "1.0.9.10.in-addr.arpa"))
	w.start()
	w.waitUp()
	w.DNS.Forget()
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeTXT, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeSRV}
	each := sized(120, 5000)
	first := 1
	for network, ask := range w.overAll() {
		for _, class := range []string{"n%05d.foreign.test", "n%05d.cn.test", "n%05d.unknown.example"} {
			for i := range each {
				name, qtype := fmt.Sprintf(class, first+i), types[i%len(types)]
				if m, err := ask(name, qtype); err != nil || m.Rcode != dns.RcodeSuccess {
					t.Fatalf("%s %s over %s: %v, %v", name, dns.TypeToString[qtype], network, m, err)
				}
			}
		}
		for _, name := range []string{"2.0.9.10.in-addr.arpa", "1.0.9.10.in-addr.arpa"} {
			if _, err := ask(name, dns.TypePTR); err != nil {
				t.Errorf("PTR %s over %s: %v", name, network, err)
			}
		}
		first += each
	}
	asked := map[string]int{}
	for _, a := range w.DNS.Asked("") {
		_, class, _ := strings.Cut(strings.ToLower(a.Name), ".")
		asked[class]++
		tunnel := a.From.Addr() == lab.TunnelV4 || a.From.Addr() == lab.TunnelV6
		if domestic := a.Server == lab.AliDNS || a.Server == lab.DNSPod; domestic == tunnel || (class == "cn.test.") != domestic && (class == "foreign.test." || class == "unknown.example." || class == "cn.test.") {
			t.Errorf("asked: %s", a)
		}
	}
	for _, class := range []string{"foreign.test.", "cn.test.", "unknown.example."} {
		if asked[class] < 4*each/2 { // some types are answered by what others said
			t.Errorf("%d questions about %s: the servers' log is blind", asked[class], class)
		}
	}
	w.noLeaks()

	for _, c := range []struct {
		network, to string
	}{
		{"tcp", "8.8.8.8:853"}, {"udp", "8.8.8.8:853"}, {"tcp", "93.184.216.34:853"}, {"tcp", "39.156.66.10:853"}, {"udp", "39.156.66.10:853"},
		{"tcp", "8.8.8.8:443"}, {"udp", "1.1.1.1:443"}, {"tcp", "[2001:4860:4860::8888]:443"}, {"tcp", "[2001:4860:4860::8888]:853"},
	} {
		conn, err := w.Client.Dial(w.context(5*time.Second), c.network, netip.AddrPort{}, netip.MustParseAddrPort(c.to))
		if err == nil && c.network == "udp" {
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err = conn.Write([]byte("?")); err == nil {
				_, err = conn.Read(make([]byte, 512))
			}
		}
		if conn != nil {
			conn.Close()
		}
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.EACCES) {
			t.Errorf("the client to %s %s: %v, want a refusal", c.network, c.to, err)
		}
	}
	if m, err := w.Gateway.Ask(w.context(10*time.Second), lab.Question{Server: lab.Google, Net: "tls", Roots: w.Gateway.AuthorityFile(), Name: "www.example.com"}); err != nil || len(lab.Addresses(m)) == 0 {
		t.Errorf("this host over TLS: %v, %v", m, err)
	}
	for name, want := range map[string]int{"use-application-dns.net": dns.RcodeNameError, "mask.icloud.com": dns.RcodeNameError, "dns.google": dns.RcodeNameError, "_dns.resolver.arpa": dns.RcodeSuccess} {
		if m := w.ask(name, lab.Question{}); m.Rcode != want || len(m.Answer) > 0 {
			t.Errorf("%s: %v", name, m)
		}
	}
	if out, err := w.cli("query", "dns.google"); err != nil {
		t.Errorf("this host asks for dns.google: %v\n%s", err, out)
	}
	if out, err := w.cli("query", "use-application-dns.net"); err == nil || !strings.Contains(out, `[listen] bypass = "reject"`) {
		t.Errorf("the rule that decided is not shown: %v\n%s", err, out)
	}
	w.flowtableSaysSo()
	w.noLeaks()
	w.ownPath()
	w.positiveControl()
}

// flowtableSaysSo checks that status speaks of a kernel without flowtables, and
// only then.
func (w *world) flowtableSaysSo() {
	w.t.Helper()
	said := slices.ContainsFunc(w.status().Conditions, func(c api.Condition) bool { return strings.Contains(c.What, "no flowtables") })
	out, err := w.Gateway.Exec(w.context(10*time.Second), "nft", "list", "flowtables")
	if there := strings.Contains(out, "flowtable direct"); err != nil || said == there {
		w.t.Errorf("the kernel offloads: %t (%v); the status says that it does not: %t", there, err, said)
	}
}

// ownPath gives the client, by its MAC, the tunnel for what is at home, and then
// the uplink for everything: query --from says so, and others are as before.
func (w *world) ownPath() {
	w.t.Helper()
	mac := w.clientMAC()
	through := func(via string) string {
		return inTable(w.config, "[decide]", fmt.Sprintf("clients = [{ match = %q, via = %q }]", mac, via))
	}
	w.reload(through("wg0"))
	w.ask("www.baidu.com", lab.Question{}) // so that its neighbour is known
	if err := w.carries(w.Client, lab.HomeWebV4, "tunnel", 0); err != nil {
		w.t.Errorf("a client whose path is the tunnel: %v", err)
	}
	for _, from := range []*lab.Namespace{w.Box, w.Gateway.Namespace} {
		w.bothWays(from, 0)
	}
	var d api.Decision
	out, err := w.cli("query", "www.baidu.com", "--from", lab.ClientV4.String(), "--json")
	if err := errors.Join(err, json.Unmarshal([]byte(out), &d)); err != nil || len(d.Answers) == 0 {
		w.t.Fatalf("query --from: %v\n%s", err, out)
	}
	if a := d.Answers[0]; a.Path != "wg0" || a.Rule.Where != "clients[0]" || a.Mark.Acked || a.Kernel == nil || a.Kernel.Dev != "wg0" {
		w.t.Errorf("query --from the client: %+v", a)
	}
	for from, want := range map[string][2]string{lab.ClientV4.String(): {"wg0", "clients[0]"}, "": {"direct", "addresses[0]"}} {
		var r api.Route
		out, err := w.cli("route", lab.HomeWebV4.String(), "--from", from, "--json")
		if err := errors.Join(err, json.Unmarshal([]byte(out), &r)); err != nil || len(r.Answers) == 0 {
			w.t.Fatalf("route --from %q: %v\n%s", from, err, out)
		}
		if a := r.Answers[0]; a.Path != want[0] || a.Rule.Where != want[1] || a.Kernel == nil || (a.Kernel.Dev == "wg0") != (want[0] == "wg0") || r.Client != from {
			w.t.Errorf("route --from %q: %+v", from, a)
		}
	}
	w.noLeaks()
	w.reload(through("direct"))
	for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
		if err := w.carries(w.Client, to, "direct", 0); err != nil {
			w.t.Errorf("a client whose path is direct: %v", err)
		}
	}
	w.bothWays(w.Gateway.Namespace, 0)
	w.reload(w.config)
	w.bothWays(w.Client, 0)
}

// positiveControl has unknown names asked at both sides, as auto = "race" says:
// the sniffer sees them.
func (w *world) positiveControl() {
	w.t.Helper()
	w.Sniffer.Reset()
	w.reload(inTable(w.config, "[decide]", `auto = "race"`))
	if m := w.ask("n11999.unknown.example", lab.Question{}); m.Rcode != dns.RcodeSuccess {
		w.t.Errorf("a name in no list: %v", m)
	}
	w.waitFor("the sniffer sees the name", 10*time.Second, func() error {
		if w.Sniffer.Leaks() == 0 {
			return errors.New("nothing")
		}
		return nil
	})
}
