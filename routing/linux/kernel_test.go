package linux_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"smartdns/routing"
	"smartdns/routing/linux"
)

func TestUpIsAsPlannedAndDownLeavesNothing(t *testing.T) {
	inside(t, func(w *world) {
		before := w.dump()
		r := w.reconciler()
		w.set(r, gateway(0))
		in := gateway(w.tunnel("wg0"))
		w.set(r, in)
		if s := w.set(r, in); len(s) != 0 {
			t.Errorf("the second Set took steps:\n%s", text(s))
		}
		w.same("ip rule", `0:	from all lookup local
5101:	from all fwmark 0x2000000/0x3f000000 lookup 52001 proto 153
5102:	from all fwmark 0x2000000/0x3f000000 unreachable proto 153
5190:	from all fwmark 0x1000000/0x3f000000 iif br-lan goto 5199 proto 153
5191:	from all iif br-lan lookup 52017 proto 153
5199:	from all nop proto 153
32766:	from all lookup main
32767:	from all lookup default
`, w.ip("rule"))
		w.same("ip route", "default dev wg0 proto 153 scope link \nunreachable default proto 153 metric 4278198272 \n", w.ip("route show table 52001"))
		w.same("ip -6 route", "default dev wg0 proto 153 metric 1024 pref medium\nunreachable default dev lo proto 153 metric 4278198272 pref medium\n", w.ip("-6 route show table 52001"))
		for key, want := range map[string]string{
			"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1", "net.ipv4.conf.wg0.rp_filter": "2",
			"net.ipv6.conf.eth0.accept_ra": "2", "net.ipv6.conf.wg0.accept_ra": "1",
		} {
			if got := strings.TrimSpace(w.run("sysctl -n " + key)); got != want {
				t.Errorf("%s = %s, want %s", key, got, want)
			}
		}
		w.set(r, routing.Input{})
		w.ip("link del wg0")
		w.same("after teardown", before, w.dump())
		if _, err := os.Stat(w.saved); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file of saved sysctls: %v, want it gone", err)
		}
	})
}

// What a step prints is what it does.
func TestTheCommandsDoTheSame(t *testing.T) {
	var bySteps, byCommands, afterCommands routing.State
	var up, down []routing.Step
	inside(t, func(w *world) {
		in := gateway(w.tunnel("wg0"))
		up = w.set(w.reconciler(), in)
		bySteps, _, _ = w.Observe(context.Background(), nil)
		down = w.set(w.reconciler(), routing.Input{})
	})
	inside(t, func(w *world) {
		w.tunnel("wg0")
		for _, s := range up {
			w.run(s.String())
		}
		byCommands, _, _ = w.Observe(context.Background(), nil)
		for _, s := range down {
			// The kernel takes a v4 route with the last v4 address of its link.
			if out, err := w.try(s.String()); err != nil && !strings.Contains(out, "No such process") {
				t.Errorf("%s: %s", s, out)
			}
		}
		afterCommands, _, _ = w.Observe(context.Background(), nil)
	})
	bySteps.Sysctls, byCommands.Sysctls = nil, nil // commands save nothing
	for i := range bySteps.Links {                 // another namespace
		bySteps.Links[i].Index, byCommands.Links[i].Index = 0, 0
	}
	if d := routing.Diff(bySteps, byCommands); len(d) != 0 || len(bySteps.Rules) == 0 {
		t.Errorf("the commands leave to do:\n%s", text(d))
	}
	if s := afterCommands; len(s.Rules)+len(s.Routes)+len(s.Addrs) != 0 {
		t.Errorf("after the commands of the teardown: %+v", s)
	}
}

// (SECURITY F-13, F-18, F-21)
func TestEveryFaultIsRepairedByItsEvent(t *testing.T) {
	for _, f := range []struct{ name, commands string }{
		{"a rule is deleted", "ip rule del pref 5101"},
		{"a lock is deleted", "ip -6 rule del pref 5102"},
		{"all rules are flushed", "ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default"},
		{"all v6 rules are flushed", "ip -6 rule flush; ip -6 rule add pref 32766 lookup main"},
		{"wg-quick's down deletes by table", "ip rule del table 52001"},
		{"the table is flushed", "ip route flush table 52001"},
		{"the v6 table is flushed", "ip -6 route flush table 52001"},
		{"where direct goes on is deleted", "ip rule del pref 5199"},
		{"the lock of the LAN is flushed", "ip route flush table 52017"},
		{"the lock's route is deleted", "ip route del unreachable default metric 4278198272 table 52001"},
		{"the link goes down", "ip link set wg0 down"},
		{"the link goes down and up", "ip link set wg0 down; ip link set wg0 up"},
		{"the link is renamed", "ip link set wg0 name tun7"},
		{"the link is renamed while down", "ip link set wg0 down; ip link set wg0 name tun7"},
		{"the v4 address is deleted", "ip addr del 10.9.0.2/32 dev wg0"},
		{"the v6 address is deleted", "ip -6 addr del fd09::2/128 dev wg0"},
		{"another address is added", "ip addr add 10.66.0.1/24 dev wg0"},
		{"the MTU is changed", "ip link set wg0 mtu 1300"},
		{"the MTU is too small for IPv6", "ip link set wg0 mtu 1000"},
		{"the tunnel's route is replaced by another", "ip route replace default via 192.0.2.1 dev eth0 table 52001"},
		{"a more specific route appears in our table", "ip route add 93.184.216.34/32 via 192.0.2.1 table 52001"},
		{"a route in our table throws packets out", "ip route add throw 93.0.0.0/8 table 52001"},
		{"rp_filter is made strict", "sysctl -w net.ipv4.conf.wg0.rp_filter=1"},
		{"forwarding is turned off", "sysctl -w net.ipv4.ip_forward=0"},
		{"v6 forwarding is turned off", "sysctl -w net.ipv6.conf.all.forwarding=0"},
	} {
		t.Run(f.name, func(t *testing.T) {
			inside(t, func(w *world) {
				in := gateway(w.tunnel("wg0"))
				r := w.reconciler()
				w.set(r, in)
				w.start(r)
				for c := range strings.SplitSeq(f.commands, "; ") {
					w.run(c)
				}
				// The rules of main and default are for their owner to put back.
				w.wait(r, f.name, func() bool { return w.settled(in) })
				w.marked("93.184.216.34", "wg0")
				w.marked("2606:2800:220:1::1", "wg0")
			})
		})
	}
}

// marked checks which way the kernel sends the tunnel's packets.
func (w *world) marked(addr, dev string) {
	w.t.Helper()
	way, err := w.RouteGet(netip.MustParseAddr(addr), routing.DefaultField.Tunnel(0))
	if err != nil || way.Dev != dev {
		w.t.Errorf("marked packets to %s: %s, %v, want %q", addr, way, err, dev)
	}
}

// (SECURITY N-21)
func TestNothingInMainMovesMarkedPackets(t *testing.T) {
	inside(t, func(w *world) {
		in := input(w.tunnel("wg0"))
		r := w.reconciler()
		w.set(r, in)
		for _, c := range []string{
			"ip route add 0.0.0.0/1 via 192.0.2.1", "ip route add 128.0.0.0/1 via 192.0.2.1", // TunnelVision
			"ip route add 93.184.216.34/32 via 192.0.2.1",
			"ip addr add 93.184.216.1/24 dev eth0", // TunnelCrack LocalNet
			"ip -6 addr add 2606:2800:220:1::2/64 dev eth0 nodad",
		} {
			w.run(c)
			w.marked("93.184.216.34", "wg0")
			w.marked("2606:2800:220:1::1", "wg0")
		}
		if w.ip("route get 93.184.216.34 mark 0x2000000"); !strings.Contains(w.ip("route get 93.184.216.34 mark 0x2000000"), "dev wg0 table 52001") {
			t.Errorf("ip route get: %s", w.ip("route get 93.184.216.34 mark 0x2000000"))
		}
		way, err := w.RouteGet(netip.MustParseAddr("93.184.216.34"), 0)
		if err != nil || way.Dev != "eth0" || way.Table != routing.TableMain {
			t.Errorf("unmarked packets: %s, %v, want eth0 by main", way, err)
		}
		_, facts, err := w.Observe(context.Background(), nil)
		if err != nil || !slices.Contains(facts.Own(), netip.MustParsePrefix("93.184.216.1/24")) {
			t.Errorf("own addresses %v, %v, want the new one among them", facts.Own(), err)
		}
		// The link dies: with the route gone the lock holds.
		w.ip("link del wg0")
		w.marked("93.184.216.34", "")
		w.marked("2606:2800:220:1::1", "")
	})
}

// (SECURITY N-19)
func TestForeignRulesAreReportedAndLeftAlone(t *testing.T) {
	inside(t, func(w *world) {
		in := input(w.tunnel("wg0"))
		r := w.reconciler()
		w.set(r, in)
		w.start(r)
		w.ip("rule add pref 1 lookup main")
		w.ip("rule add from 10.0.0.5 lookup 200 pref 70")
		w.ip("rule add pref 5102 fwmark 0x2000000/0x3f000000 unreachable") // as ours, but without our protocol
		w.ip("rule add pref 5150 fwmark 0x2000000/0x3f000000 lookup 52001 proto 98")
		w.wait(r, "the conditions", func() bool { return len(r.Status().Conditions) == 4 })
		for i, want := range []string{
			`"ip rule pref 1 lookup main" comes before our rules`,
			`"ip rule pref 70 lookup 200 from 10.0.0.5/32" comes before our rules`,
			`"ip rule pref 5102 fwmark 0x2000000/0x3f000000" uses bits of our mark field`,
			`"ip rule pref 5150 fwmark 0x2000000/0x3f000000 lookup 52001" uses bits of our mark field`,
		} {
			if c := r.Status().Conditions[i]; !strings.HasPrefix(c.Text, want) {
				t.Errorf("condition %d: %s, want %s", i, c.Text, want)
			}
		}
		if n := r.Status().Repairs; n != 0 {
			t.Errorf("%d repairs because of rules that are not ours", n)
		}
		w.set(r, routing.Input{})
		w.same("ip rule", `0:	from all lookup local
1:	from all lookup main
70:	from 10.0.0.5 lookup 200
5102:	from all fwmark 0x2000000/0x3f000000 unreachable
5150:	from all fwmark 0x2000000/0x3f000000 lookup 52001 proto 98
32766:	from all lookup main
32767:	from all lookup default
`, w.ip("rule"))
	})
}

func TestMissingRulesAreReported(t *testing.T) {
	inside(t, func(w *world) {
		r := w.reconciler()
		w.set(r, input(w.tunnel("wg0")))
		w.start(r)
		w.ip("rule flush")
		w.wait(r, "the condition", func() bool {
			return slices.ContainsFunc(r.Status().Conditions, func(c routing.Condition) bool {
				return c.Text == "no v4 rule looks up the table main; put it back: ip rule add pref 32766 lookup main"
			})
		})
		w.ip("rule add pref 32766 lookup main")
		w.ip("rule add pref 32767 lookup default")
		w.wait(r, "no condition", func() bool { return len(r.Status().Conditions) == 0 })
	})
}

func TestAfterSIGKILLTheSameStateIsReachedAndCleanupLeavesNothing(t *testing.T) {
	inside(t, func(w *world) {
		w.sysctl("net/ipv4/conf/all/accept_redirects", "0")
		w.sysctl("net/ipv4/conf/isp0/forwarding", "1")
		before := w.dump()
		in := gateway(w.tunnel("wg0"))
		steps := w.set(w.reconciler(), in)
		clean := w.dump()

		w.open() // the old one is not closed
		if s := w.set(w.reconciler(), in); len(s) != 0 {
			t.Errorf("a new process takes steps:\n%s", text(s))
		}
		have, _, err := w.Observe(context.Background(), nil)
		if want := (map[routing.Path]int{"wg0": 0}); err != nil || !maps.Equal(have.Numbers(), want) {
			t.Errorf("Numbers() = %v, %v, want %v", have.Numbers(), err, want)
		}

		// Killed after every single step of the teardown, and of the start.
		w.open()
		var k int
		for k = 0; ; k++ {
			left := w.leftOf(routing.Input{}, routing.State{})
			if len(left) == 0 {
				break
			}
			if err := w.Apply(context.Background(), left[:1]); err != nil {
				t.Fatal(err)
			}
			w.open()
		}
		if k < len(steps)-3 {
			t.Errorf("only %d points of %d steps", k, len(steps))
		}
		for range steps {
			left := w.left(in)
			if len(left) == 0 {
				break
			}
			if err := w.Apply(context.Background(), left[:1]); err != nil {
				t.Fatal(err)
			}
			w.open()
		}
		w.set(w.reconciler(), in)
		w.same("after being killed at every point", clean, w.dump())

		w.open()
		w.set(w.reconciler(), routing.Input{})
		if s := w.set(w.reconciler(), routing.Input{}); len(s) != 0 {
			t.Errorf("a second cleanup takes steps:\n%s", text(s))
		}
		w.ip("link del wg0")
		w.same("after cleanup", before, w.dump())
	})
}

// leftOf is what a cleanup that knows nothing would do.
func (w *world) leftOf(in routing.Input, want routing.State) []routing.Step {
	w.t.Helper()
	have, _, err := w.Observe(context.Background(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return routing.Diff(want, have)
}

// (SECURITY C-02)
func TestLeftoversOfAnOlderVersionAreTakenOver(t *testing.T) {
	inside(t, func(w *world) {
		in := input(w.tunnel("wg0"))
		for _, c := range []string{
			"rule add pref 5101 fwmark 0x20000000/0x30000000 lookup 52001 proto 153",
			"rule add pref 5101 fwmark 0x2000000/0x3f000000 lookup 52001 proto 153",
			"rule add pref 5180 lookup 52009 proto 153",
			"-6 rule add pref 5111 fwmark 0x7000000/0x3f000000 lookup 52006 proto 153",
			"route add unreachable default table 52009 proto 153",
			"rule add pref 9000 lookup 52001 proto 153", // outside our band: not ours
		} {
			w.ip(c)
		}
		w.set(w.reconciler(), in)
		if n := strings.Count(w.ip("rule"), "proto 153"); n != 3 {
			t.Errorf("%d v4 rules, want ours and the foreign one:\n%s", n, w.ip("rule"))
		}
		if n := strings.Count(w.ip("-6 rule"), "proto 153"); n != 2 {
			t.Errorf("%d v6 rules, want 2:\n%s", n, w.ip("-6 rule"))
		}
		if out, _ := w.try("ip route show table 52009"); out != "" && !strings.Contains(out, "does not exist") {
			t.Errorf("table 52009: %s", out)
		}
	})
}

func TestNoV6DefaultInMain(t *testing.T) {
	inside(t, func(w *world) {
		w.ip("-6 route del default")
		in := input(w.tunnel("wg0"))
		r := w.reconciler()
		w.set(r, in)
		w.start(r)
		if out := w.ip("-6 rule"); !strings.Contains(out, "32768:\tnot from all fwmark 0x1000000/0x3f000000 lookup 52001 proto 153") {
			t.Errorf("ip -6 rule:\n%s", out)
		}
		way, err := w.RouteGet(netip.MustParseAddr("2606:2800:220:1::1"), 0)
		if err != nil || way.Dev != "wg0" {
			t.Errorf("unmarked v6: %s, %v, want wg0", way, err)
		}
		way, err = w.RouteGet(netip.MustParseAddr("2606:2800:220:1::1"), routing.DefaultField.Value(routing.MarkDirect))
		if err != nil || way.Dev != "" {
			t.Errorf("WireGuard's own v6: %s, %v, want it refused", way, err)
		}
		w.ip("-6 route add default via 2001:db8::1")
		w.wait(r, "the rule goes", func() bool { return !strings.Contains(w.ip("-6 rule"), "32768") })
		if n := r.Status().Repairs; n != 0 {
			t.Errorf("a new default route counts as %d repairs", n)
		}
	})
}

// (SECURITY F-36)
func TestIPv6TurnedOff(t *testing.T) {
	inside(t, func(w *world) {
		w.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
		w.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
		before := w.dump()
		in := gateway(w.tunnel("wg0"))
		r := w.reconciler()
		w.set(r, in)
		if s := w.left(in); len(s) != 0 {
			t.Errorf("still to do:\n%s", text(s))
		}
		w.marked("93.184.216.34", "wg0")
		if out := w.ip("-6 rule"); !strings.Contains(out, "5102:\tfrom all fwmark 0x2000000/0x3f000000 unreachable proto 153") {
			t.Errorf("the v6 lock is not there:\n%s", out)
		}
		w.set(r, routing.Input{})
		w.ip("link del wg0")
		w.same("after teardown", before, w.dump())
	})
}

func TestOldLinksAreCleanedWhenATunnelGoes(t *testing.T) {
	inside(t, func(w *world) {
		in := input(w.tunnel("wg0"))
		r := w.reconciler()
		w.set(r, in)
		w.ip("link set wg0 down")
		w.set(r, routing.Input{})
		if out := w.ip("-o addr show dev wg0"); strings.Contains(out, "10.9.0.2") {
			t.Errorf("wg0 keeps its address: %s", out)
		}
	})
}

// (SECURITY F-36)
func TestMissingCapabilityIsOneSentence(t *testing.T) {
	inside(t, func(w *world) {
		in := input(w.tunnel("wg0"))
		none := [2]unix.CapUserData{}
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			t.Fatal(err)
		}
		w.open()
		_, err := w.reconciler().Set(context.Background(), in)
		const want = "applying routing: need CAP_NET_ADMIN: ip rule add pref 5102 fwmark 0x2000000/0x3f000000 unreachable proto 153: operation not permitted"
		if err == nil || err.Error() != want {
			t.Errorf("Set: %v\nwant: %s", err, want)
		}
		if err := w.AddWireGuard("wg9"); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "need CAP_NET_ADMIN") {
			t.Errorf("AddWireGuard: %v", err)
		}
	})
}

func TestAddWireGuard(t *testing.T) {
	inside(t, func(w *world) {
		switch err := w.AddWireGuard("wg0"); {
		case errors.Is(err, errors.ErrUnsupported):
			t.Logf("this kernel has no WireGuard: %v", err)
		case err != nil:
			t.Errorf("AddWireGuard: %v", err)
		default:
			if _, kind, err := w.LinkIndex("wg0"); kind != "wireguard" || err != nil {
				t.Errorf("LinkIndex: %s, %v", kind, err)
			}
			if err := w.AddWireGuard("wg0"); !errors.Is(err, fs.ErrExist) {
				t.Errorf("AddWireGuard again: %v, want ErrExist", err)
			}
		}
		if err := w.DeleteLink("wg0"); err != nil {
			t.Errorf("DeleteLink: %v", err)
		}
		if err := w.DeleteLink("wg0"); err != nil {
			t.Errorf("DeleteLink again: %v", err)
		}
		if _, _, err := w.LinkIndex("wg0"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("LinkIndex of no link: %v, want ErrNotExist", err)
		}
	})
}

func TestRouteMTU(t *testing.T) {
	inside(t, func(w *world) {
		endpoint := netip.MustParseAddr("45.76.1.2")
		if mtu, err := w.RouteMTU(endpoint, 0); mtu != 1500 || err != nil {
			t.Errorf("RouteMTU = %d, %v, want 1500", mtu, err)
		}
		w.ip("route add 45.76.1.2/32 via 192.0.2.1 mtu 1400")
		if mtu, err := w.RouteMTU(endpoint, 0); mtu != 1400 || err != nil {
			t.Errorf("RouteMTU = %d, %v, want that of the route, 1400", mtu, err)
		}
		w.ip("route del default")
		if way, err := w.RouteGet(netip.MustParseAddr("8.8.8.8"), 0); err != nil || way.Refused == "" {
			t.Errorf("without a route: %+v, %v, want it refused", way, err)
		}
	})
}

func TestFlowsAreListedAndCut(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("SKIPPED: nft is not installed")
	}
	inside(t, func(w *world) {
		for _, c := range []string{
			"nft add table inet t", "nft add chain inet t out { type filter hook output priority 0 ; }",
			"nft add rule inet t out udp dport 9 ct mark set 0x2000007", "nft add rule inet t out udp dport 10 ct mark set 0x1000000",
		} {
			w.run(c)
		}
		for _, dst := range []string{"192.0.2.2:9", "192.0.2.2:10", "[2001:db8::2]:9"} {
			c, err := net.Dial("udp", dst)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		me := netip.MustParseAddr("192.0.2.2")
		flows, err := w.Flows(me)
		if err != nil || len(flows) != 2 {
			t.Fatalf("Flows = %+v, %v, want two", flows, err)
		}
		n, err := w.CutFlows(routing.DefaultField, routing.DefaultField.Tunnel(0))
		if n != 2 || err != nil {
			t.Errorf("CutFlows = %d, %v, want the v4 and the v6 flow", n, err)
		}
		flows, err = w.Flows(me)
		if err != nil || len(flows) != 1 || flows[0].Dst != netip.AddrPortFrom(me, 10) || flows[0].Mark != 0x1000000 || flows[0].Protocol != unix.IPPROTO_UDP {
			t.Errorf("Flows after the cut = %+v, %v, want the direct one", flows, err)
		}
	})
}

func TestBrokenFileOfSavedSysctlsIsAnError(t *testing.T) {
	inside(t, func(w *world) {
		if err := os.WriteFile(w.saved, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.Observe(context.Background(), nil); err == nil || !strings.Contains(err.Error(), w.saved) {
			t.Errorf("Observe: %v, want an error that names the file", err)
		}
	})
}

var _ interface{ AddWireGuard(string) error } = (*linux.Kernel)(nil)
