package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/lab"
	"smartdns/lab/failpoint"
)

// someFailpoints is how many changes lie between two kills, without -full:
// some every time, never the same of each file that is replaced.
const someFailpoints = 11

// The daemon is killed before each change that it makes to the kernel and to
// files while it starts, reloads and stops. The next start then brings all to
// what a clean start does, and `smartdns cleanup` leaves nothing. From a kill in
// a reload through the next start, nothing of the tunnel's leaves by the uplink;
// a start or a stop that is cut short locks as much as it has come to
// (SECURITY C-01).
func TestKilledBeforeAnyChange(t *testing.T) {
	k := newKilled(t)
	k.second = strings.Replace(k.first, "[side.domestic]", k.secondTunnel()+"[side.domestic]", 1)
	k.second = strings.Replace(k.second, `{ match = "*",                 via = "wg0" }`, `{ match = "198.51.100.0/24", via = "wg1" }, { match = "*", via = "wg0" }`, 1)
	k.traffic()

	k.none = k.state()
	for text, want := range map[string]*map[string]string{k.first: &k.clean, k.second: &k.changed} {
		g, p := k.launch(text, -1)
		k.ready(p)
		*want = k.settled(p)
		k.end(g, p)
		k.cleanup("after a clean start")
	}

	stride := stride()
	left := map[string]bool{"start": true, "stop": true, "reload": true}
	for n, round := 0, 0; len(left) > 0; n, round = n+stride, round+1 {
		if left["start"] && !k.start(n, round) {
			delete(left, "start")
		}
		if left["stop"] && !k.stop(n, round) {
			delete(left, "stop")
		}
		if left["reload"] && !k.reload(n) {
			delete(left, "reload")
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("killed before %d changes", k.count)
	if k.count < 100/stride {
		t.Errorf("there were only %d changes to be killed before", k.count)
	}
}

// With the kill switch closed nothing of the tunnel's leaves by the uplink, with
// no daemon, one that was killed before any change of its start or its stop, or
// the next one, until smartdns down (SECURITY C-01, 6.4).
func TestStrictKilledBeforeAnyChange(t *testing.T) {
	k := newKilled(t)
	k.first = strictly(k.first)
	k.none = k.state()
	if err := k.Gateway.WriteConfig(k.first); err != nil {
		t.Fatal(err)
	}
	if out, err := k.cli("lockdown"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k.traffic()
	k.Sniffer.Reset()
	g, p := k.launch(k.first, -1)
	k.ready(p)
	k.clean = k.settled(p)
	k.end(g, p)
	for n, more := 0, true; more && !t.Failed(); n += stride() {
		g, p := k.launch(k.first, n)
		what, moreOfStart := k.lastOr(g, p, func() bool { return slices.Contains(p.Notices(), "READY=1") })
		k.noLeaks()
		g, p = k.launch(k.first, -1)
		k.ready(p)
		k.is("killed in the start before "+what, p, k.clean)
		g.Limit(n)
		if err := p.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		what, more = k.last(g, p)
		more = more || moreOfStart
		k.noLeaks()
		g, p = k.launch(k.first, -1)
		k.ready(p)
		k.is("killed in the stop before "+what, p, k.clean)
		k.end(g, p)
		k.noLeaks()
	}
	t.Logf("killed before %d changes", k.count)
	if out, err := k.cli("down"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k.same("after down", k.state(), k.none)
}

// stride is how many changes there are from one kill to the next.
func stride() int {
	return sized(someFailpoints, 1)
}

// killed is a world whose daemon is killed.
type killed struct {
	*world
	first, second        string // files
	none, clean, changed map[string]string
	gates, count         int
}

// newKilled has few prefixes at home, since all that the kernel has is compared
// time and again.
func newKilled(t *testing.T) *killed {
	w := newWorld(t)
	near := filepath.Join(t.TempDir(), "near.txt")
	if err := os.WriteFile(near, []byte("39.156.0.0/16\n223.5.5.0/24\n119.29.29.0/24\n2400:da00::/32\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	config := w.config + fmt.Sprintf("\n[list.near]\nfile = %q\nregion = \"CN\"\n\n[geo]\nsources = [\"list:near\"]\n", near)
	return &killed{world: w, first: inTable(config, "[listen]", "system = true")}
}

// start kills a daemon that starts, before its n-th change. It reports whether
// it makes so many.
func (k *killed) start(n, round int) bool {
	g, p := k.launch(k.first, n)
	what, more := k.lastOr(g, p, func() bool { return slices.Contains(p.Notices(), "READY=1") })
	what = "killed in the start before " + what
	if round%2 == 1 {
		k.cleanup(what)
	}
	g, p = k.launch(k.first, -1)
	k.ready(p)
	k.is(what, p, k.clean)
	k.end(g, p)
	k.cleanup(what + ", started and killed again")
	return more
}

// stop does so with a daemon that stops.
func (k *killed) stop(n, round int) bool {
	g, p := k.launch(k.first, -1)
	k.ready(p)
	g.Limit(n)
	if err := p.Signal(unix.SIGTERM); err != nil {
		k.t.Fatal(err)
	}
	what, more := k.last(g, p)
	what = "killed in the stop before " + what
	if round%2 == 0 && more {
		g, p = k.launch(k.first, -1)
		k.ready(p)
		k.is(what, p, k.clean)
		k.end(g, p)
		what += ", started and killed again"
	}
	k.cleanup(what)
	return more
}

// reload does so with a daemon that reloads, and has the next one run by the
// same file.
func (k *killed) reload(n int) bool {
	g, p := k.launch(k.first, -1)
	k.ready(p)
	// A port that was used before the start would go on with the flow of then.
	if err := k.Gateway.Netlink().ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		k.t.Fatal(err)
	}
	k.Sniffer.Reset()
	if err := k.Gateway.WriteConfig(k.second); err != nil {
		k.t.Fatal(err)
	}
	g.Limit(n)
	notices := len(p.Notices())
	if err := p.Signal(unix.SIGHUP); err != nil {
		k.t.Fatal(err)
	}
	what, more := k.lastOr(g, p, func() bool { return slices.Contains(p.Notices()[notices:], "READY=1") })
	what = "killed in the reload before " + what
	g, p = k.launch(k.second, -1)
	k.ready(p)
	k.is(what, p, k.changed)
	k.noLeaks()
	k.end(g, p)
	k.cleanup(what + ", started and killed again")
	return more
}

// launch starts a daemon that may make so many changes.
func (k *killed) launch(config string, changes int) (*failpoint.Gate, *lab.Process) {
	k.t.Helper()
	k.gates++
	path := filepath.Join(filepath.Dir(k.Gateway.ConfigFile()), fmt.Sprintf("gate-%d", k.gates))
	g, err := failpoint.Listen(path)
	if err != nil {
		k.t.Fatal(err)
	}
	g.Limit(changes)
	if err := k.Gateway.WriteConfig(config); err != nil {
		k.t.Fatal(err)
	}
	p, err := k.Gateway.Launch("/usr/bin/env", failpoint.Env+"="+path, k.exe, "run", "-c", k.Gateway.ConfigFile(), "--run-dir", k.Gateway.RunDir(), "--state-dir", k.Gateway.StateDir())
	if err != nil {
		k.t.Fatal(err)
	}
	return g, p
}

func (k *killed) ready(p *lab.Process) {
	k.t.Helper()
	if err := p.Ready(k.context(30 * time.Second)); err != nil {
		k.t.Fatal(err)
	}
}

// last waits for the end of a daemon, and returns the change before which it
// was killed; more is false if that was the last, its own end.
func (k *killed) last(g *failpoint.Gate, p *lab.Process) (what string, more bool) {
	k.t.Helper()
	return k.lastOr(g, p, func() bool { return false })
}

// lastOr is last for a daemon that may be done without having been killed.
func (k *killed) lastOr(g *failpoint.Gate, p *lab.Process, done func() bool) (what string, more bool) {
	k.t.Helper()
	more = true
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-p.Done():
			running = false
		case <-tick.C:
			if done() {
				more, running = false, false
			}
		case <-limit:
			k.t.Fatalf("neither killed nor done:\n%s", p.Log())
		}
	}
	if what = g.Killed(); what == "" {
		what, more = "the end", false
	} else {
		k.count++
	}
	k.end(g, p)
	return what, more
}

// end kills what is left of a daemon.
func (k *killed) end(g *failpoint.Gate, p *lab.Process) {
	k.t.Helper()
	if err := p.Kill(); err != nil {
		k.t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		k.t.Fatal(err)
	}
}

// cleanup removes what is left, which then is nothing.
func (k *killed) cleanup(what string) {
	k.t.Helper()
	if out, err := k.cli("cleanup"); err != nil {
		k.t.Fatalf("%s: cleanup: %v\n%s", what, err, out)
	}
	k.same(what+", cleaned up", k.state(), k.none)
}

// is waits until the state is as it should be.
func (k *killed) is(what string, p *lab.Process, want map[string]string) {
	k.t.Helper()
	for begun := time.Now(); ; {
		now := k.state()
		if maps.Equal(now, want) {
			return
		}
		if time.Since(begun) > 10*time.Second {
			k.same(what+", started again", now, want)
			k.t.Logf("the daemon's log:\n%s", p.Log())
			return
		}
	}
}

// same fails the test with the lines in which two states differ.
func (k *killed) same(what string, got, want map[string]string) {
	k.t.Helper()
	for _, part := range slices.Sorted(maps.Keys(want)) {
		k.equal(what+": "+part, got[part], want[part])
	}
}

// settled waits until the state is one that the daemon would not change.
func (k *killed) settled(p *lab.Process) map[string]string {
	k.t.Helper()
	k.waitFor("the kernel is as planned", 10*time.Second, k.asPlanned)
	return k.state()
}

// state is what the gateway's kernel and files show, without marks, which
// answers bring and take.
func (k *killed) state() map[string]string {
	k.t.Helper()
	run, err := k.run("find", k.Gateway.RunDir(), "/run/wireguard", "-mindepth", "1")
	if err != nil && !strings.Contains(err.Error(), "No such file") {
		k.t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(run), "\n")
	slices.Sort(lines)
	// wg removes sockets that nobody serves.
	wg, err := k.run("sh", "-c", "for i in $(wg show interfaces); do for w in public-key fwmark peers allowed-ips preshared-keys; do echo $i $w $(wg show $i $w); done; done")
	if err != nil {
		k.t.Fatal(err)
	}
	return map[string]string{"kernel": unordered(k.dump()), "WireGuard": wg, "run directory": strings.Join(lines, "\n")}
}

// unordered sorts the objects of nftables, which the kernel lists in the order
// in which they were made.
func unordered(dump string) string {
	lines := strings.SplitAfter(dump, "\n")
	from := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "table inet smartdns") })
	to := slices.Index(lines, "}\n")
	if from < 0 || to < from {
		return dump
	}
	objects := strings.SplitAfter(strings.Join(lines[from+1:to], ""), "\n\t}\n")
	for i, o := range objects {
		objects[i] = strings.TrimPrefix(o, "\n")
	}
	slices.Sort(objects)
	return strings.Join(slices.Concat(lines[:from+1], objects, lines[to:]), "")
}

// traffic sends datagrams abroad all the time, from the LAN and from the host.
func (k *killed) traffic() {
	ctx, cancel := context.WithCancel(k.t.Context())
	var all sync.WaitGroup
	k.t.Cleanup(func() { cancel(); all.Wait() })
	for _, from := range []*lab.Namespace{k.Client, k.Gateway.Namespace} {
		for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
			all.Go(func() {
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
					}
					// A new flow each time. What is blocked is an error here.
					if c, err := from.Dial(ctx, "udp", netip.AddrPort{}, port443(to)); err == nil {
						_, _ = c.Write([]byte("who\n"))
						c.Close()
					}
				}
			})
		}
	}
}
