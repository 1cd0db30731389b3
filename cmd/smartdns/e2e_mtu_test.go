package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"smartdns/lab"
)

// Somewhere on the way packets of more than 1280 bytes are dropped, and no ICMP
// comes back to say so. What the tunnel carries is measured, segments are made to
// fit both ways, and nothing hangs: DNS over TCP, 10 MB each way, IPv6. When the
// way is mended by a route that says what it carries, that is followed at once
// (SECURITY F-23).
func TestLargePacketsAreLostOnTheWay(t *testing.T) {
	w := newWorld(t)
	for _, n := range []*lab.Namespace{w.ISP, w.Outside} {
		w.on(n, "ip", "link", "set", "backbone", "mtu", "1280")
		w.on(n, "nft", "add table inet blackhole; add chain inet blackhole out { type filter hook output priority 0; }; "+
			"add rule inet blackhole out icmp type destination-unreachable drop; add rule inet blackhole out icmpv6 type packet-too-big drop")
	}
	w.start()
	w.waitUp()
	took := w.waitFor("what fits is found", 30*time.Second, func() error {
		if m := w.status().Tunnels[0].MTU; m.Link != 1420 || m.Fits < 1200 || m.Fits > 1220 || m.From != "measured" {
			return fmt.Errorf("the MTU is %+v", m)
		}
		return nil
	})
	t.Logf("found in %s: %+v", took.Round(10*time.Millisecond), w.status().Tunnels[0].MTU)
	w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)

	m, err := w.Client.Ask(w.context(10*time.Second), lab.Question{Server: gatewayDNS, Name: "large.foreign.test", Type: 16, Net: "tcp"})
	if err != nil || len(m.Answer) == 0 {
		t.Errorf("a large answer over TCP: %v, %v", m, err)
	}
	const size = 10 << 20
	for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
		for _, to := range []string{"93.184.216.34:443", "[2606:2800:220:1:248:1893:25c8:1946]:443"} {
			s, err := from.Connect(w.context(5*time.Second), netip.MustParseAddrPort(to))
			if err != nil {
				t.Errorf("from %s to %s: %v", from.Name, to, err)
				continue
			}
			if !s.Seen.ThroughTunnel() {
				t.Errorf("from %s to %s: not through the tunnel", from.Name, to)
			}
			begun := time.Now()
			if err := s.Upload(w.context(20*time.Second), size); err != nil {
				t.Errorf("from %s to %s: sending 10 MB: %v", from.Name, to, err)
			}
			if err := s.Download(w.context(20*time.Second), size); err != nil {
				t.Errorf("from %s to %s: receiving 10 MB: %v", from.Name, to, err)
			}
			t.Logf("10 MB each way from %s to %s: %s", from.Name, to, time.Since(begun).Round(time.Millisecond))
			s.Close()
		}
	}

	// The uplink itself says 1280 now.
	w.on(w.Gateway.Namespace, "ip", "link", "set", "wan0", "mtu", "1280")
	w.waitFor("the uplink's MTU is followed", 5*time.Second, func() error {
		if m := w.status().Tunnels[0].MTU; m.Link != 1280 || m.Fits != 1200 {
			return fmt.Errorf("the MTU is %+v", m)
		}
		return nil
	})
	w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
	s, err := w.Client.Connect(w.context(5*time.Second), netip.MustParseAddrPort("93.184.216.34:443"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Upload(w.context(20*time.Second), 1<<20); err != nil {
		t.Errorf("sending 1 MB over an uplink of 1280: %v", err)
	}
	s.Close()
	w.noLeaks()
}

// on runs a command on a host.
func (w *world) on(n *lab.Namespace, name string, args ...string) {
	w.t.Helper()
	if out, err := n.Exec(w.context(10*time.Second), name, args...); err != nil {
		w.t.Fatalf("%s %v on %s: %v\n%s", name, args, n.Name, err, out)
	}
}
