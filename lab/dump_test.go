package lab_test

import (
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"

	"smartdns/lab"
	"smartdns/lab/netnstest"
)

func TestDumpShowsEveryChange(t *testing.T) {
	ctx, w := newWorld(t)
	netnstest.Require(t, "nft", "ip")
	dump := func() string {
		t.Helper()
		s, err := w.Gateway.Dump(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	run := func(args string) {
		t.Helper()
		f := strings.Fields(args)
		if _, err := w.Gateway.Exec(ctx, f[0], f[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	before := dump()
	for _, row := range []struct{ do, undo, want string }{
		{"nft add table inet x", "nft delete table inet x", "table inet x {"},
		{"ip rule add pref 5101 fwmark 0x2000000/0x3f000000 lookup 52001 protocol 153", "ip rule del pref 5101", "v4 5101: fwmark 0x2000000 mask 0x3f000000 table 52001"},
		{"ip -6 rule add pref 5102 fwmark 0x2000000/0x3f000000 unreachable", "ip -6 rule del pref 5102", "v6 5102: fwmark 0x2000000 mask 0x3f000000"},
		{"ip route add unreachable default metric 4278198272 table 52001", "ip route del unreachable default table 52001", "v4 table 52001 0.0.0.0/0"},
		{"ip -6 route add 2606::/16 dev wan0 table 52001", "ip -6 route del 2606::/16 table 52001", "v6 table 52001 2606::/16"},
		{"ip addr add 10.1.1.1/32 dev lan0", "ip addr del 10.1.1.1/32 dev lan0", "addr lan0 10.1.1.1/32"},
		{"ip link set lan0 mtu 1400", "ip link set lan0 mtu 1500", "link lan0 veth mtu 1400"},
		{"ip link add name br9 type bridge", "ip link del br9", "link br9 bridge"},
		{"sysctl -qw net.ipv4.conf.lan0.rp_filter=2", "sysctl -qw net.ipv4.conf.lan0.rp_filter=0", "net/ipv4/conf/lan0/rp_filter = 2"},
		{"cp /etc/hostname /etc/resolv.conf", "cp /run/saved /etc/resolv.conf", "# resolv.conf"},
	} {
		if strings.HasPrefix(row.do, "cp") {
			run("cp /etc/resolv.conf /run/saved")
		}
		run(row.do)
		during := dump()
		if during == before || !strings.Contains(during, row.want) {
			t.Errorf("%s: the dump does not show %q", row.do, row.want)
		}
		run(row.undo)
		if after := dump(); after != before {
			t.Errorf("%s: the dump differs:\n%s", row.undo, firstDifference(before, after))
		}
	}
}

func firstDifference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return "-" + as[i] + "\n+" + bs[i]
		}
	}
	return "one is longer"
}

func TestFaultsAreMended(t *testing.T) {
	ctx, w := newWorld(t)
	before, err := w.Gateway.Dump(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Gateway.FlushRules(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Gateway.Visit(ctx, at(lab.HomeWebV4, 80)); err == nil {
		t.Error("without rules there is a way")
	}
	if err := w.Gateway.AddMainRules(); err != nil {
		t.Fatal(err)
	}
	if err := w.Gateway.SetUplink(ctx, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Gateway.Visit(ctx, at(lab.HomeWebV4, 80)); err == nil {
		t.Error("without an uplink there is a way")
	}
	noLeaks(t, w) // the barrier does not hang on a dead link
	if err := w.Gateway.SetUplink(ctx, true); err != nil {
		t.Fatal(err)
	}
	after, err := w.Gateway.Dump(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Errorf("the dump differs:\n%s", firstDifference(before, after))
	}
	for _, to := range []netip.Addr{lab.HomeWebV4, lab.HomeWebV6} {
		if _, err := w.Client.Visit(ctx, at(to, 80)); err != nil {
			t.Error(err)
		}
	}
}

// What was sent before Leaks is counted when it returns, from whichever CPU and
// however far away it was sent.
func TestLeaksCountsEverythingSentBefore(t *testing.T) {
	ctx, w := newWorld(t)
	for _, n := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
		if _, err := n.Visit(ctx, at(lab.AbroadWebV4, 80)); err != nil { // who is who is known
			t.Fatal(err)
		}
	}
	for round := range 20 {
		w.Sniffer.Reset()
		const senders, each = 4, 50
		var all sync.WaitGroup
		for i := range senders {
			n := []*lab.Namespace{w.Client, w.Gateway.Namespace}[i%2]
			c, err := n.Dial(ctx, "udp", netip.AddrPort{}, at(netip.MustParseAddr("93.184.1.1"), 1234))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			all.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				for range each {
					if _, err := c.Write([]byte("x")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if got := w.Sniffer.Leaks(); got != senders*each {
			t.Fatalf("round %d: %d leaks of %d datagrams: %q", round, got, senders*each, w.Sniffer.Frames())
		}
	}
}
