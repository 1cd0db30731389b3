package linux_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/routing"
	"smartdns/routing/linux"
)

func (w *world) facts() routing.Facts {
	w.t.Helper()
	_, f, err := w.Observe(context.Background(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func TestFacts(t *testing.T) {
	inside(t, func(w *world) {
		w.ip("link add eth0.100 type veth peer name far100")
		w.ip("link set eth0.100 up")
		w.ip("addr add 100.64.0.2 peer 100.64.0.1 dev eth0.100")
		w.ip("route add default metric 200 nexthop via 192.0.2.77 dev eth0 nexthop dev eth0.100")
		w.sysctl("net/ipv6/conf/eth0.100/disable_ipv6", "1")
		f := w.facts()
		if got, want := f.Uplinks(), []string{"eth0", "eth0.100"}; !slices.Equal(got, want) {
			t.Errorf("Uplinks() = %v, want %v", got, want)
		}
		if !f.HasDefault(routing.V4) || !f.HasDefault(routing.V6) || !f.IPv6 {
			t.Errorf("defaults %v, IPv6 %t", f.Defaults, f.IPv6)
		}
		for _, g := range []string{"192.0.2.1", "192.0.2.77", "100.64.0.1", "2001:db8::1"} {
			if !slices.Contains(f.Gateways, netip.MustParseAddr(g)) {
				t.Errorf("gateways %v lack %s", f.Gateways, g)
			}
		}
		i := slices.IndexFunc(f.Links, func(l routing.Iface) bool { return l.Name == "eth0.100" })
		if l := f.Links[i]; l.Kind != "veth" || !l.NoIPv6 || !l.Up || l.MTU != 1500 || l.AcceptRA != 1 {
			t.Errorf("eth0.100: %+v", l)
		}
		for _, p := range []string{"127.0.0.1/8", "::1/128", "192.0.2.2/24", "2001:db8::2/64", "192.168.8.1/24", "100.64.0.2/32", "192.0.2.1/32"} {
			if !slices.Contains(f.Own(), netip.MustParsePrefix(p)) {
				t.Errorf("Own() = %v lacks %s", f.Own(), p)
			}
		}
		if f.Links[0].Loopback != true || f.Links[0].Name != "lo" {
			t.Errorf("the first link is %+v", f.Links[0])
		}
	})
}

// A parameter of an interface whose name has a dot is named with slashes.
func TestInterfaceWithADot(t *testing.T) {
	inside(t, func(w *world) {
		w.ip("link add eth0.100 type veth peer name far100")
		before := w.dump()
		r := w.reconciler()
		steps := w.set(r, gateway(w.tunnel("wg0")))
		if !strings.Contains(text(steps), "sysctl -w net/ipv6/conf/eth0.100/accept_ra=2\n") {
			t.Errorf("steps:\n%s", text(steps))
		}
		if got, _ := os.ReadFile("/proc/sys/net/ipv6/conf/eth0.100/accept_ra"); string(got) != "2\n" {
			t.Errorf("accept_ra of eth0.100 is %q", got)
		}
		w.set(r, routing.Input{})
		w.ip("link del wg0")
		w.same("after teardown", before, w.dump())
	})
}

// Strict reverse path filters, there before us or turned on later, for one link
// or for all, are loosened where packets for the LAN may come from, and are as
// they were after us.
func TestStrictReversePathFilters(t *testing.T) {
	inside(t, func(w *world) {
		filter := func(link string) string {
			return strings.TrimSpace(w.run("sysctl -n net.ipv4.conf." + link + ".rp_filter"))
		}
		for _, l := range []string{"all", "default", "eth0", "br-lan", "isp0"} {
			w.sysctl("net/ipv4/conf/"+l+"/rp_filter", "0")
		}
		w.sysctl("net/ipv4/conf/eth0/rp_filter", "1")
		before := w.dump()
		r := w.reconciler()
		w.start(r)
		w.set(r, gateway(w.tunnel("wg0")))
		if filter("eth0") != "2" || filter("br-lan") != "0" {
			t.Errorf("eth0 %s, br-lan %s; want 2 and 0", filter("eth0"), filter("br-lan"))
		}
		w.sysctl("net/ipv4/conf/all/rp_filter", "1")
		w.wait(r, "rp_filter of br-lan", func() bool { return filter("br-lan") == "2" })
		w.ip("link add late0 type veth peer name late1")
		w.wait(r, "rp_filter of late0", func() bool { return filter("late0") == "2" })
		w.sysctl("net/ipv4/conf/eth0/rp_filter", "1")
		w.wait(r, "rp_filter of eth0", func() bool { return filter("eth0") == "2" })
		w.sysctl("net/ipv4/conf/all/rp_filter", "0")
		w.wait(r, "rp_filter of br-lan put back", func() bool { return filter("br-lan") == "0" })

		w.set(r, routing.Input{})
		for _, l := range []string{"late0", "wg0"} {
			w.ip("link del " + l)
		}
		w.same("after teardown", before, w.dump())
	})
}

// A host that routes for nobody keeps its filters.
func TestStrictReversePathFiltersWithoutLAN(t *testing.T) {
	inside(t, func(w *world) {
		w.sysctl("net/ipv4/conf/eth0/rp_filter", "1")
		w.set(w.reconciler(), input(w.tunnel("wg0")))
		if v := strings.TrimSpace(w.run("sysctl -n net.ipv4.conf.eth0.rp_filter")); v != "1" {
			t.Errorf("rp_filter of eth0 is %s", v)
		}
	})
}

// advertise sends a router advertisement out of dev.
func advertise(dev int) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return err
	}
	// RFC 4861, 4.2: type 134, hop limit 64, a lifetime of 1800 s.
	ra := []byte{134, 0, 0, 0, 64, 0, 1800 >> 8, 1800 & 0xff, 0, 0, 0, 0, 0, 0, 0, 0}
	to := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(dev)}
	if err := unix.Sendto(fd, ra, 0, to); err != unix.ENETUNREACH { // the link is not ready
		return err
	}
	return nil
}

func TestAdvertisedDefaultRouteSurvivesForwarding(t *testing.T) {
	inside(t, func(w *world) {
		w.ip("-6 route del default")
		before := w.dump()
		isp := netnstest.New(t)
		w.ip("link add wan0 type veth peer name wan1")
		peer, err := netlink.LinkByName("wan1")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetNsFd(peer, int(isp)); err != nil {
			t.Fatal(err)
		}
		w.ip("link set wan0 up")
		netnstest.Do(t, isp, func() {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/wan1/accept_dad", []byte("0"), 0); err != nil {
				t.Error(err)
			}
			if err := netlink.LinkSetUp(peer); err != nil {
				t.Error(err)
			}
		})
		r := w.reconciler()
		w.start(r)
		learned := func() bool { return strings.Contains(w.ip("-6 route show default"), "dev wan0 proto ra") }
		tick := time.NewTicker(50 * time.Millisecond) // as a router does, until somebody heard it
		defer tick.Stop()
		for deadline := time.After(10 * time.Second); !learned(); {
			netnstest.Do(t, isp, func() {
				if err := advertise(peer.Attrs().Index); err != nil {
					t.Error(err)
				}
			})
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatal("no default route from the advertisement")
			}
		}

		w.set(r, gateway(w.tunnel("wg0")))
		if v := strings.TrimSpace(w.run("sysctl -n net.ipv6.conf.wan0.forwarding")); v != "1" {
			t.Errorf("wan0 does not forward: %s", v)
		}
		if !learned() {
			t.Error("forwarding took the advertised default route")
		}
		if up := w.facts().Uplinks(); !slices.Contains(up, "wan0") {
			t.Errorf("uplinks %v lack wan0", up)
		}

		// A link that comes later is taken care of, too.
		w.ip("link add late0 type veth peer name late1")
		w.wait(r, "accept_ra of late0", func() bool {
			return strings.TrimSpace(w.run("sysctl -n net.ipv6.conf.late0.accept_ra")) == "2"
		})

		w.set(r, routing.Input{})
		if !learned() {
			t.Error("the teardown took the advertised default route")
		}
		for _, l := range []string{"late0", "wan0", "wg0"} {
			w.ip("link del " + l)
		}
		w.same("after teardown", before, w.dump())
	})
}

// The device of the embedded WireGuard is a TUN; the kernel gives it IPv6
// addresses of its own unless told not to.
func TestTUN(t *testing.T) {
	inside(t, func(w *world) {
		if out, err := w.try("ip tuntap add wg0 mode tun"); err != nil {
			t.Skipf("SKIPPED: no TUN here: %s", out)
		}
		index, kind, err := w.LinkIndex("wg0")
		if err != nil || kind != "tuntap" {
			t.Fatalf("LinkIndex: %q, %v", kind, err)
		}
		r := w.reconciler()
		w.set(r, input(index))
		w.start(r)
		if out := w.ip("-6 -o addr show dev wg0"); strings.Contains(out, "fe80::") || !strings.Contains(out, "fd09::2/128") {
			t.Errorf("addresses: %s", out)
		}
		// The process dies and the next one makes the link again: it is another
		// link, and is left alone until it is configured.
		w.ip("tuntap del wg0 mode tun")
		w.marked("93.184.216.34", "")
		w.ip("tuntap add wg0 mode tun")
		again, _, err := w.LinkIndex("wg0")
		if err != nil || again == index {
			t.Fatalf("the new link has index %d, %v", again, err)
		}
		in := input(again)
		if w.settled(in) {
			t.Error("the new link was configured before its time")
		}
		w.set(r, in)
		w.marked("93.184.216.34", "wg0")
	})
}

func TestTwoTunnelsKeepTheirNumbers(t *testing.T) {
	inside(t, func(w *world) {
		in := input(w.tunnel("wg0"))
		in.Tunnels = append(in.Tunnels, routing.Tunnel{
			Path: "wg1", Number: 1, Index: w.tunnel("wg1"), MTU: 1380,
			Addrs: prefixes("10.44.0.7/24"), AllowedIPs: prefixes("10.44.0.0/16", "198.18.0.0/15"),
		})
		r := w.reconciler()
		w.set(r, in)
		second := routing.DefaultField.Tunnel(1)
		for addr, want := range map[string]string{"10.44.9.9": "wg1", "198.19.0.1": "wg1", "93.184.216.34": ""} {
			if way, err := w.RouteGet(netip.MustParseAddr(addr), second); err != nil || way.Dev != want {
				t.Errorf("marked for wg1, to %s: %s, %v, want %q", addr, way, err, want)
			}
		}
		have, _, err := w.Observe(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		// The file lists wg1 alone now: wg0 goes, wg1 stays what it was.
		numbers, err := routing.Number([]routing.Path{"wg1"}, have.Numbers())
		if err != nil || numbers["wg1"] != 1 {
			t.Fatalf("Number = %v, %v, want 1 for wg1", numbers, err)
		}
		in.Tunnels = in.Tunnels[1:]
		for _, s := range w.set(r, in) {
			if strings.Contains(s.String(), "52002") {
				t.Errorf("a step for wg1: %s", s)
			}
		}
		if out := w.ip("rule"); strings.Contains(out, "52001") {
			t.Errorf("wg0's rules stay:\n%s", out)
		}
	})
}

// (SECURITY F-17)
func TestAFloodOfEventsElsewhere(t *testing.T) {
	inside(t, func(w *world) {
		in := input(w.tunnel("wg0"))
		r := w.reconciler()
		w.set(r, in)
		w.start(r)
		var batch strings.Builder
		for i := range 20_000 {
			fmt.Fprintf(&batch, "route add unreachable 10.%d.%d.0/24 table 99\n", i>>8, i&255)
		}
		batch.WriteString("rule del pref 5101\n")
		c := exec.Command("ip", "-batch", "-")
		c.Stdin = strings.NewReader(batch.String())
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		w.wait(r, "the rule", func() bool { return w.settled(in) })
	})
}

// (SECURITY F-22)
func TestNothingLeaksWhileTheUplinkFlaps(t *testing.T) {
	inside(t, func(w *world) {
		in := gateway(w.tunnel("wg0"))
		r := w.reconciler()
		w.set(r, in)
		w.start(r)
		files := func() int {
			f, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			return len(f)
		}
		before := files()
		for range 50 {
			w.ip("link set eth0 down")
			w.marked("93.184.216.34", "wg0")
			w.ip("link set eth0 up")
		}
		w.ip("route replace default via 192.0.2.1")
		w.ip("-6 route replace default via 2001:db8::1")
		w.wait(r, "the plan of a host with an uplink", func() bool {
			return w.settled(in) && !strings.Contains(w.ip("rule"), "32768")
		})
		// The reconciler may just be reading one.
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for deadline := time.After(30 * time.Second); files() > before; {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%d files are open after 50 flaps, %d before", files(), before)
			}
		}
		if c := r.Status().Conditions; len(c) != 0 {
			t.Errorf("conditions: %v", c)
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	netnstest.Require(b)
	netnstest.Do(b, netnstest.New(b), func() {
		k, err := linux.Open(b.TempDir() + "/sysctls")
		if err != nil {
			b.Fatal(err)
		}
		defer k.Close()
		for b.Loop() {
			if _, _, err := k.Observe(context.Background(), nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Other programs keep the default routes in tables of their own: mwan3, or
// systemd-networkd with RouteTable=.
func TestUplinksOfOtherTables(t *testing.T) {
	inside(t, func(w *world) {
		w.ip("route del default")
		w.ip("route add default via 192.0.2.77 dev eth0 table 100")
		for i, rule := range []string{"pref 20000 lookup 100", "pref 20000 not fwmark 0x100/0x3f00 lookup 100", "pref 20000 fwmark 0/0x3f00 lookup 100"} {
			w.ip("rule add " + rule)
			f := w.facts()
			if !f.HasDefault(routing.V4) || !slices.Contains(f.Defaults, routing.Default{Family: routing.V4, Dev: "eth0", Via: netip.MustParseAddr("192.0.2.77")}) {
				t.Errorf("%s: defaults %v", rule, f.Defaults)
			}
			if !slices.Contains(f.Gateways, netip.MustParseAddr("192.0.2.77")) {
				t.Errorf("%s: gateways %v", rule, f.Gateways)
			}
			if i == 0 {
				in := gateway(w.tunnel("wg0"))
				w.set(w.reconciler(), in)
				if out := w.ip("rule"); strings.Contains(out, "32768") {
					t.Errorf("%s: v4 has a default, and yet:\n%s", rule, out)
				}
				if got := w.forwarded("223.5.5.5", "192.168.8.20", "br-lan", direct); got != "eth0" {
					t.Errorf("a direct packet of the LAN: %s", got)
				}
				w.set(w.reconciler(), routing.Input{})
			}
			w.ip("rule del " + rule)
		}
		for _, rule := range []string{
			"pref 20000 from 10.0.0.5 lookup 100", "pref 20000 iif br-lan lookup 100", "pref 20000 fwmark 0x100/0x3f00 lookup 100",
			"pref 40000 lookup 100", "pref 20000 lookup 100 suppress_prefixlength 0",
		} {
			w.ip("rule add " + rule)
			if f := w.facts(); f.HasDefault(routing.V4) {
				t.Errorf("%s: defaults %v, which not every packet meets", rule, f.Defaults)
			}
			w.ip("rule del " + rule)
		}
	})
}
