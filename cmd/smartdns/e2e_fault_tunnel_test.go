package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
)

// Whatever others do to the tunnel's link or device, nothing leaves by the
// uplink meanwhile, the home side does not notice, and all is repaired within 2
// s (SECURITY F-12, F-13).
func TestTunnelFaultsAreRepaired(t *testing.T) {
	for _, f := range []fault{
		{what: "ip link set wg0 down", do: func(w *world) error { return w.Gateway.SetTunnel(false) }},
		{what: "ip link set wg0 down and up", do: func(w *world) error {
			if err := w.Gateway.SetTunnel(false); err != nil {
				return err
			}
			return w.Gateway.SetTunnel(true)
		}},
		{what: "wg0's addresses deleted", do: commands("ip addr flush dev wg0")},
		{what: "wg0's MTU made 1400", do: commands("ip link set wg0 mtu 1400")},
		{what: "wg0's MTU made 1200, which takes IPv6 off it", do: commands("ip link set wg0 mtu 1200")},
		{what: "wg0 deleted", do: commands("ip link delete wg0"), limit: 4 * time.Second},
		{what: "wg0 renamed", do: commands("ip link set wg0 name wg7"), limit: 4 * time.Second},
		{what: "the peer removed", do: func(w *world) error { return w.wg("peer", w.peer(), "remove") }, limit: 5 * time.Second},
		{what: "the peer's addresses taken away", do: func(w *world) error { return w.wg("peer", w.peer(), "allowed-ips", "10.99.0.0/24") }, limit: 5 * time.Second},
		{what: "the tunnel's own mark removed", do: func(w *world) error { return w.wg("fwmark", "off") }, limit: 5 * time.Second},
		{what: "the private key replaced", do: func(w *world) error {
			key, err := w.run("wg", "genkey")
			if err != nil {
				return err
			}
			file := w.Dir + "/other.key"
			if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
				return err
			}
			return w.wg("private-key", file)
		}, limit: 5 * time.Second},
	} {
		t.Run(f.what, func(t *testing.T) { started(t).survives(f) })
	}
}

// wg changes the tunnel's device behind the daemon's back.
func (w *world) wg(args ...string) error {
	_, err := w.run("wg", append([]string{"set", "wg0"}, args...)...)
	return err
}

// peer returns the public key of the tunnel's peer.
func (w *world) peer() string {
	w.t.Helper()
	out, err := w.run("wg", "show", "wg0", "peers")
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// The uplink goes and comes back: nothing leaks, and everything is back within
// 2 s of the link (SECURITY F-22).
func TestUplinkGoesAndComesBack(t *testing.T) {
	w := started(t)
	tr := w.traffic()
	for range sized(3, 50) {
		if err := w.Gateway.SetUplink(w.context(5*time.Second), false); err != nil {
			t.Fatal(err)
		}
		w.waitFor("no way out is noticed", 5*time.Second, func() error {
			for _, p := range tr.probes {
				if ok, _ := p.since(time.Now().Add(-100 * time.Millisecond)); ok {
					return fmt.Errorf("%s still works", p.name)
				}
			}
			return nil
		})
		if err := w.Gateway.SetUplink(w.context(5*time.Second), true); err != nil {
			t.Fatal(err)
		}
		t.Logf("everything flows %s after the uplink came back", tr.works("after the uplink came back", 9*time.Second))
	}
	w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
	tr.stop()
	w.noLeaks()
}

// The far end falls silent. The tunnel is found to be down within 20 s; until
// then its traffic waits, after that it fails within 100 ms, for clients and
// for the gateway itself; nothing leaves by the uplink, the home side does not
// notice, and all of it comes back with the far end; once, or 20 times (SECURITY
// F-11, L-11).
func TestSilentFarEndIsBlocked(t *testing.T) {
	w := started(t)
	tr := w.traffic()
	for round := range sized(1, 20) {
		w.FarEnd.SetSilent(true)
		silent := time.Now()
		w.waitTunnel("blocked", 25*time.Second)
		t.Logf("down after %s", time.Since(silent).Round(time.Millisecond))
		if s := w.status(); s.Fine || !strings.Contains(s.Summary, "wg0 is down") || !strings.Contains(s.Summary, "blocked") {
			t.Errorf("status says %q (fine %t), want that wg0 is down and blocked", s.Summary, s.Fine)
		}
		for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
			for _, to := range []string{"93.184.216.34:443", "[2606:2800:220:1:248:1893:25c8:1946]:443"} {
				w.failsFast(from, to)
			}
		}
		for i := range 3 {
			begun := time.Now()
			m, err := w.Client.Ask(w.context(10*time.Second), lab.Question{Server: gatewayDNS, Name: fmt.Sprintf("n%d.foreign.test", 9000+10*round+i)})
			if took := time.Since(begun); err != nil || m.Rcode != dns.RcodeServerFailure || took > 3*time.Second {
				t.Errorf("a name abroad after %s: %v %v, want SERVFAIL at once", took.Round(time.Millisecond), err, m)
			}
		}
		tr.unharmed(silent, "while the far end is silent", atHome)
		w.noLeaks()

		w.FarEnd.SetSilent(false)
		// The probe goes out every 5 s, and WireGuard calls every 5 s.
		t.Logf("everything flows %s after the far end spoke again", tr.works("after the far end spoke again", 20*time.Second))
		w.waitTunnel("up", 5*time.Second)
		w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
		tr.unharmed(silent, "until the far end spoke again", atHome)
		w.noLeaks()
	}
	tr.stop()
	w.noLeaks()
}

// waitTunnel waits until the first tunnel is in a state.
func (w *world) waitTunnel(state string, limit time.Duration) {
	w.t.Helper()
	w.waitFor("the tunnel is "+state, limit, func() error {
		if s := w.status().Tunnels[0].State; s != state {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
}

// failsFast checks that connections from a host fail because somebody says no,
// not because nobody answers.
func (w *world) failsFast(from *lab.Namespace, to string) {
	w.t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		var err error
		if network == "tcp" {
			_, err = from.Visit(w.context(5*time.Second), netip.MustParseAddrPort(to))
		} else {
			_, err = from.Datagram(w.context(5*time.Second), netip.MustParseAddrPort(to))
		}
		if err == nil || timedOut(err) {
			w.t.Errorf("%s from %s to %s: %v; want an error at once", network, from.Name, to, err)
		}
	}
}
