package nft_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

// lanMAC returns the MAC of the LAN client.
func (w *world) lanMAC() (mac routing.MAC) {
	w.t.Helper()
	netnstest.Do(w.t, w.lan, func() {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			w.t.Error(err)
			return
		}
		mac = routing.MAC(i.HardwareAddr)
	})
	return mac
}

// A client's own path comes before marks, lists and home, and is that of all
// its public addresses; nobody else's changes, nor does what is local.
func TestPacketsOfAClientWithAPathOfItsOwn(t *testing.T) {
	w := newWorld(t)
	r := gateway()
	table := w.set(nft.Owned, r)
	mark(t, table, "wg0", foreign4)
	by := map[string]nft.ClientRule{
		"address": {Prefixes: prefixes("192.168.8.20/32", "fd08::20/128")},
		"prefix":  {Prefixes: prefixes("192.168.8.0/27", "fd08::/64")},
		"MAC":     {MACs: []routing.MAC{{2, 0, 0, 0, 0, 1}, w.lanMAC()}},
	}
	for what, rule := range by {
		for via, want := range map[routing.Path][2]string{routing.Direct: {"192.168.8.20", "fd08::20"}, "wg0": {tunnel4, tunnel6}} {
			rule.Via, rule.Text = via, "clients[0]"
			r.Gateway.Clients = []nft.ClientRule{rule, {Prefixes: prefixes("192.168.8.0/24"), Via: "wg0", Text: "clients[1]"}}
			w.become(table, r)
			for _, network := range []string{"tcp", "udp"} {
				for _, to := range []string{foreign4, home4} {
					w.want(fmt.Sprintf("by %s via %s, %s to %s", what, via, network, to), w.ask(w.lan, network, to+":80"), want[0])
				}
			}
			for _, to := range []string{foreign6, home6} {
				w.want(fmt.Sprintf("by %s via %s to %s", what, via, to), w.ask(w.lan, "tcp", "["+to+"]:80"), want[1])
			}
			w.want("the tunnel's own network", w.ask(w.lan, "tcp", "10.9.0.1:80"), tunnel4)
			w.want("the host", w.ask(w.gw, "tcp", foreign4+":80"), tunnel4)
			w.want("the host, home", w.ask(w.gw, "tcp", home4+":80"), "198.18.0.2")
			w.want("a container", w.ask(w.box, "tcp", home4+":80"), "172.20.0.20")
		}
	}
	r.Tunnels[0].Up = false
	w.become(table, r)
	leak := w.sniff(home4)
	r.Gateway.Clients = []nft.ClientRule{{MACs: []routing.MAC{w.lanMAC()}, Via: "wg0", Text: "clients[0]"}}
	w.become(table, r)
	w.want("its tunnel is down", w.ask(w.lan, "tcp", home4+":80"), "refused")
	if n := leak(); n != 0 {
		t.Errorf("%d frames on the uplink", n)
	}
}

// What clients would ask past us fails at once; what the host itself asks does
// not, nor what is local, nor anything else of the same servers.
func TestPacketsPastUsAreRejected(t *testing.T) {
	w := newWorld(t)
	for _, port := range []int{443, 853} {
		w.serve(w.net, port)
	}
	r := gateway()
	table := w.set(nft.Owned, r)
	w.want("allowed", w.ask(w.lan, "tcp", home4+":853"), "192.168.8.20")
	r.Gateway.Bypass = nft.Bypass{Reject: true, DoH: prefixes(foreign4+"/32", foreign6+"/128", home4+"/32")}
	leak := w.sniff(home4)
	w.become(table, r)
	for _, c := range []struct{ network, to, want string }{
		{"tcp", foreign4 + ":853", "refused"}, {"udp", foreign4 + ":853", "unreachable"},
		{"tcp", home4 + ":853", "refused"}, {"udp", home4 + ":853", "unreachable"},
		{"tcp", "[" + foreign6 + "]:853", "refused"}, {"tcp", "[" + home6 + "]:853", "refused"},
		{"tcp", foreign4 + ":443", "refused"}, {"udp", home4 + ":443", "unreachable"},
		{"tcp", "[" + foreign6 + "]:443", "refused"},
		{"tcp", "[" + home6 + "]:443", "fd08::20"}, // none of the servers
		{"tcp", foreign4 + ":80", tunnel4}, {"tcp", "10.9.0.1:853", tunnel4},
	} {
		w.want("client "+c.network+" "+c.to, w.ask(w.lan, c.network, c.to), c.want)
	}
	if n := leak(); n != 0 {
		t.Errorf("%d frames for a rejected server on the uplink", n)
	}
	w.want("the host over TLS", w.ask(w.gw, "tcp", foreign4+":853"), tunnel4)
	w.want("the host over HTTPS", w.ask(w.gw, "tcp", home4+":443"), "198.18.0.2")
	w.want("a socket of ours", w.ask(w.gw, "tcp", home4+":853", plain), "198.18.0.2")
}

// Masquerade gives what leaves directly the uplink's address, once: where
// somebody else has translated it, that stays.
func TestPacketsAreMasqueradedWhenAsked(t *testing.T) {
	w := newWorld(t)
	r := gateway()
	r.Gateway.Masquerade4 = true
	table := w.set(nft.Owned, r)
	w.want("a client", w.ask(w.lan, "udp", home4+":80"), "198.18.0.2")
	w.want("a container", w.ask(w.box, "tcp", home4+":80"), "198.18.0.2")
	w.want("v6 was not asked for", w.ask(w.lan, "tcp", "["+home6+"]:80"), "fd08::20")
	w.want("the tunnel", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
	w.run(w.gw, "ip addr add 198.18.0.9/24 dev wan0")
	r.Gateway.Masquerade6 = true
	w.become(table, r)
	w.want("v6", w.ask(w.lan, "tcp", "["+home6+"]:80"), "2409:1::2")
	netnstest.Do(t, w.gw, func() {
		load(t, `table ip other {
			chain post {
				type nat hook postrouting priority srcnat + 5
				oifname "wan0" snat to 198.18.0.9
			}
		}`)
	})
	w.want("others after us", w.ask(w.lan, "tcp", home4+":80"), "198.18.0.2")
	netnstest.Do(t, w.gw, func() {
		load(t, `delete table ip other
		table ip other {
			chain post {
				type nat hook postrouting priority srcnat - 5
				oifname "wan0" snat to 198.18.0.9
			}
		}`)
	})
	w.want("others before us", w.ask(w.lan, "tcp", home4+":80"), "198.18.0.9")
}

// offloading is a gateway whose direct flows the kernel carries.
func offloading() nft.Ruleset {
	r := gateway()
	r.Gateway.Offload = []string{"wan0", "lan0"}
	return r
}

// A flowtable is asked for as nft does it; a kernel that has none says so, and
// keeps the table that it has.
func TestFlowtableOfDirectFlows(t *testing.T) {
	text := offloading().String()
	const file = "../testdata/nft/offload.nft"
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Errorf("the text changed (-want +got; -update writes it):\n%s", d)
	}
	if got := nft.FlowtableMessage("lan0", "wan0"); got != flowtableMessage {
		t.Errorf("the message is\n%s, want\n%s", got, flowtableMessage)
	}

	w := newWorld(t)
	table := w.set(nft.Owned, gateway())
	before := ""
	netnstest.Do(t, w.gw, func() { before = nftOut(t, "list", "ruleset") })
	can := false
	netnstest.Do(t, w.gw, func() {
		if can, err = table.CanOffload(t.Context()); err != nil {
			t.Error(err)
		}
		if after := nftOut(t, "list", "ruleset"); after != before {
			t.Errorf("asking changed the ruleset:\n%s", cmp.Diff(before, after))
		}
		steps, err := table.Set(t.Context(), offloading())
		if can != (err == nil) {
			t.Errorf("the kernel can offload: %t, but setting it: %v", can, err)
		}
		if again, err := table.Set(t.Context(), offloading()); can && (err != nil || len(again) > 0) {
			t.Errorf("a second time: %v, %v", again, err)
		}
		if !can && !strings.Contains(fmt.Sprint(err), "flowtable") {
			t.Errorf("the error does not say what is missing: %v (%v)", err, steps)
		}
	})
	w.want("a client", w.ask(w.lan, "tcp", home4+":80"), "192.168.8.20")
	w.want("a client abroad", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
}

// flowtableMessage is what nft 1.0.6 sends (--debug=mnl), without the flags that
// it writes as none.
const flowtableMessage = "60000000160a0104" + "00000000" + "00000000" + "01000000" + // create; sequence, port; family inet
	"0d000100736d617274646e7300000000" + // table smartdns
	"0b00020064697265637400" + "00" + // flowtable direct
	"30000380" + "0800010000000000" + "0800020000000000" + // hook ingress, priority 0
	"1c000380" + "090001006c616e3000000000" + "0900010077616e3000000000" // devices
