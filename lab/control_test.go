package lab_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
)

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// noLeaks fails t with the frames that were seen.
func noLeaks(t *testing.T, w *lab.World) {
	t.Helper()
	if n := w.Sniffer.Leaks(); n != 0 {
		t.Errorf("%d leaks:\n%s", n, strings.Join(w.Sniffer.Frames(), "\n"))
	}
}

// SECURITY.md L-01: without us, everything goes in the clear and the sniffer
// sees every probe.
func TestSnifferSeesEveryProbe(t *testing.T) {
	ctx, w := newWorld(t)
	noLeaks(t, w)
	frames := []string{}
	probe := func(name, want string, f func() error) {
		t.Helper()
		w.Sniffer.Reset()
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := w.Sniffer.Leaks(); n == 0 {
			t.Errorf("%s: the sniffer saw nothing", name)
		}
		got := w.Sniffer.Frames()
		if !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, want) }) {
			t.Errorf("%s: no %q in %q", name, want, got)
		}
		frames = append(frames, got...)
	}
	for _, from := range []*lab.Namespace{w.Client, w.Box, w.Gateway.Namespace} {
		for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
			for _, port := range []uint16{80, 443, 1234} {
				probe(from.Name+" tcp", "> "+at(to, port).String()+" SYN", func() error {
					_, err := from.Visit(ctx, at(to, port))
					return err
				})
				probe(from.Name+" udp", "udp ", func() error {
					_, err := from.Datagram(ctx, at(to, port))
					return err
				})
			}
			probe(from.Name+" icmp", "icmp ", func() error {
				_, err := from.Ping(ctx, lab.Ping{To: to})
				return err
			})
		}
		for _, server := range []netip.Addr{lab.Google, lab.GoogleV6, lab.Cloudflare} {
			for _, network := range []string{"udp", "tcp", "tls"} {
				want := "> " + at(server, 53).String()
				if network == "tls" {
					want = "> " + at(server, 853).String()
				}
				probe(from.Name+" dns "+network, want, func() error {
					_, err := from.Ask(ctx, lab.Question{Server: server, Net: network, Name: "www.example.com", Roots: w.Gateway.AuthorityFile()})
					return err
				})
			}
		}
	}
	if t.Failed() {
		t.Logf("frames:\n%s", strings.Join(frames, "\n"))
	}
}

func TestWhatMayBeOnTheUplinkIsNoLeak(t *testing.T) {
	ctx, w := newWorld(t)
	for _, from := range []*lab.Namespace{w.Client, w.Box, w.Gateway.Namespace} {
		for _, to := range []netip.Addr{lab.HomeWebV4, lab.HomeWebV6} {
			seen, err := from.Visit(ctx, at(to, 443))
			if err != nil {
				t.Fatalf("%s to %s: %v", from.Name, to, err)
			}
			if seen.ThroughTunnel() || seen.Place != "home" || seen.Local.Addr() != to {
				t.Errorf("%s to %s: the server says %+v", from.Name, to, seen)
			}
			if _, err := from.Datagram(ctx, at(to, 1234)); err != nil {
				t.Errorf("%s to %s: %v", from.Name, to, err)
			}
			if pong, err := from.Ping(ctx, lab.Ping{To: to}); err != nil || !pong.EchoReply() {
				t.Errorf("%s pings %s: %+v, %v", from.Name, to, pong, err)
			}
		}
		for _, server := range []netip.Addr{lab.AliDNS, lab.DNSPod, lab.AliDNSV6} {
			for _, network := range []string{"udp", "tcp"} {
				m, err := from.Ask(ctx, lab.Question{Server: server, Net: network, Name: "www.baidu.com"})
				if err != nil || !slices.Equal(lab.Addresses(m), []netip.Addr{lab.HomeWebV4}) {
					t.Errorf("%s asks %s by %s: %v, %v", from.Name, server, network, m, err)
				}
			}
		}
	}
	noLeaks(t, w)
}

func TestEveryoneSeesWhoCame(t *testing.T) {
	ctx, w := newWorld(t)
	for _, row := range []struct {
		from     *lab.Namespace
		to, want netip.Addr
		place    string
	}{
		{w.Gateway.Namespace, lab.AbroadWebV4, lab.UplinkV4, "abroad"},
		{w.Gateway.Namespace, lab.AbroadWebV6, lab.UplinkV6, "abroad"},
		{w.Client, lab.AbroadWebV4, lab.ClientV4, "abroad"},
		{w.Client, lab.HomeWebV6, lab.ClientV6, "home"},
		{w.Box, lab.HomeWebV4, lab.BoxV4, "home"},
		{w.Box, lab.AbroadWebV6, lab.BoxV6, "abroad"},
		{w.Gateway.Namespace, lab.NumberedAddr(lab.MaxNumber, false, false), lab.UplinkV4, "abroad"},
		{w.Gateway.Namespace, lab.NumberedHint(lab.MaxNumber, true, true), lab.UplinkV6, "home"},
	} {
		for _, visit := range []func(context.Context, netip.AddrPort) (lab.Seen, error){row.from.Visit, row.from.Datagram} {
			seen, err := visit(ctx, at(row.to, 443))
			if err != nil {
				t.Errorf("%s to %s: %v", row.from.Name, row.to, err)
				continue
			}
			if seen.Peer.Addr() != row.want || seen.Place != row.place || seen.Local != at(row.to, 443) {
				t.Errorf("%s to %s: seen %+v, want %s at %s", row.from.Name, row.to, seen, row.want, row.place)
			}
		}
	}
}

func TestBulkBothWays(t *testing.T) {
	ctx, w := newWorld(t)
	for _, to := range []netip.Addr{lab.HomeWebV4, lab.HomeWebV6, lab.AbroadWebV4} {
		s, err := w.Client.Connect(ctx, at(to, 1234))
		if err != nil {
			t.Fatal(err)
		}
		const size = 3 << 20
		if err := s.Upload(ctx, size); err != nil {
			t.Error(err)
		}
		if err := s.Download(ctx, size); err != nil {
			t.Error(err)
		}
		if err := s.Say(ctx, "still here"); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}

func TestPlainResolverIsPoisoned(t *testing.T) {
	ctx, w := newWorld(t)
	truth := netip.MustParseAddr("142.250.72.196")
	ask := func(server netip.Addr, network string, qtype uint16) []netip.Addr {
		t.Helper()
		m, err := w.Client.Ask(ctx, lab.Question{Server: server, Net: network, Name: "www.google.com", Type: qtype, Roots: w.Gateway.AuthorityFile()})
		if err != nil {
			t.Fatalf("asking %s by %s: %v", server, network, err)
		}
		return lab.Addresses(m)
	}
	for _, row := range []struct {
		server  netip.Addr
		network string
		qtype   uint16
		want    netip.Addr
	}{
		{lab.Google, "udp", dns.TypeA, lab.ForgedV4},
		{lab.Google, "udp", dns.TypeAAAA, lab.ForgedV6},
		{lab.GoogleV6, "udp", dns.TypeA, lab.ForgedV4},
		{lab.GoogleV6, "udp", dns.TypeAAAA, lab.ForgedV6},
		{lab.AliDNS, "udp", dns.TypeA, lab.ForgedV4},
		{lab.AliDNSV6, "udp", dns.TypeAAAA, lab.ForgedV6},
		{lab.AliDNS, "tcp", dns.TypeA, lab.ForgedV4}, // the server itself lies
		{lab.Google, "tcp", dns.TypeA, truth},
		{lab.Google, "tls", dns.TypeA, truth},
		{lab.GoogleV6, "tls", dns.TypeA, truth},
	} {
		if got := ask(row.server, row.network, row.qtype); !slices.Equal(got, []netip.Addr{row.want}) {
			t.Errorf("%s by %s says %s, want %s", row.server, row.network, got, row.want)
		}
	}
	if w.Injector.Forged(lab.Google) != 2 || w.Injector.Forged(lab.GoogleV6) != 2 || w.Injector.Forged(lab.AliDNS) != 1 {
		t.Errorf("the injector counts %d, %d, %d", w.Injector.Forged(lab.Google), w.Injector.Forged(lab.GoogleV6), w.Injector.Forged(lab.AliDNS))
	}

	// The true answer comes too, later.
	both, err := w.Client.AskAll(ctx, lab.Question{Server: lab.Google, Name: "www.google.com"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if f := lab.Addresses(both[0]); !slices.Equal(f, []netip.Addr{lab.ForgedV4}) || both[0].IsEdns0() != nil {
		t.Errorf("first came %s", both[0])
	}
	if f := lab.Addresses(both[1]); !slices.Equal(f, []netip.Addr{truth}) || both[1].IsEdns0() == nil {
		t.Errorf("then came %s", both[1])
	}

	w.Injector.Set(&lab.Forgery{V4: lab.HomeWebV4, Copies: 3, OPT: true, FirstRcode: dns.RcodeNameError})
	all, err := w.Client.AskAll(ctx, lab.Question{Server: lab.Cloudflare, Name: "www.facebook.com"}, 5)
	if err != nil {
		t.Fatal(err)
	}
	if all[0].Rcode != dns.RcodeNameError || all[0].IsEdns0() == nil || !slices.Equal(lab.Addresses(all[3]), []netip.Addr{lab.HomeWebV4}) ||
		!slices.Equal(lab.Addresses(all[4]), []netip.Addr{netip.MustParseAddr("157.240.22.35")}) {
		t.Errorf("got %v", all)
	}

	w.Injector.Set(nil)
	w.DNS.SetHold(0)
	if got := ask(lab.Google, "udp", dns.TypeA); !slices.Equal(got, []netip.Addr{truth}) {
		t.Errorf("without the injector 8.8.8.8 says %s", got)
	}
	// The record of who asked what.
	if n := len(w.DNS.Asked("www.google.com")); n != 12 {
		t.Errorf("%d questions on record, want 12: %v", n, w.DNS.Asked("www.google.com"))
	}
}

func TestDFAndHopLimit(t *testing.T) {
	ctx, w := newWorld(t)
	for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6} {
		pong, err := w.Client.Ping(ctx, lab.Ping{To: to, Size: 1450, DF: true})
		if err != nil || !pong.EchoReply() || pong.From != to {
			t.Errorf("1450 B to %s: %+v, %v", to, pong, err)
		}
		pong, err = w.Client.Ping(ctx, lab.Ping{To: to, TTL: 1})
		want := lab.LANV4
		if to.Is6() {
			want = lab.LANV6
		}
		if err != nil || !pong.TimeExceeded() || pong.From != want {
			t.Errorf("TTL 1 to %s: %+v, %v", to, pong, err)
		}
	}
	if err := w.Gateway.FlushRuleset(); err != nil {
		t.Error(err)
	}
}

func TestInboundRepliesAreNoLeaks(t *testing.T) {
	ctx, w := newWorld(t)
	foreign6 := netip.MustParseAddr("2606:2800:220:1::99")
	for _, row := range []struct{ from, to netip.Addr }{
		{lab.AbroadWebV4, lab.UplinkV4},
		{foreign6, lab.UplinkV6},
		{lab.AbroadWebV4, lab.ClientV4},
		{foreign6, lab.ClientV6},
		{lab.HomeWebV4, lab.UplinkV4},
		{lab.HomeWebV6, lab.ClientV6},
		{lab.AbroadWebV4, lab.BoxV4},
	} {
		s, err := w.ConnectIn(ctx, row.from, row.to)
		if err != nil {
			t.Errorf("%s to %s: %v", row.from, row.to, err)
			continue
		}
		if s.Seen.Peer.Addr() != row.from || s.Seen.Local.Addr() != row.to {
			t.Errorf("%s to %s: seen %+v", row.from, row.to, s.Seen)
		}
		if err := s.Say(ctx, "hello"); err != nil {
			t.Error(err)
		}
		s.Close()
		if _, err := w.DatagramIn(ctx, row.from, row.to); err != nil {
			t.Error(err)
		}
	}
	noLeaks(t, w)
}

// An on-link route in main asks for the victim by ARP: that is a leak, and
// packets follow.
func TestHostileRoutesAreSeen(t *testing.T) {
	ctx, w := newWorld(t)
	for _, r := range lab.HostileRoutes() {
		if err := w.Gateway.AddRoute(r); err != nil {
			t.Fatal(err)
		}
	}
	if seen, err := w.Gateway.Visit(ctx, at(lab.AbroadWebV4, 443)); err != nil || seen.ThroughTunnel() {
		t.Errorf("an on-link route leads to %+v, %v", seen, err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	w.Gateway.Visit(short, at(lab.AbroadWebV6, 443)) // nobody answers
	w.Sniffer.Leaks()
	for _, want := range []string{"who has 93.184.216.34?", "who has 2606:2800:220:1:248:1893:25c8:1946?", "> 93.184.216.34:443 SYN"} {
		if !slices.ContainsFunc(w.Sniffer.Frames(), func(f string) bool { return strings.Contains(f, want) }) {
			t.Errorf("no %q in %q", want, w.Sniffer.Frames())
		}
	}
	for _, r := range lab.HostileRoutes() {
		if err := w.Gateway.DeleteRoute(r); err != nil {
			t.Error(err)
		}
	}
}
