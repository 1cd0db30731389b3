package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"smartdns/lab"
)

// beside puts the client into the gateway's uplink network, beside the router
// that knows it by the same switch.
func (w *world) beside() {
	w.t.Helper()
	for _, step := range []struct {
		on      *lab.Namespace
		command string
	}{
		{w.ISP, "ip link add sw type bridge"},
		{w.ISP, "ip addr flush dev gw0"},
		{w.ISP, "ip link set gw0 master sw"},
		{w.ISP, fmt.Sprintf("ip addr add %s/24 dev sw", lab.RouterV4)},
		{w.ISP, fmt.Sprintf("ip addr add %s/64 dev sw nodad", lab.RouterV6)},
		{w.ISP, "ip link set sw up"},
		{w.Client, "ip link del eth0"},
		{w.Client, fmt.Sprintf("ip link add eth0 type veth peer name cl0 netns /proc/%d/fd/%d", os.Getpid(), int(w.ISP.Handle()))},
		{w.ISP, "ip link set cl0 master sw up"},
		{w.Client, "ip addr add 192.0.2.20/24 dev eth0"},
		{w.Client, "ip addr add 2001:db8:2::20/64 dev eth0 nodad"},
		{w.Client, "ip link set eth0 up"},
		{w.Client, fmt.Sprintf("ip route add default via %s", lab.UplinkV4)},
		{w.Client, fmt.Sprintf("ip route add default via %s", lab.UplinkV6)},
	} {
		words := strings.Fields(step.command)
		if out, err := step.on.Exec(w.context(5*time.Second), words[0], words[1:]...); err != nil {
			w.t.Fatalf("%s: %s: %v\n%s", step.on.Name, step.command, err, out)
		}
	}
	w.config = strings.Replace(w.config, `lan = ["lan0"]`, `lan = ["wan0"]`, 1)
}

// A gateway beside the router: its only interface is the LAN's and the uplink.
// Clients ask it and go through it both ways, the router's answers too, and what
// they ask other servers is answered by it.
func TestGatewayBesideTheRouter(t *testing.T) {
	w := newWorld(t)
	w.beside()
	w.start()
	w.waitUp()
	for _, server := range []netip.Addr{lab.UplinkV4, lab.UplinkV6, lab.Google} {
		for name, want := range map[string]netip.Addr{
			"www.google.com": netip.MustParseAddr("142.250.72.196"),
			"www.baidu.com":  lab.HomeWebV4,
		} {
			m := w.ask(name, lab.Question{Server: server})
			if a := lab.Addresses(m); len(a) != 1 || a[0] != want {
				t.Errorf("%s at %s: %v, want %s", name, server, a, want)
			}
		}
	}
	for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
		w.bothWays(from, 100_000)
	}
	w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
	w.stop()
	if s, err := w.Client.Visit(w.context(5*time.Second), port443(lab.HomeWebV4)); err != nil || way(s) != "direct" {
		t.Errorf("after a stop: %v, %v", s, err)
	}
}
