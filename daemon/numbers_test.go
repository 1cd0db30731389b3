package daemon

import (
	"bytes"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smartdns/configs"
	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/resolver/upstream"
	"smartdns/routing"
	"smartdns/routing/linux"
	"smartdns/web/api"
)

// A userspace device ends with its process: only the rules still say that there
// were tunnels, and the file which was which (SECURITY C-09).
func TestNumbersSurviveAKilledRun(t *testing.T) {
	lock := func(n int) routing.Rule {
		return routing.Rule{Family: routing.V4, Pref: uint32(routing.PrefTunnel + 2*n + 1), Unreachable: true}
	}
	shows := func(n int, dev string) routing.State {
		table := uint32(routing.FirstTable + n)
		return routing.State{
			Rules:  []routing.Rule{{Family: routing.V4, Pref: uint32(routing.PrefTunnel + 2*n), Table: table}, lock(n)},
			Routes: []routing.Route{{Table: table, Dst: routing.V4.All(), Dev: dev, Protocol: routing.Protocol}},
		}
	}
	crossed := shows(0, "wg1") // somebody gave the number to another
	for _, c := range []struct {
		what string
		kept map[routing.Path]int
		have routing.State
		want map[routing.Path]int
	}{
		{"both devices are gone", map[routing.Path]int{"wg0": 0, "wg1": 1}, routing.State{Rules: []routing.Rule{lock(0), lock(1)}}, map[routing.Path]int{"wg0": 0, "wg1": 1}},
		{"after a clean stop", map[routing.Path]int{"wg0": 0, "wg1": 1}, routing.State{}, nil},
		{"one is gone", map[routing.Path]int{"wg0": 0, "wg1": 1}, routing.State{Rules: append(shows(1, "wg1").Rules, lock(0)), Routes: shows(1, "wg1").Routes}, map[routing.Path]int{"wg0": 0, "wg1": 1}},
		{"the kernel knows better", map[routing.Path]int{"wg0": 0, "wg1": 1}, crossed, map[routing.Path]int{"wg1": 0}},
		{"no file", nil, shows(3, "wg0"), map[routing.Path]int{"wg0": 3}},
		{"a number that there is not", map[routing.Path]int{"wg0": -1, "wg1": 16}, routing.State{Rules: []routing.Rule{lock(-1), lock(16)}}, nil},
	} {
		d := Dirs{Run: t.TempDir()}
		if c.kept != nil {
			if err := saveNumbers(d, c.kept); err != nil {
				t.Fatal(err)
			}
		}
		kept, err := keptNumbers(numbersFile(d).peek)
		got := shownNumbers(kept, c.have)
		if err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.what, got, err, c.want)
		}
		for range 2 {
			if err := forgetNumbers(d); err != nil {
				t.Error(err)
			}
		}
		if left, _ := os.ReadDir(d.Run); len(left) != 0 {
			t.Errorf("%s: %v is left", c.what, left)
		}
	}
}

// What only reads leaves a damaged file where it is; the daemon sets it aside.
func TestDamagedNumbersAreSetAsideByTheDaemonOnly(t *testing.T) {
	d := Dirs{Run: t.TempDir()}
	file := numbersFile(d)
	if err := os.WriteFile(file.path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := compiled(t, "", "0.0.0.0/0")
	for range 2 {
		var said bytes.Buffer
		l, err := p.intended(Options{Dirs: d, Log: slog.New(slog.NewTextHandler(&said, nil))}, routing.State{}, routing.Facts{})
		if err != nil || l.marks.numbers["wg0"] != 0 || !strings.Contains(said.String(), "other numbers") {
			t.Errorf("intended: %v, %v, %q", l.marks.numbers, err, said.String())
		}
	}
	if kept, err := keptNumbers(file.load); err == nil || kept != nil {
		t.Errorf("loading: %v, %v", kept, err)
	}
	if _, err := os.Stat(file.path + ".corrupt"); err != nil {
		t.Error(err)
	}
}

// With one tunnel down and another up, the table is as it should be.
func TestDiffOfTunnelsInDifferentStates(t *testing.T) {
	netnstest.Require(t)
	p := compiled(t, "", "0.0.0.0/0")
	for _, path := range []routing.Path{"wg1", "wg2"} {
		more := p.Tunnels[0]
		more.Path = path
		p.Tunnels = append(p.Tunnels, more)
	}
	p.Tunnels[1].WhenDown = configs.WhenDownDirect
	l, err := p.wanted(routing.Facts{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	netnstest.Do(t, netnstest.New(t), func() {
		for down := range 1 << len(p.Tunnels) {
			now := l
			now.links = maps.Clone(l.links)
			for i, tunnel := range p.Tunnels {
				n := now.links[tunnel.Path]
				n.up = down>>i&1 == 0
				now.links[tunnel.Path] = n
			}
			if err := withTable(t.Context(), func(table *nft.Table) error {
				_, err := table.Set(t.Context(), p.ruleset(now))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if out, err := p.diffTable(t.Context(), nil, l); err != nil || len(out) != 0 {
				t.Errorf("tunnels %03b are down: %v, %v", down, out, err)
			}
		}
	})
}

// A side is silent since the last of its servers went down.
func TestSilentSideSinceItsLastServer(t *testing.T) {
	at := time.Unix(1_790_000_000, 0)
	down := []upstream.Status{{DownSince: at}, {DownSince: at.Add(time.Minute)}, {DownSince: at.Add(time.Second)}}
	if c, ok := silent("foreign", down); !ok || !c.Since.Equal(at.Add(time.Minute)) {
		t.Errorf("%v, %v", c, ok)
	}
	if _, ok := silent("foreign", append(down, upstream.Status{Up: true})); ok {
		t.Error("one of them answers")
	}
	if _, ok := silent("foreign", nil); ok {
		t.Error("it has none")
	}
}

// The MTU follows the way to the endpoint, also when there was none at first.
func TestTunnelMTUFollowsTheWay(t *testing.T) {
	netnstest.Require(t, "ip")
	part := compiled(t, "", "0.0.0.0/0").Tunnels[0]
	netnstest.Do(t, netnstest.New(t), func() {
		k, err := linux.Open(filepath.Join(t.TempDir(), "sysctls"))
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		e := &engine{log: slog.New(slog.DiscardHandler), marks: marks{field: routing.DefaultField}}
		e.kernel = k
		tunnel := &running{part: part}
		for _, c := range []struct {
			command string
			want    int
		}{
			{"link add eth0 type veth peer name isp0", tunnelMTU},
			{"link set isp0 up", tunnelMTU},
			{"link set eth0 up mtu 1492", tunnelMTU},
			{"addr add 192.0.2.2/24 dev eth0", tunnelMTU},
			{"route add default via 192.0.2.1", 1492 - overhead},
			{"route replace default via 192.0.2.1 mtu 1400", 1400 - overhead},
			{"route replace default via 192.0.2.1 mtu 1300", 1300 - overhead}, // it has no IPv6
			{"route replace default via 192.0.2.1 mtu 1400", 1400 - overhead},
			{"route del default", 1400 - overhead}, // for a moment
			{"route add default via 192.0.2.1", 1492 - overhead},
		} {
			if out, err := exec.Command("ip", strings.Fields(c.command)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %s", c.command, out)
			}
			if got, fits := e.tunnelMTU(tunnel); got != c.want || fits != 0 {
				t.Errorf("after ip %s: MTU %d, of which %d fit, want %d", c.command, got, fits, c.want)
			}
		}
		tunnel.part = compiled(t, "", "0.0.0.0/0, ::/0").Tunnels[0]
		if out, err := exec.Command("ip", strings.Fields("route replace default via 192.0.2.1 mtu 1280")...).CombinedOutput(); err != nil {
			t.Fatal(string(out))
		}
		if got, fits := e.tunnelMTU(tunnel); got != leastMTU || fits != leastMTU-overhead {
			t.Errorf("with IPv6 in the tunnel and 1280 bytes on the way: MTU %d, of which %d fit", got, fits)
		}
	})
}

// A condition keeps the time at which it was first seen, until it is gone.
func TestConditionsKeepTheirTime(t *testing.T) {
	var n noticed
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	for _, c := range []struct{ now, want int }{{1, 1}, {2, 1}, {3, 1}} {
		all := []api.Condition{{What: "silent"}, {What: "known", Since: at(59)}}
		n.date(all, at(c.now))
		if all[0].Since != at(c.want) || all[1].Since != at(59) {
			t.Errorf("at %d: %v", c.now, all)
		}
	}
	n.date(nil, at(4))
	again := []api.Condition{{What: "silent"}}
	if n.date(again, at(5)); again[0].Since != at(5) {
		t.Errorf("after it was gone: %v", again)
	}
}
