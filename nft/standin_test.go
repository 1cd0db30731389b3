package nft_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netns"

	"smartdns/nft"
	"smartdns/routing"
)

const secondTunnel4 = "10.10.0.2"

// standIn is a gateway of two tunnels: home4 belongs into wg1, the rest of the
// world into wg0. While wg0 is down, by carries its flows.
func standIn(up bool, by routing.Path) nft.Ruleset {
	r := gateway()
	r.Tunnels[0].Up, r.Tunnels[0].StandIn = up, by
	r.Tunnels = append(r.Tunnels, nft.Tunnel{
		Path: "wg1", Mark: routing.DefaultField.Tunnel(1), Up: true, MTU: 1380,
		Addresses: prefixes(secondTunnel4+"/32", "fd10::2/128"),
	})
	r.Decide.Rules = append([]nft.AddressRule{
		{Match: nft.Match{Kind: nft.MatchPrefix, Prefix: netip.MustParsePrefix(home4 + "/32")}, Via: "wg1", Text: "addresses[0]"},
	}, r.Decide.Rules...)
	return r
}

// newWorldOfTwo adds a second veth that plays a tunnel.
func newWorldOfTwo(t *testing.T) *world {
	w := newWorld(t)
	w.run(w.gw, fmt.Sprintf(`
		ip link add wg1 type veth peer name far1 netns /proc/%d/fd/%d
		ip addr add 10.10.0.2/32 dev wg1
		ip addr add fd10::2/128 dev wg1 nodad
		ip link set wg1 mtu 1380 up
		sysctl -qw net.ipv4.conf.wg1.rp_filter=2
		ip route add default via 10.10.0.1 dev wg1 onlink table 52002
		ip route add default via fd10::1 dev wg1 onlink table 52002`, os.Getpid(), int(w.net)))
	for _, family := range []string{"-4", "-6"} {
		w.run(w.gw, fmt.Sprintf(`
		ip %[1]s rule add pref 5103 fwmark 0x3000000/0x3f000000 lookup 52002
		ip %[1]s rule add pref 5104 fwmark 0x3000000/0x3f000000 unreachable`, family))
	}
	w.run(w.net, `
		ip addr add 10.10.0.1/24 dev far1
		ip addr add fd10::1/64 dev far1 nodad
		ip link set far1 up`)
	return w
}

// While a tunnel is down its flows go by the stand-in, with the stand-in's
// address; those of before end, those of the stand-in itself never do; and on
// its return only what stood in ends. Nothing takes the uplink meanwhile.
func TestPacketsGoByTheStandIn(t *testing.T) {
	w := newWorldOfTwo(t)
	leak4, leak6, leakHome := w.sniff(foreign4), w.sniff(foreign6), w.sniff(home4)
	table := w.set(nft.Owned, standIn(true, ""))
	keep := func(from string, address, want string) (c net.Conn) {
		t.Helper()
		ns := w.lan
		if from == "gateway" {
			ns = w.gw
		}
		c, err := w.dial(ns, "tcp", address, 0)
		if err != nil {
			t.Fatalf("%s to %s: %v", from, address, err)
		}
		t.Cleanup(func() { c.Close() })
		w.want(from+" to "+address, w.hear(c, "tcp"), want)
		return c
	}
	hosts := []string{"LAN", "gateway"}
	ends := func(what string, c net.Conn) {
		t.Helper()
		if err := echo(c); err == nil || short(err) != "refused" {
			t.Errorf("%s: %v, want a reset", what, err)
		}
	}
	everybody := func(what, v4, v6 string) {
		t.Helper()
		for _, network := range []string{"tcp", "udp"} {
			w.want(what+", LAN by "+network, w.ask(w.lan, network, foreign4+":80"), v4)
			w.want(what+", gateway by "+network, w.ask(w.gw, network, foreign4+":80"), v4)
		}
		w.want(what+", LAN by IPv6", w.ask(w.lan, "tcp", "["+foreign6+"]:80"), v6)
		w.want(what+", gateway by IPv6", w.ask(w.gw, "tcp", "["+foreign6+"]:80"), v6)
	}
	var before, own []net.Conn
	for _, h := range hosts {
		before = append(before, keep(h, foreign4+":80", tunnel4))
		own = append(own, keep(h, home4+":80", secondTunnel4))
	}
	everybody("both up", tunnel4, "fd09::2")

	w.become(table, standIn(false, "wg1"))
	for i, h := range hosts {
		ends("a flow of the dead tunnel from the "+h, before[i])
	}
	everybody("wg1 stands in", secondTunnel4, "fd10::2")
	var stood []net.Conn
	for _, h := range hosts {
		stood = append(stood, keep(h, foreign4+":80", secondTunnel4))
	}
	w.become(table, standIn(false, "wg1")) // changes nothing
	for i := range hosts {
		if err := echo(stood[i]); err != nil {
			t.Errorf("a flow that stands in: %v", err)
		}
	}

	// The stand-in falls as well: nobody carries it.
	both := standIn(false, "")
	both.Tunnels[1].Up = false
	w.become(table, both)
	for i, ns := range []netns.NsHandle{w.lan, w.gw} {
		w.want("both down, "+hosts[i]+" by tcp", w.ask(ns, "tcp", foreign4+":80"), "refused")
		w.want("both down, "+hosts[i]+" by udp", w.ask(ns, "udp", foreign4+":80"), "unreachable")
		w.want("both down, "+hosts[i]+" by IPv6", w.ask(ns, "tcp", "["+foreign6+"]:80"), "refused")
	}
	// And comes back first.
	w.become(table, standIn(false, "wg1"))
	everybody("wg1 is back", secondTunnel4, "fd10::2")
	for i, h := range hosts {
		if err := echo(own[i]); err != nil {
			t.Errorf("a flow of wg1's own from the %s: %v", h, err)
		}
		stood[i] = keep(h, foreign4+":80", secondTunnel4)
	}

	w.become(table, standIn(true, ""))
	for i, h := range hosts {
		ends("a flow that stood in from the "+h, stood[i])
		if err := echo(own[i]); err != nil {
			t.Errorf("a flow of wg1's own from the %s, after all of it: %v", h, err)
		}
	}
	everybody("wg0 is back", tunnel4, "fd09::2")
	if n := leak4() + leak6() + leakHome(); n != 0 {
		t.Errorf("%d frames on the uplink", n)
	}
}

// A stand-in that does not exist, or is the tunnel itself, is no ruleset.
func TestCheckOfStandIns(t *testing.T) {
	for _, by := range []routing.Path{"wg0", "wg9"} {
		if err := standIn(false, by).Check(); err == nil {
			t.Errorf("%s stands in for wg0", by)
		}
	}
	if err := standIn(false, "wg1").Check(); err != nil {
		t.Error(err)
	}
}
