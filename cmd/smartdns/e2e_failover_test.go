package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"smartdns/lab"
	"smartdns/web/api"
)

// Two tunnels: what belongs into wg0 goes by wg1 while wg0's far end is silent,
// the client's flows and the gateway's, TCP and UDP, both families, names too.
// What belongs into wg1 does not notice, the home side does not either, nothing
// takes the uplink, and all of it goes back; once, or 20 times (SECURITY F-10,
// L-11).
func TestAnotherTunnelStandsIn(t *testing.T) {
	w := newWorld(t)
	_, file, err := w.AddFarEnd(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	second := lab.NumberedAddr(5, false, false) // a server of wg1's own
	config := inTable(w.config, "[tunnel.wg0]", `when_down = "wg1"`)
	config = strings.Replace(config, "[side.domestic]", fmt.Sprintf("[tunnel.wg1]\nconfig = %q\n\n[side.domestic]", file), 1)
	w.config = strings.Replace(config, "addresses = [\n", fmt.Sprintf("addresses = [\n  { match = %q, via = \"wg1\" },\n", second.String()), 1)
	w.start()
	w.waitUp()
	w.waitCarried("wg1", "wg1", 20*time.Second)
	own := w.keep(second, lab.HomeWebV4, lab.HomeWebV6)
	w.goesBy("wg0")

	// Some seconds of silence are nobody's end.
	for range 3 {
		w.FarEnd.SetSilent(true)
		w.goesOn("while the far end of wg0 is silent for a moment", time.Second, own)
		w.FarEnd.SetSilent(false)
		w.waitFor("it goes on", 15*time.Second, func() error { return w.goByNow("wg0") })
	}

	for round := range sized(1, 20) {
		w.standsIn(78+round, own)
	}
	w.goesOn("after all of it", 300*time.Millisecond, own)
	w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
	w.noLeaks()
}

// standsIn has the far end of wg0 fall silent, and checks that wg1 stands in, for
// a name too, and that all of it goes back. Flows of wg1's own do not notice.
func (w *world) standsIn(number int, own []*keptFlow) {
	w.t.Helper()
	name := fmt.Sprintf("n%d.foreign.test", number)
	before := w.keep(lab.AbroadWebV4, lab.AbroadWebV6)
	w.FarEnd.SetSilent(true)
	silent := time.Now()
	w.waitFor("flows end with their tunnel", 40*time.Second, func() error {
		for _, f := range before {
			if err := f.session.Say(w.context(time.Second), "still here"); err == nil {
				return fmt.Errorf("the session from %s goes on", f.name)
			}
		}
		return w.carried("wg0", "wg1")
	})
	w.t.Logf("wg1 stands in after %s", time.Since(silent).Round(time.Millisecond))
	w.waitFor("wg1 stands in", 15*time.Second, func() error { return w.goByNow("wg1") })
	s := w.status()
	if !s.Fine || !strings.Contains(s.Summary, "wg0 is down, wg1 stands in") {
		w.t.Errorf("status says %q (fine %t), want that wg1 stands in", s.Summary, s.Fine)
	}
	if a := s.Tunnels[0]; a.State != "down" || a.Probe == nil || a.Probe.Error == "" {
		w.t.Errorf("wg0 is %+v, want that it is down and its probe fails", a)
	}
	if b := s.Tunnels[1]; b.State != "up" || b.Probe == nil || b.Probe.Latency <= 0 {
		w.t.Errorf("wg1 is %+v, want that it is up, with a latency", b)
	}
	w.DNS.Forget()
	if a := w.resolve(name, 0); a != lab.NumberedAddr(number, false, false) {
		w.t.Errorf("%s is %s", name, a)
	}
	for _, q := range w.DNS.Asked(name) {
		if q.From.Addr() != lab.SecondV4 {
			w.t.Errorf("while wg1 stands in: %s", q)
		}
	}
	for _, args := range [][]string{{"route", "93.184.216.34"}, {"query", name}, {"status"}} {
		if out, err := w.cli(args...); err != nil || !strings.Contains(out, "wg0 is down, wg1 stands in") {
			w.t.Errorf("smartdns %s: %v, want that it tells who stands in\n%s", strings.Join(args, " "), err, out)
		}
	}
	stood := w.keep(lab.AbroadWebV4, lab.AbroadWebV6)
	w.goesOn("by the stand-in", 500*time.Millisecond, append(stood, own...))
	w.noLeaks()

	w.FarEnd.SetSilent(false)
	w.waitCarried("wg0", "wg0", 40*time.Second)
	for _, f := range stood {
		w.waitFor("what stood in ends", 10*time.Second, func() error {
			if err := f.session.Say(w.context(3*time.Second), "still here"); err == nil {
				return fmt.Errorf("the session from %s goes on", f.name)
			}
			if peer, err := f.who(); err != nil || !strings.Contains(peer, "10.9.0.2") && !strings.Contains(peer, "fd09::2") {
				return fmt.Errorf("datagrams from %s come from %s, %v", f.name, peer, err)
			}
			return nil
		})
	}
	w.goesBy("wg0")
}

// goesBy fails unless new flows abroad leave by a tunnel.
func (w *world) goesBy(tunnel string) {
	w.t.Helper()
	if err := w.goByNow(tunnel); err != nil {
		w.t.Error(err)
	}
}

// goByNow returns what is wrong with the ways of new flows abroad.
func (w *world) goByNow(tunnel string) error {
	for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
		for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
			for network, visit := range map[string]func(d time.Duration) (lab.Seen, error){
				"tcp": func(d time.Duration) (lab.Seen, error) { return from.Visit(w.context(d), port443(to)) },
				"udp": func(d time.Duration) (lab.Seen, error) { return from.Datagram(w.context(d), port443(to)) },
			} {
				seen, err := visit(3 * time.Second)
				if err != nil {
					return fmt.Errorf("%s to %s by %s: %w", from.Name, to, network, err)
				}
				if seen.TunnelOf() != tunnel {
					return fmt.Errorf("%s to %s by %s comes from %s, want it by %s", from.Name, to, network, seen.Peer, tunnel)
				}
			}
		}
	}
	return nil
}

// carried returns an error unless a tunnel's flows are carried by another, or by
// itself.
func (w *world) carried(tunnel, by string) error {
	var t api.Tunnel
	for _, t = range w.status().Tunnels {
		if t.Path == tunnel {
			break
		}
	}
	if t.Path != tunnel || t.CarriedBy != by || by == tunnel && t.State != "up" {
		return fmt.Errorf("%s is %s and carried by %q, want by %s", tunnel, t.State, t.CarriedBy, by)
	}
	return nil
}

func (w *world) waitCarried(tunnel, by string, limit time.Duration) {
	w.t.Helper()
	w.waitFor(tunnel+" is carried by "+by, limit, func() error { return w.carried(tunnel, by) })
}
