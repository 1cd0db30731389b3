package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"smartdns/lab"
)

// flow is a session that has to stay on its path: a line over TCP, and a
// datagram from one socket, time and again.
type keptFlow struct {
	name    string
	session *lab.Session
	socket  net.Conn
	peer    string // whom the server saw in the first datagram
}

// keep opens flows from the client and from the gateway to addr.
func (w *world) keep(addrs ...netip.Addr) []*keptFlow {
	w.t.Helper()
	return w.keepAt(443, addrs...)
}

// keepAt is keep for another port of the servers.
func (w *world) keepAt(port uint16, addrs ...netip.Addr) []*keptFlow {
	w.t.Helper()
	var all []*keptFlow
	for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
		for _, to := range addrs {
			at := netip.AddrPortFrom(to, port)
			s, err := from.Connect(w.context(5*time.Second), at)
			if err != nil {
				w.t.Fatal(err)
			}
			c, err := from.Dial(w.context(5*time.Second), "udp", netip.AddrPort{}, at)
			if err != nil {
				w.t.Fatal(err)
			}
			w.t.Cleanup(func() { c.Close() })
			f := &keptFlow{name: fmt.Sprintf("%s to %s", from.Name, to), session: s, socket: c}
			if f.peer, err = f.who(); err != nil {
				w.t.Fatal(err)
			}
			all = append(all, f)
		}
	}
	return all
}

// who asks the server whom it sees.
func (f *keptFlow) who() (string, error) {
	if err := f.socket.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if _, err := f.socket.Write([]byte("who\n")); err != nil {
		return "", err
	}
	b := make([]byte, 512)
	n, err := f.socket.Read(b)
	words := strings.Fields(string(b[:n]))
	if err != nil || len(words) < 2 {
		return "", fmt.Errorf("%q: %w", b[:n], err)
	}
	return words[1], nil
}

// goesOn uses the flows for d, with bulk at the end, and fails the test for one
// that ends or comes another way.
func (w *world) goesOn(what string, d time.Duration, flows []*keptFlow) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < d; <-tick.C {
		for _, f := range flows {
			if err := f.session.Say(w.context(5*time.Second), "still here"); err != nil {
				w.t.Fatalf("%s: the session from %s: %v", what, f.name, err)
			}
			if peer, err := f.who(); err != nil || peer != f.peer {
				w.t.Fatalf("%s: the datagrams from %s come from %s, %v; before from %s", what, f.name, peer, err, f.peer)
			}
		}
	}
	for _, f := range flows {
		if err := f.session.Upload(w.context(5*time.Second), 256<<10); err != nil {
			w.t.Errorf("%s: uploading from %s: %v", what, f.name, err)
		}
	}
}

// The marks of addresses go, by `marks forget` and by their age; the flows that
// began with them stay on their path for as long as they last, and only new
// ones go by the new decision (SECURITY N-15).
func TestFlowsKeepTheirPathWhenMarksGo(t *testing.T) {
	for _, c := range []struct {
		name   string
		mark   func(w *world) (v4, v6 netip.Addr)
		forget func(w *world, a netip.Addr) error
	}{
		{"forgotten", func(w *world) (v4, v6 netip.Addr) {
			return w.resolve("n1.foreign.test", 1), w.resolve("n1.foreign.test", 28)
		}, func(w *world, a netip.Addr) error {
			_, err := w.cli("marks", "forget", a.String())
			return err
		}},
		{"expired", func(w *world) (v4, v6 netip.Addr) {
			w.nft(fmt.Sprintf("add element inet smartdns wg0_4 { %s timeout 3s }\nadd element inet smartdns wg0_6 { %s timeout 3s }\n", lab.AbroadWebV4, lab.AbroadWebV6))
			return lab.AbroadWebV4, lab.AbroadWebV6
		}, func(w *world, a netip.Addr) error {
			w.waitFor("the mark expires", 6*time.Second, func() error {
				if out, err := w.run("nft", "list", "set", "inet", "smartdns", markSet(a)); err != nil || strings.Contains(out, a.String()) {
					return fmt.Errorf("%s %w", out, err)
				}
				return nil
			})
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.config = shared(marksOnly(w.config))
			w.start()
			w.waitUp()
			v4, v6 := c.mark(w)
			flows := w.keep(v4, v6)
			w.goesOn("marked", 300*time.Millisecond, flows)
			for _, a := range []netip.Addr{v4, v6} {
				if err := c.forget(w, a); err != nil {
					t.Fatal(err)
				}
			}
			w.goesOn("after the marks have gone", 2*time.Second, flows)
			w.noLeaks()
			s, err := w.Client.Visit(w.context(5*time.Second), port443(v4))
			if err != nil || way(s) != "direct" {
				t.Errorf("a new connection went %s, %v; want direct: was the mark gone?", way(s), err)
			}
			w.Sniffer.Reset()
			w.goesOn("beside a new connection that goes direct", 300*time.Millisecond, flows)
			w.noLeaks()
		})
	}
}

// markSet returns the set of a's marks for the tunnel.
func markSet(a netip.Addr) string {
	if a.Is6() {
		return "wg0_6"
	}
	return "wg0_4"
}

// Marks that others delete are back without any answer. Flows do not notice,
// and new ones go through the tunnel again.
func TestMarksThatOthersDeletedComeBack(t *testing.T) {
	w := newWorld(t)
	w.config = shared(marksOnly(w.config))
	w.start()
	w.waitUp()
	to := []netip.Addr{w.resolve("n1.foreign.test", 1), w.resolve("n1.foreign.test", 28)}
	flows := w.keep(to...)
	back := func() {
		for _, a := range to {
			w.waitFor("the mark is back", 2*time.Second, func() error {
				if out, err := w.run("nft", "list", "set", "inet", "smartdns", markSet(a)); err != nil || !strings.Contains(out, a.String()) {
					return fmt.Errorf("%s %w", out, err)
				}
				return nil
			})
			s, err := w.Client.Visit(w.context(5*time.Second), port443(a))
			if err != nil || !s.ThroughTunnel() {
				t.Errorf("a new connection to %s went %s, %v; want through the tunnel", a, way(s), err)
			}
		}
	}
	for _, a := range to {
		w.nft(fmt.Sprintf("delete element inet smartdns %s { %s }\n", markSet(a), a))
	}
	back()
	w.goesOn("after elements were deleted", 500*time.Millisecond, flows)
	w.nft("flush set inet smartdns wg0_4\nflush set inet smartdns wg0_6\n")
	back()
	w.goesOn("after sets were flushed", 500*time.Millisecond, flows)
	w.noLeaks()
	if err := w.Gateway.FlushRuleset(); err != nil { // with it goes the translation of flows
		t.Fatal(err)
	}
	w.waitFor("the table is back", 2*time.Second, w.tableThere)
	back()
}

// reload makes the daemon run by config.
func (w *world) reload(config string) {
	w.t.Helper()
	if err := w.reconfigure(config); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.cli("reload"); err != nil {
		w.t.Fatal(err)
	}
}

// 30 reloads under traffic, or 51, by signal and by command, every third with a
// configuration that is wrong: nothing is lost, nothing leaks, and what is
// wrong changes nothing and says where it is wrong (SECURITY F-30, F-33, L-10).
func TestReloadUnderTraffic(t *testing.T) {
	w := started(t)
	tr := w.traffic()
	begun := time.Now()
	other := strings.Replace(w.config, "[decide]\n", "[decide]\nmixed = \"first\"\n", 1)
	reloads := sized(30, 51)
	for i := range reloads {
		switch i % 3 {
		case 0:
			w.reload(other)
		case 1:
			if err := w.reconfigure(w.config); err != nil {
				t.Fatal(err)
			}
			if err := w.daemon.Reload(w.context(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
		case 2:
			w.reloadRefuses(strings.Replace(w.config, `via     = "wg0"`, `via     = "wg9"`, 1), "smartdns.toml:14:", `no tunnel "wg9"`)
		}
	}
	for _, bad := range []struct{ config, says string }{
		{"", "restart"},
		{"[listen\n", "smartdns.toml:1:"},
		{strings.Replace(w.config, "[listen]", "[listen]\ncolour = 1", 1), "colour"},
		{strings.Replace(w.config, w.Gateway.WireGuardFile(), "/nowhere/wg0.conf", 1), "/nowhere/wg0.conf"},
		{w.config[:len(w.config)/2], "smartdns.toml"},
		// This is found when the tunnel is made: a link of that name is there.
		{w.config + fmt.Sprintf("\n[tunnel.br-box]\nconfig = %q\n", w.Gateway.WireGuardFile()), "br-box"},
	} {
		w.reloadRefuses(bad.config, bad.says)
	}
	if err := w.reconfigure(w.config); err != nil {
		t.Fatal(err)
	}
	tr.works("after the reloads", 6*time.Second)
	w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
	tr.unharmed(begun, fmt.Sprint(reloads, " reloads"), allProbes)
	tr.stop()
	w.noLeaks()
}

// reloadRefuses checks that a configuration is refused with these words, and
// changes nothing.
func (w *world) reloadRefuses(config string, says ...string) {
	w.t.Helper()
	if err := w.reconfigure(config); err != nil {
		w.t.Fatal(err)
	}
	before := w.rules()
	_, err := w.cli("reload")
	for _, s := range says {
		if err == nil || !strings.Contains(err.Error(), s) {
			w.t.Errorf("reload of a bad configuration: %v, want %q", err, s)
		}
	}
	if n := w.rules(); strings.Join(n, "\n") != strings.Join(before, "\n") {
		w.t.Errorf("a bad configuration changed the rules to %q, from %q", n, before)
	}
}

// A start with a configuration that is wrong ends with one sentence and changes
// nothing: what a crash left closed stays closed (SECURITY F-30).
func TestBadConfigAfterACrashOpensNothing(t *testing.T) {
	w := started(t)
	tr := w.traffic()
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	closed := w.dump()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	p, err := w.Gateway.StartDaemon(ctx, []string{w.exe}, strings.Replace(w.config, `via     = "wg0"`, `via     = "wg9"`, 1))
	if err == nil || !strings.Contains(err.Error(), `no tunnel "wg9"`) {
		t.Errorf("a start with a bad configuration: %v %v", p, err)
	}
	w.equal("after a start that was refused", w.dump(), closed)
	w.noLeaks()
	w.start()
	w.waitUp()
	tr.works("after the start", 6*time.Second)
	tr.stop()
	w.noLeaks()
}

// The kernel forgets all flows, as it does when a masqueraded address goes, or
// by `conntrack -F`. What then comes of no flow, an end, a reset or the rest of
// a download, is not on the uplink; sessions at home go on.
func TestForgottenFlowsDoNotLeak(t *testing.T) {
	w := started(t)
	hosts := []*lab.Namespace{w.Client, w.Box, w.Gateway.Namespace}
	for round := range 2 {
		var ending, loading, home []*lab.Session
		for _, from := range hosts {
			for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
				for _, list := range []*[]*lab.Session{&ending, &loading} {
					s, err := from.Connect(w.context(5*time.Second), port443(to))
					if err != nil {
						t.Fatal(err)
					}
					*list = append(*list, s)
				}
			}
			s, err := from.Connect(w.context(5*time.Second), port443(lab.HomeWebV4))
			if err != nil {
				t.Fatal(err)
			}
			home = append(home, s)
		}
		var loads sync.WaitGroup
		for _, s := range loading {
			ctx := w.context(time.Second)
			loads.Go(func() { _ = s.Download(ctx, 100<<20) }) // it is cut off
		}
		if err := w.Gateway.Netlink().ConntrackTableFlush(netlink.ConntrackTable); err != nil {
			t.Fatal(err)
		}
		var ends sync.WaitGroup
		closing := func(all []*lab.Session) { // no answer comes: each waits for one
			for _, s := range all {
				ends.Go(func() { s.Close() })
			}
			ends.Wait()
		}
		closing(ending)
		loads.Wait()
		for i, s := range home {
			if err := s.Say(w.context(5*time.Second), "still here"); err != nil {
				t.Errorf("round %d: the session of %s at home: %v", round, hosts[i].Name, err)
			}
			s.Close()
		}
		closing(loading)
		w.noLeaks()
	}
	for _, from := range hosts {
		w.bothWays(from, 0)
	}
	w.noLeaks()
}
