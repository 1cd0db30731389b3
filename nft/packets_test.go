package nft_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

const (
	tunnel4 = "10.9.0.2"
	tunnel6 = "fd09::2"
	probe   = 0x2000000 // the mark of a socket of ours that uses the tunnel
	plain   = 0x1000000 // and of one that goes direct
)

func mark(t *testing.T, table *nft.Table, path routing.Path, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		if _, err := table.Marker().Mark(t.Context(), 0, []routing.Mark{{Addr: addr(a), Path: path, Life: time.Hour}}); err != nil {
			t.Error(err)
		}
	}
}

// (SECURITY N-16)
func TestPacketsGoTheWayOfTheirAddress(t *testing.T) {
	w := newWorld(t)
	leak4, leak6 := w.sniff(foreign4), w.sniff(foreign6)
	table := w.set(nft.Owned, gateway())
	for _, from := range []struct {
		name   string
		w4, w6 string // source of what goes direct
	}{{name: "LAN", w4: "192.168.8.20", w6: "fd08::20"}, {name: "host", w4: "198.18.0.2", w6: "2409:1::2"}} {
		ns := w.lan
		if from.name == "host" {
			ns = w.gw
		}
		for _, network := range []string{"tcp", "udp"} {
			w.want(from.name+" foreign "+network, w.ask(ns, network, foreign4+":80"), tunnel4)
			w.want(from.name+" home "+network, w.ask(ns, network, home4+":80"), from.w4)
		}
		w.want(from.name+" foreign v6", w.ask(ns, "tcp", "["+foreign6+"]:80"), tunnel6)
		w.want(from.name+" home v6", w.ask(ns, "tcp", "["+home6+"]:80"), from.w6)
		w.want(from.name+" tunnel's own", w.ask(ns, "tcp", "10.9.0.1:80"), tunnel4)
	}
	w.want("a container", w.ask(w.box, "tcp", foreign4+":80"), tunnel4)
	w.want("a container, home", w.ask(w.box, "tcp", home4+":80"), "172.20.0.20")
	w.want("a socket of ours, direct", w.ask(w.gw, "tcp", home4+":80", plain), "198.18.0.2")
	if n := leak4() + leak6(); n != 0 {
		t.Errorf("%d frames for foreign addresses on the uplink", n)
	}
	w.want("a socket of ours, direct to a foreign address", w.ask(w.gw, "tcp", foreign4+":80", plain), "198.18.0.2")
	w.want("a socket of ours, tunnel", w.ask(w.gw, "tcp", home4+":80", probe), tunnel4)

	mark(t, table, "wg0", home4, home6)
	mark(t, table, routing.Direct, foreign4, foreign6, home4)
	w.want("marked wg0 and direct", w.ask(w.lan, "tcp", home4+":80"), tunnel4)
	w.want("marked wg0, v6", w.ask(w.gw, "tcp", "["+home6+"]:80"), tunnel6)
	w.want("marked direct", w.ask(w.lan, "tcp", foreign4+":80"), "192.168.8.20")
	w.want("marked direct, v6", w.ask(w.lan, "tcp", "["+foreign6+"]:80"), "fd08::20")
	if leak4() == 0 || leak6() == 0 {
		t.Error("the sniffer is blind")
	}
}

func TestPacketsOfAFlowKeepTheirWay(t *testing.T) {
	w := newWorld(t)
	table := w.set(nft.Owned, gateway())
	mark(t, table, routing.Direct, foreign4)
	c, err := w.dial(w.lan, "tcp", foreign4+":80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.want("marked direct", w.hear(c, "tcp"), "192.168.8.20")
	if found, err := table.Marker().Forget(t.Context(), addr(foreign4)); err != nil || !found {
		t.Errorf("forgetting: %v, %v", found, err)
	}
	w.want("a new flow after the mark ended", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
	if err := echo(c); err != nil {
		t.Errorf("the old flow: %v", err)
	}
}

func TestPacketsOfADeadTunnelFailAtOnce(t *testing.T) {
	w := newWorld(t)
	table := w.set(nft.Owned, gateway())
	leak := w.sniff(foreign4)
	lan, err := w.dial(w.lan, "tcp", foreign4+":80", 0)
	if err != nil {
		t.Fatal(err)
	}
	local, err := w.dial(w.gw, "tcp", foreign4+":80", 0)
	if err != nil {
		t.Fatal(err)
	}
	w.hear(lan, "tcp")
	w.hear(local, "tcp")
	down := gateway()
	down.Tunnels[0].Up = false
	w.become(table, down)
	for what, c := range map[string]net.Conn{"LAN": lan, "host": local} {
		if err := echo(c); err == nil || short(err) != "refused" {
			t.Errorf("an old flow of %s: %v, want a reset", what, err)
		}
		c.Close()
	}
	w.want("LAN tcp", w.ask(w.lan, "tcp", foreign4+":80"), "refused")
	w.want("host tcp", w.ask(w.gw, "tcp", foreign4+":80"), "refused")
	w.want("LAN udp", w.ask(w.lan, "udp", foreign4+":80"), "unreachable")
	w.want("host udp", w.ask(w.gw, "udp", foreign4+":80"), "unreachable")
	w.want("container tcp", w.ask(w.box, "tcp", foreign4+":80"), "refused")
	w.want("home", w.ask(w.lan, "tcp", home4+":80"), "192.168.8.20")
	w.want("our probe", w.ask(w.gw, "tcp", foreign4+":80", probe), tunnel4)
	w.become(table, gateway())
	w.want("up again", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
	if n := leak(); n != 0 {
		t.Errorf("%d frames on the uplink", n)
	}
}

func TestPacketsOfADeadTunnelGoDirectWhenAsked(t *testing.T) {
	w := newWorld(t)
	up := gateway()
	up.Tunnels[0].StandIn = routing.Direct
	down := gateway()
	down.Tunnels[0].StandIn, down.Tunnels[0].Up = routing.Direct, false
	table := w.set(nft.Owned, up)
	before, err := w.dial(w.lan, "tcp", foreign4+":80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	w.want("up", w.hear(before, "tcp"), tunnel4)
	w.become(table, down)
	if err := echo(before); err == nil || short(err) != "refused" {
		t.Errorf("a flow of the dead tunnel: %v, want a reset", err)
	}
	during, err := w.dial(w.lan, "tcp", foreign4+":80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer during.Close()
	w.want("down", w.hear(during, "tcp"), "192.168.8.20")
	w.become(table, up)
	if err := echo(during); err == nil || short(err) != "refused" {
		t.Errorf("a revocable flow after the tunnel is back: %v, want a reset", err)
	}
	w.want("up again", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
}

// (SECURITY L-12)
func TestPacketsOfOldSessionsSurviveActivation(t *testing.T) {
	w := newWorld(t)
	w.serve(w.gw, 22)
	c := w.dialFrom("198.18.0.1", "198.18.0.2:22")
	defer c.Close()
	w.hear(c, "tcp")
	// One from a foreign address, by both families.
	abroad := w.dialFrom(foreign4, "198.18.0.2:22")
	defer abroad.Close()
	w.hear(abroad, "tcp")
	abroad6 := w.dialFrom(foreign6, "[2409:1::2]:22")
	defer abroad6.Close()
	w.hear(abroad6, "tcp")
	// Outbound ones, whose next packets are ours.
	home, err := w.dial(w.gw, "tcp", home4+":80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	w.want("before", w.hear(home, "tcp"), "198.18.0.2")
	out, err := w.dial(w.gw, "tcp", foreign4+":80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w.want("before", w.hear(out, "tcp"), "198.18.0.2")
	w.set(nft.Owned, gateway())
	for what, c := range map[string]net.Conn{"inbound": c, "inbound from abroad": abroad, "inbound from abroad, v6": abroad6, "outbound, home": home} {
		if err := echo(c); err != nil {
			t.Errorf("a session %s: %v", what, err)
		}
	}
	leak := w.sniff(foreign4)
	if err := echo(out); err == nil || short(err) != "refused" {
		t.Errorf("a session abroad: %v, want a reset", err)
	}
	if n := leak(); n != 0 {
		t.Errorf("a session abroad: %d frames on the uplink", n)
	}
	w.want("a new flow", w.ask(w.gw, "tcp", foreign4+":80"), tunnel4)
}

// dialFrom opens a connection from an address of net.
func (w *world) dialFrom(source, to string) net.Conn {
	w.t.Helper()
	d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	var c net.Conn
	var err error
	netnstest.Do(w.t, w.net, func() { c, err = d.Dial("tcp", to) })
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func TestPacketsInMidConnectionAreNotReRouted(t *testing.T) {
	w := newWorld(t)
	table := w.set(nft.Owned, defaultDirectGateway())
	c, err := w.dial(w.lan, "tcp", foreign4+":80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.want("direct", w.hear(c, "tcp"), "192.168.8.20")
	far := w.sniffFar(foreign4)
	w.become(table, gateway())
	netnstest.Do(t, w.gw, func() {
		if err := nft.DeleteFlows(plain, uint32(routing.DefaultField)); err != nil {
			t.Error(err)
		}
	})
	if err := echo(c); err == nil || short(err) != "refused" {
		t.Errorf("a flow that conntrack forgot: %v, want a reset", err)
	}
	if n := far(); n != 0 {
		t.Errorf("%d of its packets went into the tunnel", n)
	}
}

func TestPacketsComeInAsConfigured(t *testing.T) {
	w := newWorld(t)
	w.serve(w.gw, 8080)
	w.serve(w.lan, 8080)
	w.run(w.net, "ip route add 192.168.9.0/24 dev far0")
	table := w.set(nft.Owned, gateway())
	foreignSource := func(to string) string {
		d := net.Dialer{Timeout: 500 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP(foreign4)}}
		var c net.Conn
		var err error
		netnstest.Do(t, w.net, func() { c, err = d.Dial("tcp", to) })
		if err != nil {
			return short(err)
		}
		defer c.Close()
		return w.hear(c, "tcp")
	}
	w.want("from the uplink to the host", foreignSource("198.18.0.2:8080"), foreign4)
	w.want("from the uplink to the LAN", foreignSource("192.168.8.20:8080"), "silence")
	w.want("out of the tunnel, blocked", foreignSource("10.9.0.2:8080"), "silence")
	w.want("tunnel's address from the uplink", w.viaUplink("10.9.0.2:8080"), "silence")
	allow := gateway()
	allow.Tunnels[0].Inbound = nft.InboundAllow
	w.become(table, allow)
	w.want("out of the tunnel, allowed", foreignSource("10.9.0.2:8080"), foreign4)
	w.run(w.net, "ip route replace 192.168.8.0/24 via 10.9.0.2")
	w.want("out of the tunnel to the LAN", foreignSource("192.168.8.20:8080"), foreign4)
	var s nft.State
	netnstest.Do(t, w.gw, func() { s, _ = table.Observe(context.Background()) })
	if s.Counters["inbound"].Packets == 0 || s.Counters["spoofed"].Packets == 0 {
		t.Errorf("nothing counted: %v", s.Counters)
	}
}

// viaUplink connects from net over the uplink, whatever its routes say.
func (w *world) viaUplink(to string) string {
	w.run(w.net, "ip route add 10.9.0.2/32 via 198.18.0.2 dev isp0")
	defer w.run(w.net, "ip route del 10.9.0.2/32 via 198.18.0.2 dev isp0")
	return w.ask(w.net, "tcp", to)
}

// Nobody beside the tunnel learns whether an address is this tunnel's, and what
// runs in it: what comes to it another way is not answered, by no reset either
// (SECURITY L-13).
func TestNobodyBesideTheTunnelReachesItsAddress(t *testing.T) {
	w := newWorld(t)
	w.serve(w.gw, 8080)
	w.run(w.net, "ip route add 10.9.0.2/32 via 198.18.0.2 dev isp0")
	w.run(w.net, "ip route add fd09::2/128 via 2409:1::2 dev isp0")
	ask := func(what, open, closed string) {
		t.Helper()
		for _, to := range []string{"10.9.0.2", "[fd09::2]"} {
			w.want(what, w.ask(w.net, "tcp", to+":8080"), open)
			w.want(what, w.ask(w.net, "tcp", to+":8081"), closed)
		}
	}
	if got := w.ask(w.net, "tcp", "10.9.0.2:8081"); got == "silence" {
		t.Fatalf("without the table: %s", got)
	}
	w.set(nft.Owned, gateway())
	ask("by the uplink", "silence", "silence")
}

func TestPacketsOfTheTunnelWithALANSourceAreDropped(t *testing.T) {
	w := newWorld(t)
	w.serve(w.gw, 8080)
	allow := gateway()
	allow.Tunnels[0].Inbound = nft.InboundAllow
	table := w.set(nft.Owned, allow)
	w.run(w.net, "ip addr add 192.168.8.66/32 dev lo")
	w.run(w.net, "ip route add 10.9.0.2/32 dev far0 src 192.168.8.66")
	w.want("with a LAN source", w.ask(w.net, "tcp", "10.9.0.2:8080"), "silence")
	var s nft.State
	netnstest.Do(t, w.gw, func() { s, _ = table.Observe(context.Background()) })
	if s.Counters["spoofed"].Packets == 0 {
		t.Errorf("nothing counted: %v", s.Counters)
	}
}

// (SECURITY L-02)
func TestPacketsOfATunnelNeverLeaveByTheUplink(t *testing.T) {
	w := newWorld(t)
	table := w.set(nft.Owned, gateway())
	leak := w.sniff(foreign4)
	w.run(w.gw, "ip rule add pref 50 lookup main") // as other VPN tools do: the routing lock is gone
	w.want("LAN", w.ask(w.lan, "tcp", foreign4+":80"), "silence")
	w.want("host", w.ask(w.gw, "tcp", foreign4+":80"), "silence")
	w.want("our socket", w.ask(w.gw, "tcp", foreign4+":80", probe), "silence")
	if n := leak(); n != 0 {
		t.Errorf("%d frames on the uplink", n)
	}
	var s nft.State
	netnstest.Do(t, w.gw, func() { s, _ = table.Observe(context.Background()) })
	if s.Counters["locked_wg0"].Packets == 0 {
		t.Errorf("nothing counted: %v", s.Counters)
	}
	w.run(w.gw, "ip rule del pref 50")
	netnstest.Do(t, w.gw, func() { // software that takes our bits of the packet mark
		load(t, `table inet other { chain c { type route hook output priority 0; meta mark set 0x1; }; }`)
	})
	w.want("a packet that lost its mark", w.ask(w.gw, "tcp", foreign4+":80"), "silence")
	if n := leak(); n != 0 {
		t.Errorf("%d frames on the uplink", n)
	}
}

// (SECURITY N-24)
func TestPacketsKeepTheMarksOfOthers(t *testing.T) {
	w := newWorld(t)
	w.set(nft.Owned, gateway())
	netnstest.Do(t, w.gw, func() {
		load(t, `table inet other {
			counter kept { }
			chain a { type filter hook prerouting priority -140; meta mark set mark or 0x40; ct mark set ct mark or 0x80; }
			chain b { type filter hook postrouting priority 0; oifname "wg0" meta mark & 0xff == 0x40 ct mark & 0xff == 0x80 counter name kept; }
		}`)
	})
	w.want("LAN", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
	netnstest.Do(t, w.gw, func() {
		if packets(t, "other", "kept") == 0 {
			t.Error("the bits of others are gone")
		}
	})
}

func TestPacketsPassStrictReversePathFilters(t *testing.T) {
	w := newWorld(t)
	w.set(nft.Owned, gateway())
	w.run(w.gw, "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.wan0.rp_filter=0")
	netnstest.Do(t, w.gw, func() { // what firewalld loads
		load(t, `table inet firewalld { chain rpfilter { type filter hook prerouting priority -140;
			meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }; }`)
	})
	w.want("LAN v4", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
	w.want("LAN v6", w.ask(w.lan, "tcp", "["+foreign6+"]:80"), tunnel6)
	w.want("host v6", w.ask(w.gw, "tcp", "["+foreign6+"]:80"), tunnel6)
	w.want("LAN home v6", w.ask(w.lan, "tcp", "["+home6+"]:80"), "fd08::20")
}

func TestPacketsToOtherDNSServersComeToUs(t *testing.T) {
	w := newWorld(t)
	w.serve(w.gw, 5300)
	w.serve(w.gw, 53)
	w.serve(w.net, 53)
	table := w.set(nft.Owned, gateway())
	var tracked func() string = func() (n string) {
		netnstest.Do(t, w.gw, func() { n = read(t, "/proc/sys/net/netfilter/nf_conntrack_count") })
		return n
	}
	before := tracked()
	for range 20 {
		w.want("our own address", w.ask(w.lan, "udp", "192.168.8.1:53"), "192.168.8.20")
		w.want("over lo", w.ask(w.gw, "udp", "127.0.0.1:53"), "127.0.0.1")
	}
	w.want("conntrack entries", tracked(), before)
	down := gateway()
	down.Tunnels[0].Up = false
	w.become(table, down) // a redirected query has nothing to do with the tunnel
	for _, network := range []string{"udp", "tcp"} {
		w.want("8.8.8.8 over "+network, w.ask(w.lan, network, foreign4+":53"), "192.168.8.20")
	}
	off := gateway()
	off.DNS.Redirect = 0
	w.become(table, off)
	w.want("no listener", w.ask(w.lan, "udp", foreign4+":53"), tunnel4)
	w.want("a private server", w.ask(w.lan, "udp", "10.9.0.1:53"), tunnel4)
}

// (SECURITY F-23)
func TestPacketsFitThroughTheTunnel(t *testing.T) {
	w := newWorld(t)
	table := w.set(nft.Owned, gateway())
	for _, fits := range []int{1420, 1216} {
		if fits < 1420 {
			r := gateway()
			r.Tunnels[0].Fits = fits
			w.become(table, r)
		}
		for _, ns := range []string{"LAN", "host"} {
			from := w.lan
			if ns == "host" {
				from = w.gw
			}
			for to, headers := range map[string]int{foreign4: 40, "[" + foreign6 + "]": 60} {
				c, err := w.dial(from, "tcp", to+":80", 0)
				if err != nil {
					t.Fatal(err)
				}
				if n := maxSegment(t, c); n > fits-headers {
					t.Errorf("%s to %s: segments of %d bytes, more than the %d that fit", ns, to, n, fits-headers)
				}
				c.Close()
			}
		}
	}
}

// While the clock is not set, NTP of the host goes direct, also where its route
// leads into the tunnel; that of clients, and all else, as always.
func TestPacketsThatAskForTheTimeGoDirect(t *testing.T) {
	w := newWorld(t)
	w.serve(w.net, 123)
	r := gateway()
	r.ClockFirst = true
	table := w.set(nft.Owned, r)
	w.want("NTP of the host", w.ask(w.gw, "udp", foreign4+":123"), "198.18.0.2")
	w.want("NTP of a client", w.ask(w.lan, "udp", foreign4+":123"), tunnel4)
	w.want("TCP to that port", w.ask(w.gw, "tcp", foreign4+":123"), tunnel4)
	w.become(table, gateway())
	w.want("NTP after the clock was set", w.ask(w.gw, "udp", foreign4+":123"), tunnel4)

	r.Decide = nft.Decide{Default: "wg0", Routed: true}
	w.run(w.gw, `
		ip rule add pref 5180 fwmark 0x1000000/0x3f000000 lookup 77
		ip route add default via 198.18.0.1 dev wan0 table 77
		ip route replace default via 10.9.0.1 dev wg0 onlink`)
	w.become(table, r)
	w.want("NTP that is routed into the tunnel", w.ask(w.gw, "udp", foreign4+":123"), "198.18.0.2")
	w.want("what else is", w.ask(w.gw, "udp", foreign4+":80"), tunnel4)
}

func TestPacketsOfTheLANAreLockedWithoutTheTable(t *testing.T) {
	w := newWorld(t)
	table := w.set(nft.Shared, gateway())
	leak := w.sniff(foreign4)
	netnstest.Do(t, w.gw, func() {
		if steps, err := table.Delete(context.Background()); err != nil || len(steps) != 1 {
			t.Errorf("deleting: %v, %v", steps, err)
		}
	})
	w.ask(w.lan, "udp", foreign4+":80")
	if n := leak(); n != 0 {
		t.Errorf("%d frames on the uplink", n)
	}
}

func defaultDirectGateway() nft.Ruleset {
	r := gateway()
	r.Decide = nft.Decide{Default: routing.Direct}
	return r
}

// sniffFar counts what reaches net out of the tunnel.
func (w *world) sniffFar(address string) func() int {
	netnstest.Do(w.t, w.net, func() {
		load(w.t, `table inet far { counter seen { }
			chain c { type filter hook prerouting priority -400; iifname "far0" ip daddr `+address+` counter name seen; }; }`)
	})
	return func() (n int) {
		netnstest.Do(w.t, w.net, func() { n = packets(w.t, "far", "seen") })
		return n
	}
}

func read(t testing.TB, file string) string {
	b, err := readFile(file)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(b))
}
