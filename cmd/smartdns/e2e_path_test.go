package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
)

// The poisoned name is clean over UDP, over TCP, and for a client that asks
// 8.8.8.8 itself. That without us it is forged is lab's TestPlainResolverIsPoisoned.
// (SECURITY S-13)
func TestPoisonedNamesAreClean(t *testing.T) {
	w := started(t)
	for _, name := range []string{"www.google.com", "www.facebook.com", "n00001.blocked.test"} {
		for _, network := range []string{"udp", "tcp"} {
			for _, server := range []netip.Addr{gatewayDNS, lab.Google, lab.Cloudflare, lab.AliDNS} {
				m, err := w.Client.Ask(w.context(10*time.Second), lab.Question{Server: server, Net: network, Name: name})
				if err != nil {
					t.Errorf("%s over %s at %s: %v", name, network, server, err)
					continue
				}
				a := lab.Addresses(m)
				if len(a) == 0 || !lab.IsAbroad(a[0]) || a[0] == lab.ForgedV4 {
					t.Errorf("%s over %s at %s: %v, want the clean answer", name, network, server, a)
				}
			}
		}
	}
	w.noLeaks()
}

// marksOnly is a policy under which only a mark leads into the tunnel: without
// its element in wg0's set, a connection to a foreign name goes direct and the
// sniffer sees it.
func marksOnly(config string) string {
	config = strings.Replace(config, `ask = "foreign" }`, `ask = "foreign", via = "wg0" }`, 1)
	return strings.Replace(config, `{ match = "*",                 via = "wg0" }`, `{ match = "*", via = "direct" }`, 1)
}

// Every address is in its set when its answer arrives: fresh and cached
// answers, UDP and TCP, A, AAAA and the hints of HTTPS. The connection is
// opened right after the answer, and 0 of 10,000 first packets are on the
// uplink (SECURITY N-01).
func TestFirstPacketTakesTheMarkedPath(t *testing.T) {
	w := newWorld(t)
	w.config = marksOnly(w.config)
	w.start()
	w.waitUp()

	// The control: what nobody has asked for has no element, and leaves direct.
	s, err := w.Client.Connect(w.context(5*time.Second), netip.AddrPortFrom(lab.NumberedAddr(11_000, false, false), 443))
	if err != nil || w.Sniffer.Leaks() == 0 {
		t.Fatalf("an unmarked foreign address: %v, %d frames on the uplink; want it direct and seen", err, w.Sniffer.Leaks())
	}
	s.Close()
	w.Sniffer.Reset()

	const total = 10_000
	for _, c := range []struct {
		what     string
		q        lab.Question
		count    int
		parallel int
	}{
		{"fresh A over UDP", lab.Question{}, total * 4 / 10, 50},
		{"cached A over UDP", lab.Question{}, total * 2 / 10, 50},
		{"cached A over TCP", lab.Question{Net: "tcp"}, total / 10, 15},
		{"fresh AAAA over TCP", lab.Question{Net: "tcp", Type: dns.TypeAAAA}, total / 10, 15},
		{"fresh HTTPS hints", lab.Question{Type: dns.TypeHTTPS}, total / 10, 50},
		{"cached HTTPS hints", lab.Question{Type: dns.TypeHTTPS}, total / 10, 50},
	} {
		c.q.Server = gatewayDNS
		names := lab.Numbered("foreign", c.count)
		n := w.Client.Burst(w.context(2*time.Minute), lab.Burst{Question: c.q, Names: names, Port: 443, Parallel: c.parallel})
		if n.Tunnel != c.count {
			t.Errorf("%s: %d through the tunnel, %d direct, %d failed of %d\n%s", c.what, n.Tunnel, n.Direct, n.Failed, c.count, strings.Join(n.Failures, "\n"))
		}
		w.noLeaks()
		if t.Failed() {
			return
		}
	}
}

// Names at home go direct, others through the tunnel: v4 and v6, TCP and UDP, 3
// MB both ways, for a LAN client, for the gateway itself, and for a container
// on a bridge that is not in lan; once, or for ten minutes (SECURITY L-02).
func TestTwoPaths(t *testing.T) {
	w := started(t)
	begun, rounds := time.Now(), 0
	for rounds == 0 || time.Since(begun) < sized(0, 10*time.Minute) && !t.Failed() {
		w.takesTwoPaths()
		w.noLeaks()
		rounds++
	}
	t.Logf("%d rounds in %s", rounds, time.Since(begun).Round(time.Second))
}

// takesTwoPaths goes every way once, from everywhere.
func (w *world) takesTwoPaths() {
	w.t.Helper()
	const mb = 1 << 20
	for _, host := range []struct {
		name string
		ns   *lab.Namespace
		dns  netip.Addr
	}{
		{"client", w.Client, gatewayDNS},
		{"gateway", w.Gateway.Namespace, netip.MustParseAddr("127.0.0.1")},
		{"container", w.Box, lab.Google},
	} {
		for _, c := range []struct {
			name string
			typ  uint16
			want string
		}{
			{"www.baidu.com", dns.TypeA, "direct"},
			{"www.baidu.com", dns.TypeAAAA, "direct"},
			{"www.example.com", dns.TypeA, "tunnel"},
			{"www.example.com", dns.TypeAAAA, "tunnel"},
		} {
			what := fmt.Sprintf("%s to %s %s", host.name, c.name, dns.TypeToString[c.typ])
			var to netip.Addr
			if host.ns == w.Box {
				to = map[string]netip.Addr{
					"www.baidu.com1": lab.HomeWebV4, "www.baidu.com28": lab.HomeWebV6,
					"www.example.com1": lab.AbroadWebV4, "www.example.com28": lab.AbroadWebV6,
				}[fmt.Sprint(c.name, c.typ)]
			} else {
				m, err := host.ns.Ask(w.context(10*time.Second), lab.Question{Server: host.dns, Name: c.name, Type: c.typ})
				if err != nil || len(lab.Addresses(m)) == 0 {
					w.t.Errorf("%s: %v %v", what, m, err)
					continue
				}
				to = lab.Addresses(m)[0]
			}
			s, err := host.ns.Connect(w.context(10*time.Second), netip.AddrPortFrom(to, 443))
			if err != nil {
				w.t.Errorf("%s: %v", what, err)
				continue
			}
			if way(s.Seen) != c.want {
				w.t.Errorf("%s over TCP went %s (the server saw %s), want %s", what, way(s.Seen), s.Seen.Peer, c.want)
			}
			if err := s.Upload(w.context(20*time.Second), 3*mb); err != nil {
				w.t.Errorf("%s: %v", what, err)
			}
			if err := s.Download(w.context(20*time.Second), 3*mb); err != nil {
				w.t.Errorf("%s: %v", what, err)
			}
			s.Close()
			seen, err := host.ns.Datagram(w.context(10*time.Second), netip.AddrPortFrom(to, 443))
			if err != nil || way(seen) != c.want {
				w.t.Errorf("%s over UDP: went %s, %v; want %s", what, way(seen), err, c.want)
			}
		}
	}
}
