package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"smartdns/lab"
)

// The ways out change under traffic: another uplink takes the default route,
// DHCP gives another address, prefix and gateway, the link flaps. The tunnel's
// packets and everything else follow within 3 s, nothing leaks, an address of
// ours is never marked from a second on, and no descriptor is left behind
// (SECURITY F-19, F-20, F-22).
func TestUplinkChanges(t *testing.T) {
	w := started(t)
	tr := w.traffic()
	// The other router is asked for, as the first is.
	w.Sniffer.Allow(func(p lab.Packet) bool { return p.String() == "who has 2001:db8:9::1?" })
	descriptors := w.descriptors()
	follows := func(what string, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("everything flows %s after %s", tr.works("after "+what, 9*time.Second).Round(time.Millisecond), what)
		w.waitFor("the kernel is as planned after "+what, 6*time.Second, w.asPlanned)
	}
	isp := func(lines ...string) {
		t.Helper()
		for _, l := range lines {
			words := strings.Fields(l)
			w.on(w.ISP, words[0], words[1:]...)
		}
	}

	follows("another uplink took the default routes", func() error {
		return commands(
			"ip link add link wan0 name wan1 type macvlan mode bridge",
			"ip addr add 192.0.2.77/24 dev wan1",
			"ip -6 addr add 2001:db8:2::77/64 dev wan1 nodad",
			"ip link set wan1 up",
			"ip route replace default via 192.0.2.1 dev wan1",
			"ip -6 route replace default via 2001:db8:2::1 dev wan1",
		)(w)
	})
	follows("it went", func() error {
		// It has answered ARP for all of our addresses: the ISP would wait for it.
		defer isp("ip neigh flush dev gw0")
		return commands("ip link delete wan1", "ip route replace default via 192.0.2.1 dev wan0", "ip -6 route replace default via 2001:db8:2::1 dev wan0")(w)
	})

	isp("ip addr add 192.0.2.3/24 dev gw0", "ip -6 addr add 2001:db8:9::1/64 dev gw0 nodad",
		"ip route replace 192.168.8.0/24 via 192.0.2.9", "ip -6 route replace fd00:8::/64 via 2001:db8:9::2")
	follows("DHCP and RA gave other addresses, prefixes and gateways", func() error {
		return commands(
			"ip addr flush dev wan0 scope global",
			"ip addr add 192.0.2.9/24 dev wan0",
			"ip -6 addr add 2001:db8:9::2/64 dev wan0 nodad",
			"ip route replace default via 192.0.2.3 dev wan0",
			"ip -6 route replace default via 2001:db8:9::1 dev wan0",
		)(w)
	})
	if _, err := w.run("ip", "addr", "add", "45.76.9.9/32", "dev", "wan0"); err != nil {
		t.Fatal(err)
	}
	w.waitFor("a new address of ours is never marked", 3*time.Second, func() error {
		if out, err := w.cli("route", "45.76.9.9"); err != nil || !strings.Contains(out, "no mark    an address of this host") {
			return fmt.Errorf("%v\n%s", err, out)
		}
		return nil
	})

	follows("the link flapped 50 times", func() error {
		for range 50 {
			for _, up := range []bool{false, true} {
				if err := w.Gateway.SetLink("wan0", up); err != nil {
					return err
				}
			}
		}
		return commands(
			"ip -6 addr replace 2001:db8:9::2/64 dev wan0 nodad",
			"ip route replace default via 192.0.2.3 dev wan0",
			"ip -6 route replace default via 2001:db8:9::1 dev wan0",
		)(w)
	})
	tr.stop()
	w.waitFor("no descriptor is left behind", 30*time.Second, func() error {
		if n := w.descriptors(); n > descriptors+4 {
			return fmt.Errorf("%d are open, %d were before", n, descriptors)
		}
		return nil
	})
	w.noLeaks()
}

// descriptors is how many the daemon has open.
func (w *world) descriptors() int {
	w.t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.daemon.Pid()))
	if err != nil {
		w.t.Fatal(err)
	}
	return len(open)
}
