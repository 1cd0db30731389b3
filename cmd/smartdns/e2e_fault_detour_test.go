package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/lab"
)

const rst = 0x04 // of TCP's flags

// With when_down = "direct", flows go direct while the far end is silent, names
// abroad are resolved over encrypted servers only, and all of it returns into
// the tunnel with the far end: what went direct meanwhile does not stay there.
// Which is why nothing leaks before and after (SECURITY F-11).
func TestSilentFarEndIsDetoured(t *testing.T) {
	w := newWorld(t)
	w.config = inTable(w.Gateway.Config("tls://8.8.8.8", "8.8.4.4"), "[tunnel.wg0]", `when_down = "direct"`)
	w.start()
	w.waitUp()
	tr := w.traffic()
	silent := time.Now()
	w.FarEnd.SetSilent(true)
	w.waitTunnel("stale", 20*time.Second)
	w.noLeaks() // until it is known to be down, it is as with "block"
	w.waitTunnel("down", 15*time.Second)
	t.Logf("down after %s", time.Since(silent).Round(time.Millisecond))
	w.waitFor("flows go direct", 3*time.Second, func() error {
		for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
			for _, to := range []string{"93.184.216.34:443", "[2606:2800:220:1:248:1893:25c8:1946]:443"} {
				if err := w.comesBy(from, to, "direct"); err != nil {
					return err
				}
			}
		}
		return nil
	})
	// Until a server of the side is heard again, that is what matters most.
	w.waitFor("status says that the traffic is going direct", 6*time.Second, func() error {
		if s := w.status(); !strings.Contains(s.Summary, "going direct") {
			return fmt.Errorf("it says %q", s.Summary)
		}
		return nil
	})
	w.DNS.Forget()
	if a := w.resolve("n77.foreign.test", 0); a != lab.NumberedAddr(77, false, false) {
		t.Errorf("n77.foreign.test is %s", a)
	}
	for _, q := range w.DNS.Asked("n77.foreign.test") {
		if q.Net != "tls" {
			t.Errorf("while the tunnel is down: %s", q)
		}
	}
	tr.unharmed(silent, "while the far end is silent", atHome)
	tr.stop()
	detoured := w.keep(lab.AbroadWebV4, lab.AbroadWebV6)
	w.goesOn("while the tunnel is down", 300*time.Millisecond, detoured)

	w.FarEnd.SetSilent(false)
	w.waitTunnel("up", 15*time.Second)
	for _, f := range detoured {
		w.waitFor("no flow goes direct any more", 6*time.Second, func() error {
			if err := f.session.Say(w.context(3*time.Second), "still here"); err == nil {
				return fmt.Errorf("the session from %s that went direct goes on", f.name)
			}
			if peer, err := f.who(); err != nil || !strings.Contains(peer, "10.9.0.2") && !strings.Contains(peer, "fd09::2") {
				return fmt.Errorf("datagrams from %s come from %s, %v", f.name, peer, err)
			}
			return nil
		})
	}
	// What still comes for them by the uplink is answered by it, with a reset.
	w.Sniffer.Allow(func(p lab.Packet) bool { return p.Proto == unix.IPPROTO_TCP && p.Flags&rst != 0 && len(p.Payload) == 0 })
	w.Sniffer.Reset()
	for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
		w.bothWays(from, 0)
	}
	w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
	w.noLeaks()
}

// comesBy returns what is wrong with the way of a new connection.
func (w *world) comesBy(from *lab.Namespace, to, want string) error {
	s, err := from.Visit(w.context(2*time.Second), netip.MustParseAddrPort(to))
	if err == nil && way(s) != want {
		err = fmt.Errorf("it went %s, want %s", way(s), want)
	}
	if err != nil {
		return fmt.Errorf("%s to %s: %w", from.Name, to, err)
	}
	return nil
}
