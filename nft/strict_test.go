package nft_test

import (
	"net/netip"
	"testing"
	"time"

	"smartdns/lab/netnstest"
	"smartdns/nft"
)

// With strict nothing leaves that no rule has decided: not what others began,
// nor to nobody in particular, nor by an interface that is new. What was decided
// goes on, and so does the LAN.
func TestStrictLetsOutOnlyWhatIsDecided(t *testing.T) {
	w := newWorld(t)
	w.serve(w.gw, 22)
	before, err := w.dial(w.gw, "tcp", foreign4+":80", 0) // L-12
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	w.want("before", w.hear(before, "tcp"), "198.18.0.2")
	inbound := w.dialFrom(foreign4, "198.18.0.2:22")
	defer inbound.Close()
	w.hear(inbound, "tcp")

	leak4, leak6, many, many6 := w.sniff(foreign4), w.sniff(foreign6), w.sniff("224.0.0.0/4"), w.sniff("ff05::/16")
	table := w.set(nft.Owned, strict())
	if err := echo(before); err == nil || short(err) != "refused" {
		t.Errorf("a flow of before: %v, want a reset", err)
	}
	if err := echo(inbound); err == nil {
		t.Error("a session from outside goes on")
	}
	w.want("LAN foreign", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
	w.want("host foreign v6", w.ask(w.gw, "tcp", "["+foreign6+"]:80"), tunnel6)
	w.want("container foreign", w.ask(w.box, "tcp", foreign4+":80"), tunnel4)
	w.want("LAN home", w.ask(w.lan, "tcp", home4+":80"), "192.168.8.20")
	w.want("LAN home v6", w.ask(w.lan, "tcp", "["+home6+"]:80"), "fd08::20")
	w.want("host home", w.ask(w.gw, "tcp", home4+":80"), "198.18.0.2")
	w.want("host home v6", w.ask(w.gw, "tcp", "["+home6+"]:80"), "2409:1::2")
	w.want("container home", w.ask(w.box, "udp", home4+":80"), "172.20.0.20")
	w.want("a socket of ours", w.ask(w.gw, "udp", home4+":80", plain), "198.18.0.2")
	w.want("host to the LAN", w.ask(w.lan, "tcp", "192.168.8.1:22"), "192.168.8.20")
	w.run(w.gw, `
		ip route add 224.0.0.0/4 dev wan0
		ip -6 route add ff05::/16 dev wan0 table local`)
	for _, group := range []string{"239.1.2.3:5000", "[ff05::1:3]:5000"} {
		if c, err := w.dial(w.gw, "udp", group, 0); err == nil {
			_, _ = c.Write([]byte("is anybody there?"))
			c.Close()
		}
	}
	if n := leak4() + leak6() + many() + many6(); n != 0 {
		t.Errorf("%d frames on the uplink", n)
	}

	// A way out that nobody told us of.
	w.run(w.gw, "ip link set wan0 name usb0")
	w.want("host foreign by a new uplink", w.ask(w.gw, "tcp", foreign4+":80"), tunnel4)
	w.run(w.gw, "ip link set wg0 down")
	home := w.sniff(home4)
	w.become(table, lockdown())
	for _, where := range []string{foreign4 + ":80", home4 + ":80", "10.9.0.1:80"} {
		w.want("host, locked", w.ask(w.gw, "tcp", where), "refused")
		w.want("LAN, locked", w.ask(w.lan, "tcp", where), "refused")
		w.want("container, locked", w.ask(w.box, "udp", where), "unreachable")
	}
	w.want("a socket of ours, locked", w.ask(w.gw, "udp", home4+":80", plain), "unreachable")
	w.want("the LAN, locked", w.ask(w.lan, "tcp", "192.168.8.1:22"), "192.168.8.20")
	w.want("the LAN v6, locked", w.ask(w.lan, "tcp", "[fd08::1]:22"), "fd08::20")
	if n := leak4() + leak6() + home(); n != 0 {
		t.Errorf("%d frames on the uplink, locked", n)
	}
	w.run(w.gw, "ip link set wg0 up")
	w.become(table, strict())
	w.want("decided again", w.ask(w.gw, "tcp", home4+":80"), "198.18.0.2")
}

// Positive control, and the way there: without the kill switch a host's own
// undecided packets leave.
func TestLaxLetsOutWhatNobodyDecides(t *testing.T) {
	w := newWorld(t)
	many := w.sniff("224.0.0.0/4")
	w.set(nft.Owned, gateway())
	w.run(w.gw, "ip route add 224.0.0.0/4 dev wan0")
	c, err := w.dial(w.gw, "udp", "239.1.2.3:5000", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("is anybody there?")); err != nil {
		t.Error(err)
	}
	if many() == 0 {
		t.Error("the sniffer is blind")
	}
	netnstest.Do(t, w.gw, func() { nftOut(t, "list", "table", "inet", "smartdns") })
}

// What a portal opens is TCP 80 and 443 of its addresses and port 53 of its
// resolvers, for this host alone, and the kernel closes it with nobody there.
func TestPortalClosesByItself(t *testing.T) {
	w := newWorld(t)
	w.serve(w.net, 53)
	w.serve(w.net, 443)
	table := w.set(nft.Owned, strict())
	open := func(life time.Duration) {
		t.Helper()
		if _, err := table.OpenPortal(t.Context(), nft.Portal{Resolvers: []netip.Addr{addr(home4), addr("198.18.0.1")}, Addrs: []netip.Addr{addr(foreign4), addr(foreign6)}, Life: life}); err != nil {
			t.Fatal(err)
		}
	}
	open(time.Hour)
	for _, c := range []struct{ what, network, to, want string }{
		{"login", "tcp", foreign4 + ":80", "198.18.0.2"}, {"login", "tcp", foreign4 + ":443", "198.18.0.2"},
		{"login, v6", "tcp", "[" + foreign6 + "]:80", "2409:1::2"},
		{"its resolver", "udp", "198.18.0.1:53", "198.18.0.2"}, {"its resolver", "tcp", "198.18.0.1:53", "198.18.0.2"},
		{"another port", "tcp", foreign4 + ":53", tunnel4}, {"UDP", "udp", foreign4 + ":443", tunnel4},
	} {
		w.want(c.what, w.ask(w.gw, c.network, c.to), c.want)
	}
	w.want("a client", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
	w.become(table, strict())
	w.want("after another Set", w.ask(w.gw, "tcp", foreign4+":80"), "198.18.0.2")
	for range 2 { // a second time renews
		open(1500 * time.Millisecond)
	}
	c, err := w.dial(w.gw, "tcp", foreign4+":80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.want("a session", w.hear(c, "tcp"), "198.18.0.2")
	if err := table.Close(); err != nil { // as a daemon that died
		t.Error(err)
	}
	end := time.Now().Add(20 * time.Second)
	for w.ask(w.gw, "tcp", foreign4+":80") != tunnel4 {
		if time.Now().After(end) {
			t.Fatal("the portal is open for ever")
		}
	}
	leak := w.sniff(foreign4)
	if err := echo(c); err == nil || short(err) != "refused" {
		t.Errorf("a session after the portal has closed: %v, want a reset", err)
	}
	if n := leak(); n != 0 {
		t.Errorf("a session after the portal has closed: %d frames on the uplink", n)
	}
}
