package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/lab"
)

// Routes that an evil network puts into main, by a router (CVE-2024-3661) or as
// neighbours (CVE-2023-36672), move nothing, whether they were there before us
// or come later. That they do move everything without us is lab's
// TestHostileRoutesAreSeen (SECURITY N-21, N-22).
func TestHostileRoutesMoveNothing(t *testing.T) {
	for _, early := range []bool{true, false} {
		t.Run(fmt.Sprintf("before us %t", early), func(t *testing.T) {
			w := newWorld(t)
			evil := func() {
				for _, r := range lab.HostileRoutes() {
					if err := w.Gateway.AddRoute(r); err != nil {
						t.Fatal(err)
					}
				}
			}
			if early {
				evil()
			}
			w.start()
			w.waitUp()
			open, err := w.Client.Connect(w.context(5*time.Second), port443(lab.AbroadWebV4))
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			if !early {
				evil()
			}
			for _, from := range w.hosts() {
				w.bothWays(from, 1<<18)
			}
			for _, name := range []string{"www.example.com", "www.google.com"} {
				a := w.resolve(name, 0)
				if err := w.carries(w.Client, a, "tunnel", 0); err != nil {
					t.Errorf("%s at %s: %v", name, a, err)
				}
			}
			if err := open.Say(w.context(5*time.Second), "still here"); err != nil {
				t.Errorf("an open session: %v", err)
			}
			w.noLeaks()
		})
	}
}

// addAddr gives the gateway's uplink an address, as a DHCP server can.
func (w *world) addAddr(p string) {
	w.t.Helper()
	nl := w.Gateway.Netlink()
	l, err := nl.LinkByName("wan0")
	if err != nil {
		w.t.Fatal(err)
	}
	a, err := netlink.ParseAddr(p)
	if err != nil {
		w.t.Fatal(err)
	}
	a.ValidLft = 3600 // and deprecated: of two addresses it is not the source
	a.Flags = unix.IFA_F_NODAD
	if err := nl.AddrAdd(l, a); err != nil {
		w.t.Fatal(err)
	}
}

// An uplink whose own network is said to be the victim's changes nothing. An
// uplink that has the victim's very address makes it unreachable, and no more:
// nothing leaks (SECURITY N-22).
func TestHostileAddressesDoNotLeak(t *testing.T) {
	t.Run("the victim's network", func(t *testing.T) {
		w := started(t)
		w.addAddr("93.184.216.200/24")
		w.addAddr("2606:2800:220:1::200/64")
		for _, from := range w.hosts() {
			w.bothWays(from, 0)
		}
		a := w.resolve("www.example.com", 0)
		if err := w.carries(w.Client, a, "tunnel", 0); err != nil {
			t.Error(err)
		}
		w.noLeaks()
	})
	t.Run("the victim's network, where only marks lead into the tunnel", func(t *testing.T) {
		w := marksWorld(t)
		w.addAddr("93.184.0.200/16")
		w.addAddr("2606:2800:220:1::200/64")
		w.waitFor("the network is known", 2*time.Second, func() error {
			out, err := w.cli("route", "93.184.0.200")
			if err != nil || !strings.Contains(out, "an address of this host") {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		})
		for _, name := range []string{"n00001.foreign.test", "v4.foreign.test", "many.foreign.test"} {
			for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS} {
				m := w.ask(name, lab.Question{Type: typ})
				for _, a := range append(lab.Addresses(m), lab.Hints(m)...) {
					if err := w.carries(w.Client, a, "tunnel", 0); err != nil {
						t.Errorf("%s at %s: %v", name, a, err)
					}
				}
			}
		}
		w.noLeaks()
	})
	t.Run("the victim's address", func(t *testing.T) {
		w := started(t)
		w.addAddr("93.184.216.34/32")
		w.addAddr("2606:2800:220:1:248:1893:25c8:1946/128")
		for _, from := range w.hosts() {
			for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
				if s, err := from.Connect(w.context(time.Second), port443(to)); err == nil {
					t.Errorf("%s reached %s, which is the gateway itself: %+v", from.Name, to, s.Seen)
					s.Close()
				}
			}
			if err := w.carries(from, lab.NumberedAddr(9, false, false), "tunnel", 0); err != nil {
				t.Errorf("%s to a neighbour of the victim: %v", from.Name, err)
			}
			for _, to := range []netip.Addr{lab.HomeWebV4, lab.HomeWebV6} {
				if err := w.carries(from, to, "direct", 0); err != nil {
					t.Errorf("%s to %s: %v", from.Name, to, err)
				}
			}
		}
		// It is one of ours now, and so is tied to nothing.
		w.waitFor("the address is known as this host's", time.Second, func() error {
			out, err := w.cli("route", lab.AbroadWebV4.String())
			if err != nil || !strings.Contains(out, "an address of this host") {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		})
		w.ask("www.example.com", lab.Question{})
		if p := w.marked(lab.AbroadWebV4); len(p) != 0 {
			t.Errorf("an address of this host is marked for %v", p)
		}
		w.noLeaks()
	})
}

// A rule of others before ours sends marked packets to main. The lock in our
// table holds, and status names the rule (SECURITY N-19).
func TestForeignRuleBeforeOursDoesNotLeak(t *testing.T) {
	w := started(t)
	if _, err := w.Gateway.Exec(w.context(5*time.Second), "ip", "rule", "add", "pref", "50", "lookup", "main"); err != nil {
		t.Fatal(err)
	}
	for _, from := range w.hosts() {
		if s, err := from.Connect(w.context(300*time.Millisecond), port443(lab.AbroadWebV4)); err == nil {
			if way(s.Seen) != "tunnel" {
				t.Errorf("%s went %s", from.Name, way(s.Seen))
			}
			s.Close()
		}
		if err := w.carries(from, lab.HomeWebV4, "direct", 0); err != nil {
			t.Errorf("%s: %v", from.Name, err)
		}
	}
	w.noLeaks()
	w.waitFor("status names the rule", time.Second, func() error {
		for _, c := range w.status().Conditions {
			if strings.Contains(c.What, "ip rule pref 50 lookup main") || strings.Contains(c.What, "pref 50") {
				return nil
			}
		}
		return fmt.Errorf("the conditions are %+v", w.status().Conditions)
	})
}
