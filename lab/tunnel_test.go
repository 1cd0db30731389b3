package lab_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"smartdns/lab"
	"smartdns/lab/netnstest"
)

// handMade gives the gateway a tunnel and, for the LAN, a masquerade.
func handMade(t testing.TB, ctx context.Context, w *lab.World) {
	t.Helper()
	netnstest.Require(t, "nft")
	stop, err := w.HandMadeTunnel()
	if stop != nil {
		t.Cleanup(stop)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{
		"add table inet hand",
		"add chain inet hand out { type nat hook postrouting priority srcnat; }",
		`add rule inet hand out oifname "wg0" masquerade`,
	} {
		if _, err := w.Gateway.Exec(ctx, "nft", c); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTunnelPathIsSeenAndIsNoLeak(t *testing.T) {
	ctx, w := newWorld(t)
	handMade(t, ctx, w)
	for _, from := range []*lab.Namespace{w.Gateway.Namespace, w.Client, w.Box} {
		for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
			for name, visit := range map[string]func(context.Context, netip.AddrPort) (lab.Seen, error){"tcp": from.Visit, "udp": from.Datagram} {
				seen, err := visit(ctx, at(to, 443))
				if err != nil {
					t.Errorf("%s %s to %s: %v", from.Name, name, to, err)
					continue
				}
				if !seen.ThroughTunnel() || seen.Place != "abroad" || seen.Local.Addr() != to {
					t.Errorf("%s %s to %s: seen %+v", from.Name, name, to, seen)
				}
			}
			if pong, err := from.Ping(ctx, lab.Ping{To: to}); err != nil || !pong.EchoReply() {
				t.Errorf("%s pings %s: %+v, %v", from.Name, to, pong, err)
			}
		}
		m, err := from.Ask(ctx, lab.Question{Server: lab.Google, Name: "www.google.com"})
		if err != nil || !slices.Equal(lab.Addresses(m), []netip.Addr{netip.MustParseAddr("142.250.72.196")}) {
			t.Errorf("%s asks 8.8.8.8 through the tunnel: %v, %v", from.Name, m, err)
		}
	}
	noLeaks(t, w)
	if n := w.Injector.Forged(lab.Google); n != 0 {
		t.Errorf("the injector saw %d questions", n)
	}
	heard, err := w.FarEnd.Heard()
	if err != nil || heard == 0 {
		t.Errorf("the far end has heard %d bytes, %v", heard, err)
	}
}

func TestBulkThroughTunnelIsNoLeak(t *testing.T) {
	ctx, w := newWorld(t)
	handMade(t, ctx, w)
	for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
		s, err := w.Gateway.Connect(ctx, at(to, 1234))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Upload(ctx, 3<<20); err != nil {
			t.Error(err)
		}
		if err := s.Download(ctx, 3<<20); err != nil {
			t.Error(err)
		}
	}
	pong, err := w.Client.Ping(ctx, lab.Ping{To: lab.AbroadWebV4, Size: 1450, DF: true})
	if err != nil || !pong.TooBig() || pong.MTU != 1420 || pong.From != lab.LANV4 {
		t.Errorf("1450 B into a tunnel of 1420: %+v, %v", pong, err)
	}
	pong, err = w.Client.Ping(ctx, lab.Ping{To: lab.AbroadWebV6, Size: 1450, DF: true})
	if err != nil || !pong.TooBig() || pong.MTU != 1420 || pong.From != lab.LANV6 {
		t.Errorf("1450 B into a tunnel of 1420: %+v, %v", pong, err)
	}
	noLeaks(t, w)
}

func TestInboundThroughTunnel(t *testing.T) {
	ctx, w := newWorld(t)
	handMade(t, ctx, w)
	if _, err := w.Gateway.Visit(ctx, at(lab.AbroadWebV4, 80)); err != nil { // a handshake
		t.Fatal(err)
	}
	for _, row := range []struct{ from, to netip.Addr }{
		{lab.FarV4, lab.TunnelV4},
		{lab.FarV6, lab.TunnelV6},
		{lab.FarV4, lab.ClientV4},
		{lab.FarV6, lab.ClientV6},
		{lab.AbroadWebV4, lab.TunnelV4},
		{lab.AbroadWebV6, lab.TunnelV6},
	} {
		s, err := w.ConnectIn(ctx, row.from, row.to)
		if err != nil {
			t.Errorf("%s to %s: %v", row.from, row.to, err)
			continue
		}
		if s.Seen.Peer.Addr() != row.from {
			t.Errorf("%s to %s: seen %+v", row.from, row.to, s.Seen)
		}
		s.Close()
	}
	noLeaks(t, w)
}

func TestSilentFarEndLosesPackets(t *testing.T) {
	ctx, w := newWorld(t)
	handMade(t, ctx, w)
	to := at(lab.AbroadWebV4, 443)
	if _, err := w.Gateway.Visit(ctx, to); err != nil {
		t.Fatal(err)
	}
	w.FarEnd.SetSilent(true)
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if seen, err := w.Gateway.Visit(short, to); err == nil {
		t.Errorf("a silent far end carried %+v", seen)
	}
	w.FarEnd.SetSilent(false)
	if _, err := w.Gateway.Visit(ctx, to); err != nil {
		t.Error(err)
	}
	if err := w.Gateway.SetTunnel(false); err != nil {
		t.Fatal(err)
	}
	// Its rules lead to an empty table now, and main is next: the leak that the
	// sniffer is for.
	if seen, err := w.Gateway.Visit(ctx, to); err != nil || seen.ThroughTunnel() {
		t.Errorf("with the tunnel down: %+v, %v", seen, err)
	}
	if w.Sniffer.Leaks() == 0 {
		t.Error("the sniffer did not see it")
	}
}

// ISSUE 2 (c), as far as the world goes: many first connections at once.
func TestBurstThroughTunnel(t *testing.T) {
	ctx, w := newWorld(t)
	handMade(t, ctx, w)
	names := lab.Numbered("foreign", 2000)
	start := time.Now()
	c := w.Client.Burst(ctx, lab.Burst{
		Question: lab.Question{Server: lab.Google}, Names: names, Port: 443, Parallel: 50,
	})
	t.Logf("%d in %v: %+v", len(names), time.Since(start), c)
	if c.Tunnel != len(names) {
		t.Errorf("got %+v, want all %d through the tunnel", c, len(names))
	}
	noLeaks(t, w)
	// And the control: the sniffer sees each of as many direct ones.
	if err := w.Gateway.FlushRules(); err != nil {
		t.Fatal(err)
	}
	if err := w.Gateway.AddMainRules(); err != nil {
		t.Fatal(err)
	}
	c = w.Client.Burst(ctx, lab.Burst{
		Question: lab.Question{Server: lab.AliDNS}, Names: names[:500], Port: 443, Parallel: 50,
	})
	if c.Direct != 500 {
		t.Errorf("without rules: %+v", c)
	}
	// SYN, ACK and FIN are the least that a connection is made of.
	if n := w.Sniffer.Leaks(); n < 3*500 {
		t.Errorf("the sniffer saw %d frames of 500 connections:\n%s", n, strings.Join(w.Sniffer.Frames(), "\n"))
	}
}
