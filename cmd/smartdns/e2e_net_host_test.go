package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
)

// hostOnly is the configuration of a host that serves nobody but itself.
func hostOnly(config string) string { return strings.Replace(config, "lan = [\"lan0\"]\n", "", 1) }

var loopback = netip.MustParseAddr("127.0.0.1")

// A host without a LAN: its own names and flows are decided, it serves nobody
// else, and it does not become a router.
func TestHostWithoutLAN(t *testing.T) {
	w := newWorld(t)
	if err := w.Gateway.SetForwarding(false); err != nil {
		t.Fatal(err)
	}
	w.config = hostOnly(w.config)
	w.start()
	w.waitUp()
	gw := w.Gateway.Namespace
	w.bothWays(gw, 3<<20)
	for _, network := range []string{"udp", "tcp"} {
		for _, server := range []netip.Addr{loopback, netip.IPv6Loopback()} {
			for name, want := range map[string]string{"www.google.com": "tunnel", "www.baidu.com": "direct", "www.example.com": "tunnel"} {
				for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
					m, err := gw.Ask(w.context(5*time.Second), lab.Question{Server: server, Net: network, Name: name, Type: typ})
					if err != nil || len(lab.Addresses(m)) != 1 {
						t.Errorf("%s at %s over %s: %v, %v", name, server, network, m, err)
						continue
					}
					if err := w.carries(gw, lab.Addresses(m)[0], want, 0); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
		}
	}
	for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
		if pong, err := gw.Ping(w.context(5*time.Second), lab.Ping{To: to}); err != nil || !pong.EchoReply() {
			t.Errorf("pinging %s: %+v, %v", to, pong, err)
		}
	}
	for _, p := range toGateway {
		if err := w.comesIn(p.from, p.to); err != nil {
			t.Errorf("%s to %s: %v", p.from, p.to, err)
		}
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if v, err := w.Gateway.Sysctl(key); err != nil || v != "0" {
			t.Errorf("%s is %s, %v", key, v, err)
		}
	}
	for _, at := range []string{"192.168.8.1:53", "[fd00:8::1]:53", "192.0.2.2:53"} {
		if m, err := w.Client.Ask(w.context(300*time.Millisecond), lab.Question{At: netip.MustParseAddrPort(at), Name: "www.example.com"}); err == nil {
			t.Errorf("%s answered the client: %v", at, m)
		}
	}
	w.noLeaks()
}

// A host that forwards, for its containers or anybody, without a LAN of ours:
// what it forwards is decided like the rest.
func TestForwardedFlowsWithoutLAN(t *testing.T) {
	w := newWorld(t)
	w.config = hostOnly(w.config)
	w.start()
	w.waitUp()
	for _, from := range w.hosts() {
		w.bothWays(from, 1<<20)
	}
	for _, p := range append(toGateway, toLAN...) {
		if err := w.comesIn(p.from, p.to); err != nil {
			t.Errorf("%s to %s: %v", p.from, p.to, err)
		}
	}
	w.noLeaks()
}

// The sniffer sees every probe without us, and none with us: UDP, TCP and ICMP,
// v4 and v6, to the ports of the web, of DNS and another, from all (SECURITY
// L-01).
func TestProbesAreSeenWithoutUsAndNotWithUs(t *testing.T) {
	w := newWorld(t)
	type probe struct {
		what string
		send func()
	}
	var probes []probe
	for _, from := range w.hosts() {
		for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
			for _, port := range []uint16{53, 443, 853, 1234} {
				at := netip.AddrPortFrom(to, port)
				probes = append(probes,
					probe{from.Name + " tcp " + at.String(), func() {
						if s, err := from.Connect(w.context(300*time.Millisecond), at); err == nil {
							s.Close()
						}
					}},
					probe{from.Name + " udp " + at.String(), func() { from.Datagram(w.context(100*time.Millisecond), at) }})
			}
			probes = append(probes, probe{from.Name + " icmp " + to.String(), func() {
				from.Ping(w.context(time.Second), lab.Ping{To: to})
			}})
		}
		for _, server := range []netip.Addr{lab.Google, lab.GoogleV6} {
			for _, network := range []string{"udp", "tcp", "tls"} {
				probes = append(probes, probe{from.Name + " dns " + network + " " + server.String(), func() {
					from.Ask(w.context(time.Second), lab.Question{Server: server, Net: network, Name: "www.example.com", Roots: w.Gateway.AuthorityFile()})
				}})
			}
		}
	}
	for _, p := range probes {
		w.Sniffer.Reset()
		p.send()
		if w.Sniffer.Leaks() == 0 {
			t.Errorf("without us, %s: the sniffer did not see it", p.what)
		}
	}
	w.start()
	w.waitUp()
	w.Sniffer.Reset()
	for _, p := range probes {
		p.send()
		if w.Sniffer.Leaks() != 0 {
			t.Errorf("with us, %s: the sniffer saw %v", p.what, w.Sniffer.Frames())
			w.Sniffer.Reset()
		}
	}
}

// Who is neither this host nor its LAN gets nothing from us, on an address that
// the outside can reach: not of the cache either, and not after a reload.
// (SECURITY R-01)
func TestStrangersAreNotAnswered(t *testing.T) {
	w := newWorld(t)
	w.config = strings.Replace(w.config, `dns = ["127.0.0.1:53", "[::1]:53"]`, `dns = ["0.0.0.0:53", "[::]:53"]`, 1)
	w.start()
	w.waitUp()
	w.resolve("www.example.com", 0) // cached
	for _, reloaded := range []bool{false, true} {
		if reloaded {
			if err := w.daemon.Reload(w.context(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		for _, at := range []string{"192.0.2.2:53", "[2001:db8:2::2]:53", "192.168.8.1:53"} {
			for _, network := range []string{"udp", "tcp"} {
				for _, name := range []string{"www.example.com", "n00011.foreign.test", "www.baidu.com"} {
					for _, stranger := range []*lab.Namespace{w.ISP, w.Outside} {
						m, err := stranger.Ask(w.context(200*time.Millisecond), lab.Question{At: netip.MustParseAddrPort(at), Net: network, Name: name})
						if err == nil && (m.Rcode != dns.RcodeRefused || len(m.Answer) > 0) {
							t.Errorf("%s asks %s over %s for %s, reloaded %t: %v", stranger.Name, at, network, name, reloaded, m)
						}
					}
				}
			}
		}
		if asked := w.DNS.Asked("n00011.foreign.test"); len(asked) > 0 {
			t.Errorf("a stranger's question was passed on: %v", asked)
		}
		if a := w.resolve("www.example.com", 0); a != lab.AbroadWebV4 {
			t.Errorf("the client gets %s", a)
		}
		if m, err := w.Gateway.Ask(w.context(5*time.Second), lab.Question{Server: lab.UplinkV4, Name: "www.example.com"}); err != nil || len(lab.Addresses(m)) == 0 {
			t.Errorf("the host asks its own address: %v, %v", m, err)
		}
	}
}
