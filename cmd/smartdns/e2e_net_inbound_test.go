package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"smartdns/lab"
)

// comesIn opens a session from outside, and has it answered, over TCP with
// bytes both ways and over UDP.
func (w *world) comesIn(from, to netip.Addr) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	s, err := w.ConnectIn(ctx, from, to)
	if err != nil {
		return err
	}
	defer s.Close()
	if s.Seen.Peer.Addr() != from || s.Seen.Local.Addr() != to {
		return fmt.Errorf("the host saw %+v", s.Seen)
	}
	if err := s.Download(ctx, 1<<20); err != nil {
		return err
	}
	if err := s.Upload(ctx, 1<<20); err != nil {
		return err
	}
	seen, err := w.DatagramIn(ctx, from, to)
	if err != nil {
		return fmt.Errorf("UDP: %w", err)
	}
	if seen.Peer.Addr() != from {
		return fmt.Errorf("over UDP the host saw %+v", seen)
	}
	return nil
}

// keptOut checks that a session from outside does not begin.
func (w *world) keptOut(from, to netip.Addr) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 300*time.Millisecond)
	defer cancel()
	if s, err := w.ConnectIn(ctx, from, to); err == nil {
		w.t.Errorf("%s to %s over TCP: came in", from, to)
		s.Close()
	}
	udp, cancel := context.WithTimeout(w.t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := w.DatagramIn(udp, from, to); err == nil {
		w.t.Errorf("%s to %s over UDP: came in", from, to)
	}
}

// pair is a session from outside.
type pair struct{ from, to netip.Addr }

var (
	// toGateway come in by the uplink: from home and from abroad.
	toGateway = []pair{{guest[true], lab.UplinkV4}, {guest[false], lab.UplinkV6}, {lab.HomeWebV4, lab.UplinkV4}, {lab.HomeWebV6, lab.UplinkV6}}
	toLAN     = []pair{{guest[true], lab.ClientV4}, {guest[false], lab.ClientV6}, {lab.HomeWebV4, lab.ClientV4}, {lab.HomeWebV6, lab.ClientV6}}
	// byTunnel come out of the tunnel: from its far end and from beyond.
	byTunnel = []pair{{lab.FarV4, lab.TunnelV4}, {lab.FarV6, lab.TunnelV6}, {guest[true], lab.TunnelV4}, {guest[false], lab.TunnelV6}}
	// byTunnelToLAN too; the LAN has a route of its own to nobody but the far end.
	byTunnelToLAN = []pair{{lab.FarV4, lab.ClientV4}, {lab.FarV6, lab.ClientV6}}
)

// Where forwarding was on before us, sessions come in by the uplink to the
// gateway, to the LAN and to containers, and are answered the way they came,
// also when their peer is of tunnel class.
func TestInboundByTheUplinkIsAnsweredThere(t *testing.T) {
	w := started(t)
	for _, p := range append(append(toGateway, toLAN...), pair{guest[true], lab.BoxV4}, pair{guest[false], lab.BoxV6}) {
		if err := w.comesIn(p.from, p.to); err != nil {
			t.Errorf("%s to %s: %v", p.from, p.to, err)
		}
	}
	w.noLeaks()
	// And a peer that has a mark for the tunnel.
	a := w.resolve("www.example.com", 0)
	if err := w.comesIn(a, lab.UplinkV4); err != nil {
		t.Errorf("%s, which is marked, to the gateway: %v", a, err)
	}
	if err := w.carries(w.Client, a, "tunnel", 0); err != nil {
		t.Error(err)
	}
	w.noLeaks()
}

// Where it was us who turned forwarding on, nobody outside uses it: neither to
// the LAN, nor to containers, nor into the tunnel. The gateway itself is reached as before.
func TestOurForwardingIsNotForTheOutside(t *testing.T) {
	w := newWorld(t)
	if err := w.Gateway.SetForwarding(false); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.waitUp()
	before := w.counter(inboundBlocked)
	inside := append(slices.Clone(toLAN), pair{guest[true], lab.BoxV4}, pair{guest[false], lab.BoxV6})
	for _, p := range inside {
		w.keptOut(p.from, p.to)
	}
	if n := w.counter(inboundBlocked) - before; n < uint64(2*len(inside)) {
		t.Errorf("%d packets are counted as blocked, want at least %d", n, 2*len(inside))
	}
	// A neighbour on the uplink that takes us for its router.
	if err := w.ISP.AddRoute(lab.Route{To: netip.MustParsePrefix("93.184.99.0/24"), Via: lab.UplinkV4}); err != nil {
		t.Fatal(err)
	}
	heard := w.counter(inboundBlocked)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if seen, err := w.ISP.Visit(short, port443(netip.MustParseAddr("93.184.99.1"))); err == nil {
		t.Errorf("a neighbour went %s", way(seen))
	}
	if w.counter(inboundBlocked) == heard {
		t.Error("a neighbour's packet for the tunnel was not counted as blocked")
	}
	for _, p := range toGateway {
		if err := w.comesIn(p.from, p.to); err != nil {
			t.Errorf("%s to %s: %v", p.from, p.to, err)
		}
	}
	for _, from := range w.hosts() {
		w.bothWays(from, 0)
	}
	w.noLeaks()

	// A port that the administrator forwards, from home and from abroad.
	w.nft(`table inet admin { chain dstnat { type nat hook prerouting priority dstnat; iifname "wan0" ip daddr 192.0.2.2 tcp dport 2222 dnat ip to 192.168.8.20; }; }`)
	for _, from := range []netip.Addr{lab.HomeWebV4, guest[true]} {
		s, err := w.ConnectIn(w.context(5*time.Second), from, lab.UplinkV4)
		if err != nil {
			t.Errorf("a forwarded port, from %s: %v", from, err)
			continue
		}
		if s.Seen.Place != "client" || s.Seen.Peer.Addr() != from {
			t.Errorf("a forwarded port led to %+v", s.Seen)
		}
		if err := s.Download(w.context(5*time.Second), 1<<20); err != nil {
			t.Errorf("a forwarded port, from %s: %v", from, err)
		}
		s.Close()
	}
	w.noLeaks()
}

// The families are turned on one by one: a host that forwarded IPv4 alone,
// because of its containers, is not opened to the IPv6 internet by us.
func TestOurForwardingIsJudgedByFamily(t *testing.T) {
	w := newWorld(t)
	if err := w.Gateway.SetSysctl("net/ipv6/conf/all/forwarding", "0"); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.waitUp()
	for _, p := range toLAN {
		if p.to.Is6() {
			w.keptOut(p.from, p.to)
		} else if err := w.comesIn(p.from, p.to); err != nil {
			t.Errorf("%s to %s: %v", p.from, p.to, err)
		}
	}
	w.noLeaks()
}

const inboundBlocked = "packets: new connections from outside, blocked"

// New connections out of the tunnel are blocked, and counted, unless the file
// allows them; then they are answered through the tunnel.
func TestInboundThroughTheTunnel(t *testing.T) {
	t.Run("blocked by default", func(t *testing.T) {
		w := started(t)
		for _, p := range append(byTunnel, byTunnelToLAN...) {
			before := w.counter(inboundBlocked)
			w.keptOut(p.from, p.to)
			if n := w.counter(inboundBlocked) - before; n < 2 {
				t.Errorf("%s to %s: %d packets are counted as blocked, want a SYN and a datagram", p.from, p.to, n)
			}
		}
		w.bothWays(w.Client, 0)
		w.bothWays(w.Gateway.Namespace, 0)
		w.noLeaks()
	})
	t.Run("allowed", func(t *testing.T) {
		w := newWorld(t)
		w.config = inTable(w.config, "[tunnel.wg0]", `inbound = "allow"`)
		w.start()
		w.waitUp()
		for _, p := range append(byTunnel, byTunnelToLAN...) {
			if err := w.comesIn(p.from, p.to); err != nil {
				t.Errorf("%s to %s: %v", p.from, p.to, err)
			}
		}
		for _, p := range append(toGateway, toLAN...) {
			if err := w.comesIn(p.from, p.to); err != nil {
				t.Errorf("%s to %s: %v", p.from, p.to, err)
			}
		}
		w.noLeaks()
	})
}
