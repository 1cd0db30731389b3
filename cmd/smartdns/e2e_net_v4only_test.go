package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
)

// noConnection checks that a connection fails because somebody says no.
func (w *world) noConnection(from *lab.Namespace, to netip.Addr) {
	w.t.Helper()
	s, err := from.Connect(w.context(5*time.Second), port443(to))
	if err == nil {
		w.t.Errorf("%s to %s: connected, went %s", from.Name, to, way(s.Seen))
		s.Close()
	} else if timedOut(err) {
		w.t.Errorf("%s to %s: nobody said no: %v", from.Name, to, err)
	}
	w.from(from, to)
}

// from sends what has no connection.
func (w *world) from(from *lab.Namespace, to netip.Addr) {
	w.t.Helper()
	if seen, err := from.Datagram(w.context(200*time.Millisecond), port443(to)); err == nil {
		w.t.Errorf("%s to %s over UDP: went %s", from.Name, to, way(seen))
	}
	if pong, err := from.Ping(w.context(200*time.Millisecond), lab.Ping{To: to}); err == nil && pong.EchoReply() {
		w.t.Errorf("%s to %s: the ping was answered", from.Name, to)
	}
}

// A tunnel without IPv6: names abroad have no AAAA and no v6 hints, and v6 to
// addresses abroad fails at once for everybody and does not leak, while the
// uplink's IPv6, which a router advertised, carries what is at home (SECURITY L-06, N-18).
func TestTunnelWithoutIPv6(t *testing.T) {
	w := newWorld(t)
	w.v4Tunnel()
	if err := w.Advertise(w.context(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.waitUp()
	for _, c := range []struct {
		name string
		typ  uint16
		v4   bool // the answer has v4 addresses
		v6   bool
	}{
		{"www.example.com", dns.TypeA, true, false},
		{"www.example.com", dns.TypeAAAA, false, false},
		{"www.example.com", dns.TypeHTTPS, true, false},
		{"n00003.foreign.test", dns.TypeAAAA, false, false},
		{"n00003.foreign.test", dns.TypeHTTPS, true, false},
		{"v6.foreign.test", dns.TypeAAAA, false, false},
		{"www.google.com", dns.TypeAAAA, false, false},
		{"www.baidu.com", dns.TypeAAAA, false, true},
		{"n00003.cn.test", dns.TypeAAAA, false, true},
		{"n00003.cn.test", dns.TypeHTTPS, true, true},
	} {
		for range 2 { // fresh and cached
			m := w.ask(c.name, lab.Question{Type: c.typ})
			var v4, v6 bool
			for _, a := range append(lab.Addresses(m), lab.Hints(m)...) {
				v4, v6 = v4 || a.Is4(), v6 || a.Is6()
			}
			if m.Rcode != dns.RcodeSuccess || v4 != c.v4 || v6 != c.v6 {
				t.Errorf("%s %s: v4 %t, v6 %t in %v", c.name, dns.TypeToString[c.typ], v4, v6, m)
			}
			if c.typ == dns.TypeHTTPS && !strings.Contains(m.String(), "alpn") {
				t.Errorf("%s HTTPS lost more than its hints: %v", c.name, m)
			}
		}
	}
	for _, from := range w.hosts() {
		for _, to := range []netip.Addr{lab.AbroadWebV6, lab.NumberedAddr(3, false, true), lab.NumberedHint(3, false, true), netip.MustParseAddr("64:ff9b::5db8:d822")} {
			w.noConnection(from, to)
		}
		for to, want := range map[netip.Addr]string{lab.AbroadWebV4: "tunnel", lab.HomeWebV4: "direct", lab.HomeWebV6: "direct"} {
			if err := w.carries(from, to, want, 0); err != nil {
				t.Errorf("%s to %s: %v", from.Name, to, err)
			}
		}
	}
	if a := lab.Addresses(w.ask("www.google.com", lab.Question{Server: lab.GoogleV6})); len(a) != 1 || a[0] == lab.ForgedV4 {
		t.Errorf("www.google.com by v6: %v", a)
	}
	w.noLeaks()
}
