package linux_test

import (
	"strings"
	"testing"

	"smartdns/routing"
)

// forwarded returns which way the kernel sends, or refuses, a packet that came
// in by iif. It asks the reverse path filter too.
func (w *world) forwarded(to, from, iif, more string) string {
	w.t.Helper()
	out, err := w.try("ip route get " + to + " from " + from + " iif " + iif + more)
	if err != nil {
		return "refused: " + strings.TrimSpace(out)
	}
	for f := strings.Fields(out); len(f) > 1; f = f[1:] {
		if f[0] == "dev" {
			return f[1]
		}
	}
	return out
}

const direct = " mark 0x1000000"

// The answers to what clients ask directly pass a loose reverse path filter
// also beside a tunnel that does not carry their family.
func TestDirectAnswersReachTheLANBesideAV6OnlyTunnel(t *testing.T) {
	inside(t, func(w *world) {
		for _, l := range []string{"all", "eth0", "br-lan"} {
			w.sysctl("net/ipv4/conf/"+l+"/rp_filter", "2")
		}
		in := gateway(w.tunnel("wg0"))
		in.Tunnels[0].Addrs, in.Tunnels[0].AllowedIPs = prefixes("fd09::2/128"), prefixes("::/0")
		w.set(w.reconciler(), in)
		if s := w.left(in); len(s) != 0 {
			t.Errorf("still to do:\n%s", text(s))
		}
		for _, c := range []struct{ to, from, iif, more, want string }{
			{"223.5.5.5", "192.168.8.20", "br-lan", direct, "eth0"},
			{"192.168.8.20", "223.5.5.5", "eth0", "", "br-lan"},
			{"93.184.216.34", "192.168.8.20", "br-lan", "", "wg0"}, // which has no peer for it
		} {
			if got := w.forwarded(c.to, c.from, c.iif, c.more); got != c.want {
				t.Errorf("%s to %s: %s, want %s", c.from, c.to, got, c.want)
			}
		}
	})
}

// Direct packets of the LAN meet the rules that others have put behind ours, as
// those of this host do; unmarked ones do not.
func TestDirectPacketsOfTheLANMeetTheRulesOfOthers(t *testing.T) {
	inside(t, func(w *world) {
		w.ip("link add tailscale0 type veth peer name far-ts")
		w.ip("link set tailscale0 up")
		w.ip("link set far-ts up")
		w.ip("route add 100.101.0.0/16 dev tailscale0 table 52")
		w.ip("rule add pref 5270 lookup 52")
		r := w.reconciler()
		in := gateway(w.tunnel("wg0"))
		w.set(r, in)
		way := func(dst, more string) string { return w.forwarded(dst, "192.168.8.20", "br-lan", more) }
		for _, c := range []struct{ dst, more, want string }{
			{"100.101.1.1", direct, "tailscale0"},
			{"223.5.5.5", direct, "eth0"},
			{"100.101.1.1", "", "wg0"},
			{"100.101.1.1", " mark 0x2000000", "wg0"},
		} {
			if got := way(c.dst, c.more); got != c.want {
				t.Errorf("to %s%s: %s, want %s", c.dst, c.more, got, c.want)
			}
		}
		// Without where to go, direct is locked in as all else is.
		w.ip("rule del pref 5199")
		if got := way("100.101.1.1", direct); got != "wg0" {
			t.Errorf("without the last rule: %s, want wg0", got)
		}
		w.set(r, in)
		if got := way("100.101.1.1", direct); got != "tailscale0" {
			t.Errorf("after the repair: %s, want tailscale0", got)
		}
		w.set(r, routing.Input{})
		if out := w.ip("rule"); strings.Contains(out, "proto 153") {
			t.Errorf("after teardown:\n%s", out)
		}
	})
}
