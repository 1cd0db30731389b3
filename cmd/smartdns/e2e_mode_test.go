package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"smartdns/lab"
)

// withMode is config with a [routing] mode.
func withMode(config, mode string) string {
	return config + "\n[routing]\nmode = \"" + mode + "\"\n"
}

// Routes alone send home directly and all else into the tunnel, for clients,
// containers and the host; they follow the uplink's gateway; nothing of the
// rest leaves with somebody's routes in main, without the tunnel, or without our
// nftables table; connections from outside are answered the way they came; a
// stop leaves nothing.
func TestModeRoutes(t *testing.T) {
	w := newWorld(t)
	w.config = strings.Replace(withMode(w.config, "routes")+"table = \"shared\"\n", `{ match = ["private"`,
		`{ match = "`+lab.NumberedAddr(7, true, false).String()+`", via = "wg0" },
  { match = ["private"`, 1)
	if err := w.Gateway.SetSysctl("net/ipv4/conf/all/rp_filter", "1"); err != nil {
		t.Fatal(err)
	}
	before := w.dump()
	w.start()
	w.waitUp()
	gateway := w.Gateway.Namespace
	both := func(when string) {
		t.Helper()
		for _, from := range w.hosts() {
			w.bothWays(from, 0)
		}
		for to, want := range map[netip.Addr]string{lab.NumberedAddr(7, true, false): "tunnel", lab.NumberedAddr(8, true, false): "direct"} {
			if err := w.carries(w.Client, to, want, 0); err != nil {
				t.Errorf("%s: a client to %s: %v", when, to, err)
			}
		}
	}
	both("at first")
	for _, name := range []string{"www.baidu.com", "www.example.com"} {
		if m := w.marks(); len(m.Marks) > 0 {
			t.Errorf("%s: marked %v", name, m.Marks)
		}
		w.resolve(name, 1)
	}
	w.neighbours()
	for _, p := range append(append(toGateway, toLAN...), pair{guest[true], lab.BoxV4}, pair{guest[false], lab.BoxV6}) {
		if err := w.comesIn(p.from, p.to); err != nil {
			t.Errorf("%s to %s: %v", p.from, p.to, err)
		}
	}
	for _, p := range byTunnel {
		w.keptOut(p.from, p.to)
	}

	// Somebody's routes move nothing but what is home.
	for _, r := range []string{"0.0.0.0/1", "128.0.0.0/1"} {
		w.ip("route", "add", r, "via", lab.RouterV4.String(), "dev", "wan0")
	}
	both("with routes of others")
	for _, r := range []string{"0.0.0.0/1", "128.0.0.0/1"} {
		w.ip("route", "del", r)
	}
	w.noLeaks()

	// Another gateway on the uplink: what is home goes by it.
	other := lab.RouterV4.Next().Next()
	if _, err := w.ISP.Exec(w.context(5*time.Second), "ip", "addr", "add", netip.PrefixFrom(other, 24).String(), "dev", "gw0"); err != nil {
		t.Fatal(err)
	}
	w.ip("route", "replace", "default", "via", other.String(), "dev", "wan0")
	w.waitFor("home follows the uplink", 15*time.Second, func() error {
		out, err := gateway.Exec(w.context(5*time.Second), "ip", "route", "get", lab.HomeWebV4.String())
		if err == nil && !strings.Contains(out, "via "+other.String()) {
			return errText(out)
		}
		return err
	})
	both("by another gateway")

	// Without our table, then without the tunnel: what is foreign does not leave.
	w.nft("flush ruleset\n")
	// What a client began meanwhile would be answered past us: here the ISP knows
	// the way to it.
	w.waitFor("the table is back", 15*time.Second, func() error {
		out, err := w.run("nft", "list", "table", "inet", "smartdns")
		if err == nil && !strings.Contains(out, "chain srcnat") {
			return errText(out)
		}
		return err
	})
	w.waitFor("the tunnel carries", 15*time.Second, func() error { return w.carries(w.Client, lab.AbroadWebV4, "tunnel", 0) })
	if err := w.Gateway.SetTunnel(false); err != nil {
		t.Fatal(err)
	}
	for _, from := range w.hosts() {
		w.from(from, lab.AbroadWebV4)
	}
	w.noLeaks()
	w.waitFor("the tunnel is back", 20*time.Second, func() error { return w.carries(w.Client, lab.AbroadWebV4, "tunnel", 0) })
	w.stop()
	w.ip("route", "replace", "default", "via", lab.RouterV4.String(), "dev", "wan0")
	w.equal("after the stop", w.dump(), before)
}

// ip changes the gateway as an admin would.
func (w *world) ip(args ...string) {
	w.t.Helper()
	if _, err := w.Gateway.Exec(w.context(5*time.Second), "ip", args...); err != nil {
		w.t.Fatal(err)
	}
}

// errText is output that says what is wrong.
type errText string

func (e errText) Error() string { return string(e) }

// Everything but what is private goes into the tunnel, home too, and the
// domestic servers are asked through it.
func TestModeAll(t *testing.T) {
	w := newWorld(t)
	w.config = strings.Replace(withMode(w.config, "all"), "via     = \"direct\"\n", "", 1)
	before := w.dump()
	w.start()
	w.waitUp()
	for _, from := range w.hosts() {
		for _, to := range []netip.Addr{lab.HomeWebV4, lab.HomeWebV6, lab.AbroadWebV4, lab.AbroadWebV6} {
			if err := w.carries(from, to, "tunnel", 0); err != nil {
				t.Errorf("%s to %s: %v", from.Name, to, err)
			}
		}
	}
	w.neighbours()
	for _, name := range []string{"www.baidu.com", "www.example.com"} {
		if to := w.resolve(name, 1); w.carries(w.Client, to, "tunnel", 0) != nil {
			t.Errorf("%s is %s, and does not go through the tunnel", name, to)
		}
	}
	if m := w.marks(); len(m.Marks) > 0 {
		t.Errorf("marked: %v", m.Marks)
	}
	if err := w.Gateway.SetTunnel(false); err != nil {
		t.Fatal(err)
	}
	// The sniffer lets what is home pass: here the server says how it came.
	for _, from := range w.hosts() {
		w.waitFor("home by the tunnel again", 15*time.Second, func() error {
			err := w.carries(from, lab.HomeWebV4, "tunnel", 0)
			if err != nil && strings.Contains(err.Error(), "went direct") {
				t.Errorf("%s without the tunnel: %v", from.Name, err)
			}
			return err
		})
	}
	w.noLeaks()
	w.stop()
	w.equal("after the stop", w.dump(), before)
}

// Nothing in the kernel is ours with mode = "off"; a side's queries leave by an
// interface that somebody else makes, or not at all.
func TestModeOff(t *testing.T) {
	w := newWorld(t)
	w.config = withMode(w.config, "off")
	before := w.dump()
	w.start()
	w.equal("while it runs", w.dump(), before)
	if said := w.daemon.Log(); !strings.Contains(said, " 192.168.8.1:53 ") {
		t.Errorf("the LAN is not served when it is ready:\n%s", said)
	}
	if a := w.resolve("www.baidu.com", 1); a != lab.HomeWebV4 {
		t.Errorf("www.baidu.com is %s", a)
	}
	m, err := w.Client.Ask(w.context(10*time.Second), lab.Question{Server: gatewayDNS, Name: "n00001.foreign.test"})
	if err != nil || m.Rcode != 2 {
		t.Errorf("without the interface wg0: %v, %v; want SERVFAIL", m, err)
	}
	if s := w.status(); !s.Fine || !strings.Contains(s.Summary, `mode is "off"`) {
		t.Errorf("status: %q", s.Summary)
	}
	w.noLeaks()
	w.stop()
}
