package linux_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/lab/netnstest"
	"smartdns/routing"
	"smartdns/routing/linux"
)

// home is as many prefixes as CN has, 5,527 and 2,026, that do not touch.
func home() []routing.Way {
	var ways []routing.Way
	for i := range 5527 {
		a := netip.AddrFrom4([4]byte{byte(20 + i>>7), byte(i << 1), 0, 0})
		ways = append(ways, routing.Way{Dst: netip.PrefixFrom(a, 16), Path: routing.Direct})
	}
	for i := range 2026 {
		a := netip.AddrFrom16([16]byte{0x24, 0x08, byte(i >> 7), byte(i << 1)})
		ways = append(ways, routing.Way{Dst: netip.PrefixFrom(a, 32), Path: routing.Direct})
	}
	return ways
}

func byRoutes(index int) routing.Input {
	in := input(index)
	in.Ways = append(home(),
		routing.Way{Dst: netip.MustParsePrefix("192.168.0.0/16")}, routing.Way{Dst: netip.MustParsePrefix("fd00::/8")},
		routing.Way{Dst: routing.V4.All(), Path: "wg0"}, routing.Way{Dst: routing.V6.All(), Path: "wg0"})
	return in
}

// leads returns the device, and the gateway if there is one, that the kernel
// chooses for an address.
func (w *world) leads(to string) string {
	w.t.Helper()
	out, err := w.try("ip route get " + to)
	if err != nil {
		return "refused"
	}
	var words []string
	f := strings.Fields(out)
	for i := range f[:len(f)-1] {
		if f[i] == "via" || f[i] == "dev" {
			words = append(words, f[i+1])
		}
	}
	return strings.Join(words, " ")
}

func (w *world) lead(when string, want map[string]string) {
	w.t.Helper()
	for to, way := range want {
		if got := w.leads(to); got != way {
			w.t.Errorf("%s: %s goes %q, want %q", when, to, got, way)
		}
	}
}

// Home's prefixes lead through the uplink's gateway, all else into the tunnel;
// they follow the default routes, and nobody else's route moves the rest
// (SECURITY F-19).
func TestHomeByRoutesFollowsTheUplink(t *testing.T) {
	inside(t, func(w *world) {
		before := w.dump()
		in := byRoutes(w.tunnel("wg0"))
		r := w.reconciler()
		w.set(r, in)
		if s := w.set(r, in); len(s) != 0 {
			t.Errorf("the second Set took %d steps, the first %s", len(s), s[0])
		}
		w.lead("at first", map[string]string{
			"20.0.1.2": "192.0.2.1 eth0", "2408::9": "2001:db8::1 eth0",
			"93.184.216.34": "wg0", "2606:2800::1": "wg0", "192.168.8.20": "br-lan", "10.1.2.3": "wg0",
		})
		w.start(r)
		settled := func() bool { return w.settled(in) }
		for _, c := range []struct {
			what string
			do   []string
			want map[string]string
		}{
			{"another gateway", []string{"route replace default via 192.0.2.9 dev eth0", "-6 route replace default via fe80::9 dev eth0 metric 1024"},
				map[string]string{"20.0.1.2": "192.0.2.9 eth0", "2408::9": "fe80::9 eth0", "93.184.216.34": "wg0"}},
			{"an uplink without a gateway", []string{"route replace default dev eth0"},
				map[string]string{"20.0.1.2": "eth0", "93.184.216.34": "wg0"}},
			{"a second one that is preferred less", []string{"route replace default dev eth0 metric 10", "route del default metric 0", "route add default via 192.168.8.9 dev br-lan metric 20"},
				map[string]string{"20.0.1.2": "eth0"}},
			{"another interface", []string{"route del default metric 10"},
				map[string]string{"20.0.1.2": "192.168.8.9 br-lan", "93.184.216.34": "wg0"}},
			{"a v6 gateway for IPv4", []string{"-4 route add 0.0.0.0/0 via inet6 fe80::9 dev eth0 metric 5"},
				map[string]string{"20.0.1.2": "inet6 eth0"}},
			{"no IPv6 of the uplink", []string{"-6 route del default"},
				map[string]string{"2408::9": "wg0", "2606:2800::1": "wg0"}},
			{"hostile routes in main", []string{"route add 93.184.216.0/24 dev eth0", "route add 0.0.0.0/1 via 192.0.2.1 dev eth0", "route add 128.0.0.0/1 dev eth0"},
				map[string]string{"93.184.216.34": "wg0", "8.8.8.8": "wg0", "200.1.1.1": "wg0"}},
			{"the tunnel's link is down", []string{"link set wg0 down"},
				map[string]string{"93.184.216.34": "wg0"}}, // and comes up again
		} {
			for _, cmd := range c.do {
				w.ip(cmd)
			}
			w.wait(r, c.what, settled)
			w.lead(c.what, c.want)
		}
		w.ip("link del wg0")
		w.lead("without the tunnel's link", map[string]string{"93.184.216.34": "refused", "2606:2800::1": "refused", "20.0.1.2": "inet6 eth0"})
		for _, cmd := range []string{"del 93.184.216.0/24", "del 0.0.0.0/1", "del 128.0.0.0/1", "del default metric 5", "del default metric 20", "add default via 192.0.2.1 dev eth0"} {
			w.ip("route " + cmd)
		}
		w.ip("-6 route add default via 2001:db8::1")
		w.set(r, routing.Input{})
		w.same("after teardown", before, w.dump())
	})
}

// One route among many that the kernel refuses is told, and stops no other.
func TestBatchTellsWhichRouteWasRefused(t *testing.T) {
	inside(t, func(w *world) {
		var steps []routing.Step
		for _, way := range home()[:2000] {
			steps = append(steps, routing.ReplaceRoute{Route: routing.Route{Table: routing.TableWays, Dst: way.Dst, Dev: "eth0", Protocol: routing.Protocol}})
		}
		bad := steps[700].(routing.ReplaceRoute)
		bad.Route.Dev = "nowhere0"
		steps[700] = bad
		worse := steps[1500].(routing.ReplaceRoute)
		worse.Route.Dev, worse.Route.Type = "", "unicast?"
		worse.Route.Dst = netip.MustParsePrefix("20.0.0.1/8") // not masked
		worse.Route.Dev = "eth0"
		worse.Route.Type = routing.Unicast
		steps[1500] = worse
		err := w.Apply(context.Background(), steps)
		if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "nowhere0") || !strings.Contains(err.Error(), "20.0.0.1/8") {
			t.Errorf("%v, want the two that were refused", err)
		}
		if n := strings.Count(w.ip("route show table 52018"), "\n"); n != 1998 {
			t.Errorf("%d routes are there, want 1998", n)
		}
		for i, s := range steps {
			steps[i] = routing.DelRoute(s.(routing.ReplaceRoute))
		}
		if err := w.Apply(context.Background(), append(steps[:700], steps[701:1500]...)); err != nil {
			t.Error(err)
		}
		if n := strings.Count(w.ip("route show table 52018"), "\n"); n != 499 {
			t.Errorf("%d routes are left, want 499", n)
		}
	})
}

// BenchmarkHomeByRoutes loads 5,527 + 2,026 routes into an empty kernel, and
// moves them to another gateway.
func BenchmarkHomeByRoutes(b *testing.B) {
	netnstest.Require(b, "ip")
	ns := netnstest.New(b)
	inside := func(f func()) { netnstest.Do(b, ns, f) }
	inside(func() {
		k, err := linux.Open(filepath.Join(b.TempDir(), "sysctls"))
		if err != nil {
			b.Fatal(err)
		}
		defer k.Close()
		w := &world{}
		for _, cmd := range []string{"link add eth0 type veth peer name isp0", "link set eth0 up", "link set isp0 up", "addr add 192.0.2.2/24 dev eth0", "-6 addr add 2001:db8::2/64 dev eth0 nodad", "-6 route add default via 2001:db8::1"} {
			if out, err := w.try("ip " + cmd); err != nil {
				b.Fatal(out, err)
			}
		}
		ctx := context.Background()
		in := byRoutes(0)
		set := func(in routing.Input) {
			if _, err := routing.NewReconciler(k, slog.New(slog.DiscardHandler)).Set(ctx, in); err != nil {
				b.Fatal(err)
			}
		}
		gateway := func(n int) {
			if out, err := w.try(fmt.Sprintf("ip route replace default via 192.0.2.%d", n)); err != nil {
				b.Fatal(out, err)
			}
		}
		b.Run("load", func(b *testing.B) {
			inside(func() {
				gateway(1)
				for b.Loop() {
					set(in)
					b.StopTimer()
					set(routing.Input{})
					b.StartTimer()
				}
			})
		})
		b.Run("follow", func(b *testing.B) {
			inside(func() {
				set(in)
				for n := 0; b.Loop(); n++ {
					gateway(1 + 8*(n%2))
					set(in)
				}
			})
		})
	})
}
