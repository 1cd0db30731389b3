package main

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/lab"
)

// Addresses of a provider that delegates a prefix: the LAN and the containers
// have public v6 addresses.
var (
	publicClient = netip.MustParseAddr("2001:470:8::20")
	publicBox    = netip.MustParseAddr("2001:470:30::2")
)

// delegate gives the LAN and the containers public v6 addresses, from which
// they then speak to the world.
func (w *world) delegate() {
	w.t.Helper()
	for _, a := range []struct {
		at   *lab.Namespace
		link string
		addr netip.Addr
	}{
		{w.Gateway.Namespace, "lan0", netip.MustParseAddr("2001:470:8::1")}, {w.Client, "eth0", publicClient},
		{w.Gateway.Namespace, "br-box", netip.MustParseAddr("2001:470:30::1")}, {w.Box, "eth0", publicBox},
	} {
		l, err := a.at.Netlink().LinkByName(a.link)
		if err != nil {
			w.t.Fatal(err)
		}
		addr, err := netlink.ParseAddr(a.addr.String() + "/64")
		if err != nil {
			w.t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := a.at.Netlink().AddrAdd(l, addr); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, p := range []string{"2001:470:8::/64", "2001:470:30::/64"} {
		if err := w.ISP.AddRoute(lab.Route{To: netip.MustParsePrefix(p), Via: lab.UplinkV6}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// With public v6 addresses behind the gateway everything is as with private
// ones: nothing tells their packets from those of the world but the interface.
func TestPublicAddressesBehindTheGateway(t *testing.T) {
	w := newWorld(t)
	w.delegate()
	w.start()
	w.waitUp()
	for _, from := range w.hosts() {
		w.bothWays(from, 1<<20)
	}
	for from, own := range map[*lab.Namespace]netip.Addr{w.Client: publicClient, w.Box: publicBox} {
		if seen, err := from.Visit(w.context(5*time.Second), port443(lab.HomeWebV6)); err != nil || seen.Peer.Addr() != own {
			t.Errorf("%s speaks as %s, %v; want %s", from.Name, seen.Peer, err, own)
		}
		pong, err := from.Ping(w.context(3*time.Second), lab.Ping{To: lab.AbroadWebV6, Size: 1450, DF: true})
		if err != nil || !pong.TooBig() || pong.MTU != 1420 {
			t.Errorf("%s, 1450 B: %+v, %v; want too big for 1420", from.Name, pong, err)
		}
		pong, err = from.Ping(w.context(3*time.Second), lab.Ping{To: lab.AbroadWebV6, TTL: 1})
		if err != nil || !pong.TimeExceeded() {
			t.Errorf("%s, TTL 1: %+v, %v; want time exceeded", from.Name, pong, err)
		}
		if err := w.comesIn(guest[false], own); err != nil {
			t.Errorf("%s to %s: %v", guest[false], own, err)
		}
		if err := w.comesIn(lab.HomeWebV6, own); err != nil {
			t.Errorf("%s to %s: %v", lab.HomeWebV6, own, err)
		}
	}
	if s, err := w.Box.Connect(w.context(3*time.Second), netip.AddrPortFrom(publicClient, lab.InboundPort)); err != nil {
		t.Errorf("the box to the client: %v", err)
	} else {
		s.Close()
	}
	for _, network := range []string{"udp", "tcp"} {
		m := w.ask("www.google.com", lab.Question{Server: lab.GoogleV6, Net: network})
		if a := lab.Addresses(m); len(a) != 1 || !lab.IsAbroad(a[0]) || a[0] == lab.ForgedV4 {
			t.Errorf("www.google.com over %s at %s: %v", network, lab.GoogleV6, a)
		}
	}
	w.noLeaks()
}
