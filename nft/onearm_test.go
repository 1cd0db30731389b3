package nft_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

// oneArmed is a gateway beside the router: one interface is LAN and uplink.
func oneArmed() nft.Ruleset {
	r := gateway()
	r.Interfaces.LAN, r.Interfaces.Uplinks = []string{"arm0"}, []string{"arm0"}
	return r
}

// newArmWorld has clients, gateway and router on one network; the router, net,
// knows every client, and answers it past the gateway if it can.
func newArmWorld(t *testing.T) *world {
	t.Helper()
	netnstest.Require(t, "ip", "nft")
	w := &world{t, netnstest.New(t), netnstest.New(t), netnstest.New(t), netnstest.New(t)}
	bridge := w.box
	for _, ns := range []netns.NsHandle{w.lan, bridge, w.gw, w.net} {
		w.run(ns, "sysctl -qw net.ipv6.conf.default.dad_transmits=0 net.ipv6.conf.default.accept_dad=0")
	}
	w.run(bridge, "ip link add sw type bridge\nip link set sw up")
	for i, h := range []struct {
		name string
		ns   netns.NsHandle
	}{{"eth0", w.lan}, {"arm0", w.gw}, {"isp0", w.net}} {
		w.run(bridge, fmt.Sprintf("ip link add p%d type veth peer name %s netns /proc/%d/fd/%d\nip link set p%d master sw up", i, h.name, os.Getpid(), int(h.ns), i))
	}
	w.run(w.gw, fmt.Sprintf("ip link add wg0 type veth peer name far0 netns /proc/%d/fd/%d", os.Getpid(), int(w.net)))
	w.run(w.gw, `
		ip addr add 192.168.8.1/24 dev arm0
		ip addr add fd08::1/64 dev arm0 nodad
		ip addr add 10.9.0.2/32 dev wg0
		ip addr add fd09::2/128 dev wg0 nodad
		ip link set wg0 mtu 1420
		ip link set arm0 up
		ip link set wg0 up
		ip route add default via 192.168.8.254
		ip route add default via fd08::fe
		ip route add default via 10.9.0.1 dev wg0 onlink table 52001
		ip route add default via fd09::1 dev wg0 onlink table 52001
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.wg0.rp_filter=2
		sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.arm0.src_valid_mark=1`)
	for _, family := range []string{"-4", "-6"} {
		w.run(w.gw, fmt.Sprintf(`
		ip %[1]s rule add pref 5101 fwmark 0x2000000/0x3f000000 lookup 52001
		ip %[1]s rule add pref 5102 fwmark 0x2000000/0x3f000000 unreachable
		ip %[1]s rule add pref 5199 nop
		ip %[1]s rule add pref 5190 iif arm0 fwmark 0x1000000/0x3f000000 goto 5199
		ip %[1]s rule add pref 5191 iif arm0 lookup 52001`, family))
	}
	w.run(w.lan, `
		ip addr add 192.168.8.20/24 dev eth0
		ip addr add fd08::20/64 dev eth0 nodad
		ip link set eth0 up
		ip route add default via 192.168.8.1
		ip route add default via fd08::1`)
	w.run(w.net, `
		ip addr add 192.168.8.254/24 dev isp0
		ip addr add fd08::fe/64 dev isp0 nodad
		ip addr add 10.9.0.1/24 dev far0
		ip addr add fd09::1/64 dev far0 nodad
		ip link set isp0 up
		ip link set far0 up
		ip addr add `+foreign4+`/32 dev lo
		ip addr add `+foreign6+`/128 dev lo nodad
		ip addr add `+home4+`/32 dev lo
		ip addr add `+home6+`/128 dev lo nodad`)
	w.serve(w.net, 80)
	return w
}

// A gateway that reaches its clients and its router by the same interface: both
// ways work, for the clients and for itself, and nobody is told to go round it.
func TestPacketsOfAGatewayBesideTheRouter(t *testing.T) {
	w := newArmWorld(t)
	leak4, leak6 := w.sniff(foreign4), w.sniff(foreign6)
	told := w.redirected()
	table := w.set(nft.Owned, oneArmed())
	for name, ns := range map[string]netns.NsHandle{"client": w.lan, "host": w.gw} {
		for _, network := range []string{"tcp", "udp"} {
			w.want(name+" foreign "+network, w.ask(ns, network, foreign4+":80"), tunnel4)
			w.want(name+" home "+network, w.ask(ns, network, home4+":80"), "192.168.8.1")
		}
		w.want(name+" foreign v6", w.ask(ns, "tcp", "["+foreign6+"]:80"), tunnel6)
		w.want(name+" home v6", w.ask(ns, "tcp", "["+home6+"]:80"), "fd08::1")
		for _, to := range []string{home4 + ":80", "[" + home6 + "]:80", foreign4 + ":80"} {
			c, err := w.dial(ns, "tcp", to, 0)
			if err != nil {
				t.Errorf("%s to %s: %v", name, to, err)
				continue
			}
			w.hear(c, "tcp")
			for range 3 {
				if err := echo(c); err != nil {
					t.Errorf("%s to %s: %v", name, to, err)
				}
			}
			c.Close()
		}
	}
	if n := leak4() + leak6(); n != 0 {
		t.Errorf("%d frames for foreign addresses at the router", n)
	}
	if n := told(); n != 0 {
		t.Errorf("the client was told %d times to go round us", n)
	}
	mark(t, table, routing.Direct, foreign4)
	w.want("marked direct", w.ask(w.lan, "tcp", foreign4+":80"), "192.168.8.1")
	if leak4() == 0 {
		t.Error("the sniffer is blind")
	}
	dead := oneArmed()
	dead.Tunnels[0].Up = false
	w.become(table, dead)
	w.want("a dead tunnel", w.ask(w.lan, "tcp", "["+foreign6+"]:80"), "refused")
	w.want("home beside a dead tunnel", w.ask(w.lan, "tcp", home4+":80"), "192.168.8.1")
}

// redirected counts the redirects that the client gets from now on.
func (w *world) redirected() (n func() int) {
	w.t.Helper()
	netnstest.Do(w.t, w.lan, func() {
		load(w.t, `table inet told {
			counter seen { }
			chain c {
				type filter hook prerouting priority -400
				icmp type redirect counter name seen
				icmpv6 type nd-redirect counter name seen
			}
		}`)
	})
	return func() (n int) {
		netnstest.Do(w.t, w.lan, func() {
			_, packets, _ := strings.Cut(nftOut(w.t, "list", "counter", "inet", "told", "seen"), "packets ")
			if _, err := fmt.Sscan(packets, &n); err != nil {
				w.t.Error(err)
			}
		})
		return n
	}
}
