package wg_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"smartdns/routing"
	"smartdns/routing/wg"
)

// world is a tunnel with a far end, in virtual time.
type world struct {
	begin time.Time
	peer  wg.PublicKey

	mu       sync.Mutex // guards following
	state    wg.PeerState
	alive    netip.AddrPort // where the far end answers; zero: nowhere
	broken   error          // what Observe says
	drifted  bool
	probes   int
	drifts   int
	called   []string // by SetEndpoint
	timeline []string // the states, with their times
}

func (w *world) Observe(context.Context) (wg.Observation, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return wg.Observation{Kind: wg.Userspace, Peers: map[wg.PublicKey]wg.PeerState{w.peer: w.state}, Drifted: w.drifted}, w.broken
}

func (w *world) SetEndpoint(_ context.Context, _ wg.PublicKey, to netip.AddrPort) (routing.Step, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.called = append(w.called, fmt.Sprintf("%v %s", w.passed(), to.Addr()))
	w.state = wg.PeerState{Endpoint: to}
	return step{}, nil
}

type step struct{}

func (step) String() string { return "wg set" }

func (w *world) calls() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.called)
}

func (w *world) passed() time.Duration { return time.Since(w.begin) }

// exchange sends and, if the far end is there, hears n bytes.
func (w *world) exchange(n int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.state.Endpoint.IsValid() {
		return false
	}
	w.state.TX += n
	if w.alive != w.state.Endpoint {
		return false
	}
	w.state.RX += n
	if w.state.Handshake.IsZero() {
		w.state.Handshake = time.Now()
	}
	return true
}

func (w *world) Probe(ctx context.Context) error {
	w.mu.Lock()
	w.probes++
	w.mu.Unlock()
	if w.exchange(100) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// watch runs a monitor of w until the test ends. It polls at whole seconds.
func (w *world) watch(t *testing.T, c *wg.Config, o wg.MonitorOptions) *wg.Monitor {
	o.Name, o.Config, o.Device, o.Logger = "wg0", c, w, slog.New(slog.DiscardHandler)
	o.Changed = func(s wg.Status) {
		w.set(func() { w.timeline = append(w.timeline, fmt.Sprintf("%v %s", w.passed(), s.State)) })
	}
	o.Drifted = func() { w.set(func() { w.drifts++ }) }
	m := wg.NewMonitor(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run says %v", err)
		}
	})
	// What tests do falls between two polls, so that it does not matter who is first.
	time.Sleep(time.Second / 2) // virtual
	return m
}

// wait lets d pass, sending n bytes every second when n > 0.
func (w *world) wait(d time.Duration, n int64) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if n > 0 {
			w.exchange(n)
		}
		time.Sleep(time.Second) // virtual
	}
	synctest.Wait()
}

func (w *world) expect(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := cmp.Diff(want, w.timeline); d != "" {
		t.Errorf("states (-want +got)\n%s", d)
	}
	w.timeline = nil
}

func (w *world) expectProbes(t *testing.T, want int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.probes != want {
		t.Errorf("%d probes, want %d", w.probes, want)
	}
}

var here, elsewhere = ap("198.51.100.2:51820"), ap("198.51.100.9:51820")

// newWorld returns a world whose far end is alive at a literal endpoint.
func newWorld(t *testing.T) (*world, *wg.Config) {
	c := newPair(t).near(t, here.String())
	return &world{begin: time.Now(), peer: c.Peers[0].PublicKey, alive: here, state: wg.PeerState{Endpoint: here}}, c
}

func TestMonitorStates(t *testing.T) {
	for _, c := range []struct {
		name   string
		probe  bool
		before func(w *world) // the first poll
		play   func(t *testing.T, w *world)
	}{
		{"the first handshake is up, and idle is up for ever", true, nil, func(t *testing.T, w *world) {
			w.wait(10*time.Hour, 0)
			w.expect(t, "0s up")
			w.expectProbes(t, 1)
		}},
		{"traffic both ways is up without probes", true, nil, func(t *testing.T, w *world) {
			w.wait(time.Hour, 100)
			w.expect(t, "0s up")
			w.expectProbes(t, 1)
		}},
		{"silence after sending is stale, then down", true, nil, func(t *testing.T, w *world) {
			w.wait(time.Minute, 0)
			w.set(func() { w.alive = netip.AddrPort{} })
			w.wait(time.Minute, 100)
			w.expect(t, "0s up", "1m11s stale", "1m16s down")
			w.set(func() { w.alive = here })
			w.wait(10*time.Second, 0)
			w.expect(t, "2m1s up")
		}},
		{"the probe goes on while down", true, nil, func(t *testing.T, w *world) {
			w.wait(time.Minute, 0)
			w.set(func() { w.alive = netip.AddrPort{} })
			w.wait(15*time.Second, 100)
			w.set(func() { w.probes = 0 })
			w.wait(time.Minute, 0)
			w.expect(t, "0s up", "1m11s stale", "1m16s down")
			w.expectProbes(t, 12)
		}},
		{"an answered probe ends the doubt", true, nil, func(t *testing.T, w *world) {
			w.wait(time.Minute, 0)
			w.set(func() { w.state.TX += 1000 }) // nobody has to answer that
			w.wait(time.Minute, 0)
			w.expect(t, "0s up", "1m11s stale", "1m11s up")
		}},
		{"keepalives need no answer", true, nil, func(t *testing.T, w *world) {
			w.wait(time.Second, 0)
			for range 100 {
				w.set(func() { w.state.TX += 32 })
				w.wait(25*time.Second, 0)
			}
			w.expect(t, "0s up")
			w.expectProbes(t, 1)
		}},
		{"a call from the peer ends down", true, nil, func(t *testing.T, w *world) {
			w.wait(time.Second, 0)
			w.set(func() { w.alive = netip.AddrPort{} })
			w.wait(20*time.Second, 100)
			w.expect(t, "0s up", "12s stale", "17s down")
			w.set(func() { w.state.Handshake, w.state.RX = time.Now(), w.state.RX+148 })
			w.wait(2*time.Second, 0)
			w.expect(t, "22s up")
		}},
		{"a tunnel that never connects is down", true, func(w *world) { w.alive = netip.AddrPort{} }, func(t *testing.T, w *world) {
			w.wait(time.Minute, 0)
			w.expect(t, "15s down")
		}},
		{"a session that was there is stale until it proves itself", true, func(w *world) {
			w.state.Handshake, w.state.RX, w.state.TX = time.Unix(1, 0), 1000, 1000
		}, func(t *testing.T, w *world) {
			w.wait(10*time.Second, 0)
			w.expect(t, "0s stale", "0s up")
		}},
		{"a dead session that was there is down", true, func(w *world) {
			w.state.Handshake, w.alive = time.Unix(1, 0), netip.AddrPort{}
		}, func(t *testing.T, w *world) {
			w.wait(time.Minute, 0)
			w.expect(t, "0s stale", "15s down")
		}},
		{"a device made anew connects again", true, nil, func(t *testing.T, w *world) {
			w.wait(time.Minute, 100)
			w.set(func() { w.state = wg.PeerState{Endpoint: here} })
			w.wait(10*time.Second, 0)
			w.expect(t, "0s up", "1m1s connecting", "1m1s up")
		}},
		{"a device that cannot be read is stale", true, nil, func(t *testing.T, w *world) {
			w.wait(time.Minute, 0)
			w.set(func() { w.broken, w.alive = errors.New("gone"), netip.AddrPort{} })
			w.wait(time.Minute, 0)
			w.expect(t, "0s up", "1m1s stale", "1m16s down")
			w.set(func() {
				if w.drifts < 59 {
					t.Errorf("told %d times, want each second", w.drifts)
				}
			})
		}},
		{"drift is told while it lasts", true, nil, func(t *testing.T, w *world) {
			w.wait(time.Second, 0)
			w.set(func() { w.drifted = true })
			w.wait(5*time.Second, 0)
			var drifts int
			w.set(func() { w.drifted, drifts = false, w.drifts })
			w.wait(5*time.Second, 0)
			w.set(func() {
				if drifts < 4 || w.drifts != drifts {
					t.Errorf("told %d times, then %d more", drifts, w.drifts-drifts)
				}
			})
		}},
		{"without a probe silence decides", false, nil, func(t *testing.T, w *world) {
			w.exchange(100)
			w.wait(time.Minute, 0)
			w.set(func() { w.alive = netip.AddrPort{} })
			w.wait(20*time.Second, 100)
			w.expect(t, "1s up", "1m11s stale", "1m16s down")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, config := newWorld(t)
				o := wg.MonitorOptions{}
				if c.probe {
					o.Probe = w.Probe
				}
				if c.before != nil {
					c.before(w)
				}
				w.watch(t, config, o)
				c.play(t, w)
			})
		})
	}
}

func TestMonitorStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, c := newWorld(t)
		m := w.watch(t, c, wg.MonitorOptions{Probe: w.Probe})
		w.wait(time.Minute, 100)
		w.mu.Lock()
		defer w.mu.Unlock()
		want := wg.Status{
			Name: "wg0", State: wg.Up, Since: w.begin, Kind: wg.Userspace, Peer: w.peer.Short(),
			Endpoint: here, Handshake: w.state.Handshake, RX: w.state.RX, TX: w.state.TX, Probe: wg.Probed{At: w.begin},
		}
		if d := cmp.Diff(want, m.Status(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	})
}

// lookup answers with addrs and counts.
func lookup(asked *atomic.Int32, addrs ...string) wg.Lookup {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		asked.Add(1)
		if host != "vpn.example.com" {
			return nil, errors.New("asked for " + host)
		}
		var all []netip.Addr
		for _, a := range addrs {
			all = append(all, netip.MustParseAddr(a))
		}
		return all, nil
	}
}

func TestEndpointNameIsTriedUntilAHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWorld(t)
		c := newPair(t).near(t, "vpn.example.com:51820")
		w.peer, w.state = c.Peers[0].PublicKey, wg.PeerState{}
		path := filepath.Join(t.TempDir(), "endpoints.json")
		store, err := wg.OpenStore(path, slog.New(slog.DiscardHandler))
		must(t, err)
		must(t, store.Add("vpn.example.com", netip.MustParseAddr("198.51.100.1")))
		var domestic, foreign atomic.Int32
		answer := here
		o := wg.MonitorOptions{Probe: w.Probe, Store: store, Lookups: []wg.Lookup{
			lookup(&domestic, "127.0.0.1", "203.0.113.5", "198.51.100.1"),
			func(ctx context.Context, host string) ([]netip.Addr, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return lookup(&foreign, answer.Addr().String())(ctx, host)
			},
		}}
		m := w.watch(t, c, o)
		w.wait(20*time.Second, 0)
		if d := cmp.Diff([]string{"0s 198.51.100.1", "6s 203.0.113.5", "12s 198.51.100.2"}, w.calls()); d != "" {
			t.Errorf("called (-want +got)\n%s", d)
		}
		w.expect(t, "12s up")
		if got := m.Status().Endpoint; got != here {
			t.Errorf("endpoint %v", got)
		}
		if got := store.Known("vpn.example.com"); !slices.Equal(got, []netip.Addr{here.Addr(), netip.MustParseAddr("198.51.100.1")}) {
			t.Errorf("remembered %v", got)
		}

		// The provider moves: only when the tunnel is dead is anybody asked again.
		w.set(func() { w.called, w.alive, answer = nil, elsewhere, elsewhere })
		w.wait(60*time.Second, 100)
		if domestic.Load() != 2 || foreign.Load() != 2 {
			t.Errorf("asked %d and %d times, want 2 and 2", domestic.Load(), foreign.Load())
		}
		if got := w.calls()[0]; got != "36s 198.51.100.2" && got != "35s 198.51.100.2" {
			t.Errorf("tried first: %s", got)
		}
		if got := m.Status(); got.State != wg.Up || got.Endpoint != elsewhere {
			t.Errorf("status %+v", got)
		}
	})
}

func TestEndpointNameThatNobodyKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newWorld(t)
		c := newPair(t).near(t, "vpn.example.com:51820")
		w.peer, w.state = c.Peers[0].PublicKey, wg.PeerState{}
		var asked atomic.Int32
		answers := []string{"0.0.0.0"}
		w.watch(t, c, wg.MonitorOptions{Probe: w.Probe, Lookups: []wg.Lookup{
			func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no network") },
			func(ctx context.Context, host string) ([]netip.Addr, error) {
				return lookup(&asked, answers...)(ctx, host)
			},
		}})
		w.wait(31*time.Second, 0)
		w.expect(t, "15s down")
		if n := asked.Load(); n < 6 || n > 8 || len(w.calls()) != 0 {
			t.Errorf("asked %d times in 31 s, called %v", n, w.calls())
		}
		w.set(func() { answers = []string{here.Addr().String()} })
		w.wait(6*time.Second, 0)
		w.set(func() {
			if len(w.timeline) != 1 {
				t.Errorf("states %v, want up", w.timeline)
			}
		})
	})
}

// Addresses to which there is no way cost no try, and where there is none at all
// that is said; when a way is there they are tried.
func TestSequencerPassesOverWhatCannotBeReached(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	ways := map[netip.Addr]bool{v4: true}
	s := wg.NewSequencer(wg.Endpoint{Host: "vpn.example.com", Port: 1}, nil,
		func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{v6, v4}, nil },
	).Reaching(func(a netip.Addr) bool { return ways[a] })
	for range 3 {
		if a, err := s.Next(t.Context()); err != nil || a.Addr() != v4 {
			t.Errorf("without IPv6: %s, %v", a, err)
		}
	}
	clear(ways)
	s.Restart()
	if a, err := s.Next(t.Context()); err == nil || !strings.Contains(err.Error(), "no way to 2001:db8::1") {
		t.Errorf("without a way: %s, %v", a, err)
	}
	ways[v6] = true
	if a, err := s.Next(t.Context()); err != nil || a.Addr() != v6 {
		t.Errorf("with a way: %s, %v", a, err)
	}
}

func TestSequencerAsksOnlyWhatItNeeds(t *testing.T) {
	var first, second atomic.Int32
	s := wg.NewSequencer(wg.Endpoint{Host: "vpn.example.com", Port: 1}, nil,
		lookup(&first, "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), lookup(&second, "192.0.2.2", "2001:db8::1"))
	for _, want := range []struct {
		addr          string
		first, second int32
	}{
		{"192.0.2.1:1", 1, 0}, {"192.0.2.2:1", 1, 0}, {"[2001:db8::1]:1", 1, 1}, {"192.0.2.1:1", 2, 1},
	} {
		got, err := s.Next(t.Context())
		if err != nil || got.String() != want.addr || first.Load() != want.first || second.Load() != want.second {
			t.Errorf("got %v (%v) after %d and %d questions, want %+v", got, err, first.Load(), second.Load(), want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	slow := wg.NewSequencer(wg.Endpoint{Host: "x.example", Port: 1}, nil, func(ctx context.Context, _ string) ([]netip.Addr, error) {
		return nil, ctx.Err()
	})
	if _, err := slow.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A tunnel that may have to stand in is probed every 30 s although nobody uses
// it: so it is known to be down before it is needed, and how long it takes.
func TestWatchfulTunnelIsProbedWhileItIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, c := newWorld(t)
		m := w.watch(t, c, wg.MonitorOptions{Probe: w.Probe, Watchful: func() bool { return true }})
		w.wait(10*time.Minute, 0)
		w.set(func() {
			if w.probes < 19 || w.probes > 22 {
				t.Errorf("%d probes in 10 min", w.probes)
			}
		})
		if s := m.Status(); s.State != wg.Up || s.Probe.Err != "" || time.Since(s.Probe.At) > 31*time.Second {
			t.Errorf("%+v", s)
		}
		w.set(func() { w.alive = netip.AddrPort{} })
		w.wait(time.Minute, 0)
		if s := m.Status(); s.State != wg.Down || s.Probe.Err == "" {
			t.Errorf("a minute after the far end died: %+v", s)
		}
	})
}
