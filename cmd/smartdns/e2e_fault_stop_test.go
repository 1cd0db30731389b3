package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"smartdns/lab"
)

// dump is everything that the gateway's kernel and resolv.conf show.
func (w *world) dump() string {
	w.t.Helper()
	d, err := w.Gateway.Dump(w.context(10 * time.Second))
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// equal fails the test with the lines in which two dumps differ.
func (w *world) equal(what, got, want string) {
	w.t.Helper()
	if got == want {
		return
	}
	g, h := strings.Split(got, "\n"), strings.Split(want, "\n")
	var diff []string
	for _, l := range h {
		if !slices.Contains(g, l) {
			diff = append(diff, "-"+l)
		}
	}
	for _, l := range g {
		if !slices.Contains(h, l) {
			diff = append(diff, "+"+l)
		}
	}
	w.t.Errorf("%s: %d lines differ:\n%s", what, len(diff), strings.Join(diff[:min(len(diff), 40)], "\n"))
}

// stop ends the daemon as a service manager does.
func (w *world) stop() {
	w.t.Helper()
	if err := w.daemon.Stop(w.context(15 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
}

// use has everything done that leaves a trace while the daemon runs: marks in
// the sets, flows, learned names.
func (w *world) use() {
	w.t.Helper()
	for _, name := range []string{"www.baidu.com", "www.google.com", "n7.foreign.test", "n7.cn.test"} {
		to := w.resolve(name, 0)
		for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
			if _, err := from.Visit(w.context(5*time.Second), port443(to)); err != nil {
				w.t.Errorf("%s to %s: %v", from.Name, name, err)
			}
		}
	}
}

// A stop leaves no trace, also with [listen] system = true, with a shared
// table, as a host without a LAN, where others have tables and rules of their
// own, and after three starts (SECURITY C-06).
func TestStopLeavesNoTrace(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*testing.T, *world)
		starts int
	}{
		{name: "a gateway", starts: 1},
		{name: "three times", starts: sized(3, 50)},
		{name: "resolv.conf is ours", starts: 2, before: func(t *testing.T, w *world) {
			w.config = inTable(w.config, "[listen]", "system = true")
			w.writeResolvConf("# by the provider\\n\\nnameserver  223.5.5.5\\n;options rotate")
		}},
		{name: "a shared table", starts: 1, before: func(t *testing.T, w *world) { w.config = shared(w.config) }},
		{name: "a host", starts: 1, before: func(t *testing.T, w *world) {
			w.config = strings.Replace(w.config, `lan = ["lan0"]`, "", 1)
		}},
		{name: "forwarding was off", starts: 1, before: func(t *testing.T, w *world) {
			if err := w.Gateway.SetForwarding(false); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a host that others use too", starts: 2, before: func(t *testing.T, w *world) { w.others() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if c.before != nil {
				c.before(t, w)
			}
			before, asked := w.dump(), w.resolvConf()
			lan, system := strings.Contains(w.config, "lan0"), strings.Contains(w.config, "system = true")
			for range c.starts {
				w.start()
				w.waitUp()
				if lan {
					w.use()
				}
				if ours := strings.Contains(w.resolvConf(), "nameserver 127.0.0.1"); system && !ours {
					t.Errorf("resolv.conf is not ours:\n%s", w.resolvConf())
				}
				w.noLeaks()
				w.stop()
			}
			w.equal("after the stop", w.dump(), before)
			if now := w.resolvConf(); now != asked {
				t.Errorf("resolv.conf is %q, was %q", now, asked)
			}
		})
	}
}

// resolvConf returns the bytes of the gateway's resolv.conf.
func (w *world) resolvConf() string {
	w.t.Helper()
	text, err := w.run("cat", "/etc/resolv.conf")
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// writeResolvConf writes it; text is printf's.
func (w *world) writeResolvConf(text string) {
	w.t.Helper()
	if _, err := w.run("sh", "-c", "printf '"+text+"' > /etc/resolv.conf"); err != nil {
		w.t.Fatal(err)
	}
}

// others gives the gateway what other programs have: tables, one of them with
// our words in it, rules before and after our band, a route, and a mark.
func (w *world) others() {
	w.t.Helper()
	w.nft(`table inet filter {
	set smartdns { type ipv4_addr; elements = { 192.0.2.77 } }
	chain forward { type filter hook forward priority 0; policy accept; ct state invalid counter drop; }
}
table ip smartdns {
	chain c { type filter hook output priority 0; policy accept; meta mark & 0xff0000 == 0x80000 accept; }
}
`)
	for _, c := range []string{
		"ip rule add pref 5000 fwmark 0x80000/0xff0000 lookup 52",
		"ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main",
		"ip -6 rule add pref 5210 fwmark 0x80000/0xff0000 lookup main",
		"ip rule add pref 5150 to 198.51.100.0/24 lookup 52",
		"ip route add 198.51.100.0/24 via 192.0.2.1 table 52",
		"ip route add 203.0.113.0/24 dev lan0 table 52100",
	} {
		if err := commands(c)(w); err != nil {
			w.t.Fatal(err)
		}
	}
}

// After SIGKILL nothing leaks for as long as the daemon is dead, and home is
// still reached by address. After the next start DNS and tunnel are back within
// 2 s, in the state of a clean start (SECURITY C-01, C-03, L-09).
func TestKilledAndStartedAgain(t *testing.T) {
	for _, mode := range []string{"owned", "shared", "filtered", "detour"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			switch mode {
			case "shared":
				w.config = shared(w.config)
			case "detour": // for a tunnel that is down, not for one that is not yet up
				w.config = inTable(w.config, "[tunnel.wg0]", `when_down = "direct"`)
			case "filtered": // loose reverse path filters, systemd's default
				if err := w.Gateway.SetSysctl("net/ipv4/conf/all/rp_filter", "2"); err != nil {
					t.Fatal(err)
				}
			}
			w.start()
			w.waitUp()
			clean := w.dump()
			for range sized(2, 50) {
				tr := w.traffic()
				if err := w.daemon.Kill(); err != nil {
					t.Fatal(err)
				}
				dead := time.Now()
				w.waitFor("traffic for a while", 10*time.Second, func() error { return atLeast(dead, 1500*time.Millisecond) })
				tr.unharmed(dead, "while the daemon is dead", func(p *probe) bool { return atHome(p) && !strings.Contains(p.name, "asks") })
				for _, p := range tr.probes {
					ok, _ := p.since(dead.Add(100 * time.Millisecond))
					if ok && p.abroad {
						t.Errorf("while the daemon is dead: %s works", p.name)
					}
					if !ok && !p.abroad && !strings.Contains(p.name, "asks") {
						t.Errorf("while the daemon is dead: %s has not worked", p.name)
					}
				}
				w.noLeaks()

				again := time.Now()
				w.start()
				ready := time.Since(again)
				w.waitUp()
				up := time.Since(again)
				tr.works("after the start", 6*time.Second)
				tr.unharmed(dead, "from the kill through the start", func(p *probe) bool { return atHome(p) && !strings.Contains(p.name, "asks") })
				t.Logf("ready %s, tunnel up %s, everything flows %s after the start", ready.Round(time.Millisecond), up.Round(time.Millisecond), time.Since(again).Round(time.Millisecond))
				tr.stop()
				w.noLeaks()
			}
			w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
			// The next answers' marks and the last answers' are no difference.
			w.forgetAll()
			w.equal("after SIGKILL and a start", w.dump(), clean)
		})
	}
}

// A tunnel keeps its number when the daemon is killed and the file then lists
// the tunnels in another order: sets and flows still say the number.
func TestKilledAndReordered(t *testing.T) {
	w := newWorld(t)
	one, other := "[tunnel.wg0]\n", w.secondTunnel()
	first := w.config
	marks := func() map[string]string {
		all := map[string]string{}
		for _, tunnel := range w.status().Tunnels {
			all[tunnel.Path] = fmt.Sprint(tunnel.Mark, " ", tunnel.Table)
		}
		return all
	}
	w.config = strings.Replace(first, "[side.domestic]", other+"[side.domestic]", 1)
	w.start()
	before := marks()
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	w.config = strings.Replace(first, one, other+one, 1)
	w.start()
	if after := marks(); !maps.Equal(before, after) || len(after) != 2 {
		t.Errorf("marks and tables were %v, and are %v", before, after)
	}
	w.waitFor("the kernel is as planned", 6*time.Second, w.asPlanned)
}

// secondTunnel returns the table of a tunnel wg1, whose far end nobody is.
func (w *world) secondTunnel() string {
	w.t.Helper()
	text, err := os.ReadFile(w.Gateway.WireGuardFile())
	if err != nil {
		w.t.Fatal(err)
	}
	second := filepath.Join(w.t.TempDir(), "wg1.conf")
	private := regexp.MustCompile(`(?m)^PrivateKey.*$`).ReplaceAllString(string(text), "PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=")
	if err := os.WriteFile(second, []byte(private), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return "[tunnel.wg1]\nconfig = \"" + second + "\"\n\n"
}

// forgetAll forgets all marks.
func (w *world) forgetAll() {
	w.t.Helper()
	for _, m := range w.marks().Marks {
		if _, err := w.cli("marks", "forget", m.Addr.String()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// smartdns cleanup after SIGKILL leaves the host as it was before the start,
// with what others have untouched; a second time does nothing; while a daemon
// runs it refuses (SECURITY C-03).
func TestCleanup(t *testing.T) {
	w := newWorld(t)
	w.config = inTable(w.config, "[listen]", "system = true")
	w.writeResolvConf("nameserver 223.5.5.5\\n")
	w.others()
	before := w.dump()
	w.start()
	w.waitUp()
	w.use()

	running := w.dump()
	if out, err := w.cli("cleanup"); err == nil || !strings.Contains(err.Error(), "smartdns runs already") {
		t.Errorf("cleanup while the daemon runs: %v\n%s", err, out)
	}
	w.equal("after a cleanup that was refused", w.dump(), running)
	w.use()

	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	out, err := w.cli("cleanup")
	if err != nil || !strings.Contains(out, "/etc/resolv.conf") || !strings.Contains(out, "ip rule del") || !strings.Contains(out, "nft delete table inet smartdns") {
		t.Errorf("cleanup: %v\n%s", err, out)
	}
	w.equal("after cleanup", w.dump(), before)
	if out, err := w.cli("cleanup"); err != nil || out != "" {
		t.Errorf("a second cleanup: %v\n%s", err, out)
	}
	w.equal("after a second cleanup", w.dump(), before)
	w.start()
	w.waitUp()
	w.use()
	w.noLeaks()
}

// A second daemon refuses at once, with one sentence, and the first does not
// notice (SECURITY C-04).
func TestSecondDaemonRefuses(t *testing.T) {
	w := started(t)
	tr := w.traffic()
	begun := time.Now()
	second, err := w.Gateway.Launch(w.exe, "run", "-c", w.Gateway.ConfigFile(), "--run-dir", w.Gateway.RunDir(), "--state-dir", w.Gateway.StateDir())
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-second.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the second daemon has not refused")
	}
	want := fmt.Sprintf("smartdns: smartdns runs already in this network namespace (pid %d); stop it first\n", w.daemon.Pid())
	if second.ExitCode() != 1 || second.Log() != want {
		t.Errorf("the second daemon: exit code %d, %q; want 1, %q", second.ExitCode(), second.Log(), want)
	}
	t.Logf("refused after %s", time.Since(begun).Round(time.Millisecond))
	tr.works("after the second daemon", 6*time.Second)
	tr.unharmed(begun, "the second daemon", allProbes)
	tr.stop()
	if s := w.status(); s.Tunnels[0].State != "up" {
		t.Errorf("the tunnel of the first is %s", s.Tunnels[0].State)
	}
	w.noLeaks()
}

// A restart is a stop and a start. From its readiness on nothing leaks;
// sessions at home do not notice; those of clients through the tunnel go on or
// end at once, and never go on by the uplink (SECURITY C-08, L-09).
func TestRestart(t *testing.T) {
	w := started(t)
	before := w.dump()
	open := func(from *lab.Namespace, to netip.Addr) *lab.Session {
		s, err := from.Connect(w.context(5*time.Second), port443(to))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	home := map[string]*lab.Session{"client": open(w.Client, lab.HomeWebV4), "gateway": open(w.Gateway.Namespace, lab.HomeWebV6)}
	rounds := sized(3, 50)
	for range rounds {
		abroad := []*lab.Session{open(w.Client, lab.AbroadWebV4), open(w.Client, lab.AbroadWebV6)}
		w.stop()
		begun := time.Now()
		w.start()
		w.waitUp()
		t.Logf("up %s after the start", time.Since(begun).Round(time.Millisecond))
		for name, s := range home {
			if err := s.Say(w.context(5*time.Second), "still here"); err != nil {
				t.Errorf("%s's session at home after a restart: %v", name, err)
			}
		}
		for _, s := range abroad {
			if err := s.Say(w.context(5*time.Second), "still here"); err != nil && timedOut(err) {
				t.Errorf("a session abroad: %v, want an end at once", err)
			}
			s.Close()
		}
		w.use()
		w.noLeaks()
	}
	w.forgetAll()
	w.equal(fmt.Sprint("after ", rounds, " restarts"), w.dump(), before)
}

// While the daemon is dead somebody flushes what it left of nftables: still
// nothing of the LAN leaves, for the rules lock what nobody marks.
func TestFlushedWhileDead(t *testing.T) {
	w := started(t)
	tr := w.traffic()
	own := w.ownFrames()
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.Gateway.FlushRuleset(); err != nil {
		t.Fatal(err)
	}
	flushed := time.Now()
	w.waitFor("traffic for a while", 10*time.Second, func() error { return atLeast(flushed, time.Second) })
	for _, p := range tr.probes {
		if ok, _ := p.since(flushed.Add(100 * time.Millisecond)); ok && strings.HasPrefix(p.name, "client") && p.abroad {
			t.Errorf("while the daemon is dead: %s works", p.name)
		}
	}
	w.noLeaks()
	if own() == 0 {
		t.Error("nothing of the gateway itself left: was there any traffic?")
	}
	unlocked := w.deletedRules()
	w.start()
	w.waitUp()
	if n := unlocked(); n != 0 {
		t.Errorf("the start took away %d rules that locked", n)
	}
	tr.works("after the start", 6*time.Second)
	tr.stop()
	w.noLeaks()
}

// deletedRules counts the rules that are deleted from now on.
func (w *world) deletedRules() (count func() int) {
	w.t.Helper()
	s, err := nl.SubscribeAt(w.Gateway.Handle(), netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return func() (n int) {
		w.t.Helper()
		// What has happened is in the queue.
		if err := s.SetReceiveTimeout(&unix.Timeval{Usec: 1}); err != nil {
			w.t.Fatal(err)
		}
		for {
			events, _, err := s.Receive()
			if errors.Is(err, unix.EAGAIN) {
				return n
			}
			if err != nil {
				w.t.Fatal(err)
			}
			for _, e := range events {
				if e.Header.Type == unix.RTM_DELRULE {
					n++
				}
			}
		}
	}
}

// atLeast is an error until d has passed since begun.
func atLeast(begun time.Time, d time.Duration) error {
	if since := time.Since(begun); since < d {
		return fmt.Errorf("only %s", since)
	}
	return nil
}
