package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
)

// What LAN clients ask other servers, over UDP and TCP, v4 and v6, comes to us.
// What they ask servers of the LAN does not. Without us the same question is on
// the uplink, and the answer forged: lab's TestPlainResolverIsPoisoned
// (SECURITY L-07).
func TestForeignServersAreAnsweredByUs(t *testing.T) {
	w := started(t)
	w.DNS.Forget()
	for _, server := range []netip.Addr{lab.Google, lab.Cloudflare, lab.GoogleV6, netip.MustParseAddr("93.184.216.34")} {
		for _, network := range []string{"udp", "tcp"} {
			for name, want := range map[string]netip.Addr{
				"www.google.com":  netip.MustParseAddr("142.250.72.196"),
				"www.baidu.com":   lab.HomeWebV4,
				"v4.foreign.test": netip.MustParseAddr("93.184.218.4"),
			} {
				m := w.ask(name, lab.Question{Server: server, Net: network})
				if a := lab.Addresses(m); len(a) != 1 || a[0] != want {
					t.Errorf("%s over %s at %s: %v, want %s", name, network, server, a, want)
				}
			}
		}
	}
	for _, asked := range w.DNS.Asked("") {
		if asked.From.Addr() == lab.ClientV4 || asked.From.Addr() == lab.ClientV6 {
			t.Errorf("the client's own question went out: %s", asked)
		}
	}
	if n := w.Injector.Forged(lab.Google) + w.Injector.Forged(lab.GoogleV6); n != 0 {
		t.Errorf("the injector saw %d questions to Google", n)
	}
	w.noLeaks()
}

// What is too big for the tunnel, and what has run out of hops, is said by the
// gateway: to LAN clients and to containers, v4 and v6 (SECURITY F-23).
func TestErrorsReachTheirSenders(t *testing.T) {
	w := started(t)
	for _, row := range []struct {
		from    *lab.Namespace
		to, hop netip.Addr
		tunnel  bool
	}{
		{w.Client, lab.AbroadWebV4, lab.LANV4, true},
		{w.Client, lab.AbroadWebV6, lab.LANV6, true},
		{w.Client, lab.HomeWebV4, lab.LANV4, false},
		{w.Client, lab.HomeWebV6, lab.LANV6, false},
		{w.Box, lab.AbroadWebV4, netip.MustParseAddr("172.30.0.1"), true},
		{w.Box, lab.AbroadWebV6, netip.MustParseAddr("fd00:30::1"), true},
	} {
		what := fmt.Sprintf("%s to %s", row.from.Name, row.to)
		pong, err := row.from.Ping(w.context(5*time.Second), lab.Ping{To: row.to, Size: 1450, DF: true})
		switch {
		case err != nil:
			t.Errorf("%s, 1450 B: %v", what, err)
		case row.tunnel && (!pong.TooBig() || pong.MTU != 1420 || pong.From != row.hop):
			t.Errorf("%s, 1450 B: %+v, want too big for 1420 from %s", what, pong, row.hop)
		case !row.tunnel && !pong.EchoReply():
			t.Errorf("%s, 1450 B: %+v, want the echo", what, pong)
		}
		pong, err = row.from.Ping(w.context(5*time.Second), lab.Ping{To: row.to, TTL: 1})
		if err != nil || !pong.TimeExceeded() || pong.From != row.hop {
			t.Errorf("%s, TTL 1: %+v, %v; want time exceeded from %s", what, pong, err, row.hop)
		}
		pong, err = row.from.Ping(w.context(5*time.Second), lab.Ping{To: row.to, Size: 1400, DF: true})
		if err != nil || !pong.EchoReply() {
			t.Errorf("%s, 1400 B: %+v, %v; want the echo", what, pong, err)
		}
	}
	w.noLeaks()
}

// While the tunnel is down, a connection to the world fails in less than 100
// ms, for everybody, v4 and v6; what is at home works (SECURITY L-11).
func TestConnectionsFailFastWhileTheTunnelIsDown(t *testing.T) {
	w := newWorld(t)
	w.delegate()
	w.start()
	w.waitUp()
	for _, from := range w.hosts() {
		w.bothWays(from, 0)
	}
	open, err := w.Client.Connect(w.context(5*time.Second), port443(lab.AbroadWebV4))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	w.FarEnd.SetSilent(true)
	w.waitFor("the tunnel is down", 40*time.Second, func() error {
		w.Client.Datagram(w.context(200*time.Millisecond), port443(lab.AbroadWebV4)) // something to be answered
		if s := w.status().Tunnels[0].State; s != "blocked" {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
	w.waitFor("our table says so too", 2*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := w.Client.Visit(ctx, port443(lab.AbroadWebV4))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("a connection fails with %w", err)
		}
		return nil
	})
	for _, from := range w.hosts() {
		for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6, netip.MustParseAddr("93.184.1.1")} {
			s, err := from.Connect(w.context(5*time.Second), port443(to))
			if err == nil {
				t.Errorf("%s to %s: connected, went %s", from.Name, to, way(s.Seen))
				s.Close()
			} else if timedOut(err) {
				t.Errorf("%s to %s: nobody said no: %v", from.Name, to, err)
			}
		}
		for _, to := range []netip.Addr{lab.HomeWebV4, lab.HomeWebV6} {
			if err := w.carries(from, to, "direct", 0); err != nil {
				t.Errorf("%s to %s: %v", from.Name, to, err)
			}
		}
	}
	if err := open.Say(w.context(5*time.Second), "hello"); err == nil || timedOut(err) {
		t.Errorf("an open session into the tunnel: %v, want an end at once", err)
	}
	if m := w.ask("www.baidu.com", lab.Question{}); len(lab.Addresses(m)) == 0 {
		t.Errorf("a name at home: %v", m)
	}
	w.noLeaks()

	w.FarEnd.SetSilent(false)
	w.waitFor("the tunnel carries again", 15*time.Second, func() error { return w.carries(w.Client, lab.AbroadWebV4, "tunnel", 0) })
	w.noLeaks()
}

// The bridge of a container engine is not in lan: nobody serves its port 53,
// but its flows are decided like those of the LAN (SECURITY L-16).
func TestContainersAreClassified(t *testing.T) {
	w := started(t)
	w.bothWays(w.Box, 1<<20)
	w.neighbours()
	// Its questions are not redirected. They go through the tunnel, and so
	// cannot be forged.
	m, err := w.Box.Ask(w.context(5*time.Second), lab.Question{Server: lab.Google, Name: "www.google.com"})
	if a := lab.Addresses(m); err != nil || len(a) != 1 || !lab.IsAbroad(a[0]) || a[0] == lab.ForgedV4 {
		t.Errorf("the container asks 8.8.8.8: %v, %v", a, err)
	}
	asked := w.DNS.Asked("www.google.com")
	if len(asked) == 0 || asked[len(asked)-1].From.Addr() != lab.TunnelV4 || asked[len(asked)-1].Server != lab.Google {
		t.Errorf("8.8.8.8 was asked by %v, want the tunnel's address", asked)
	}
	// And we do not serve it.
	m, err = w.Box.Ask(w.context(time.Second), lab.Question{At: netip.MustParseAddrPort("172.30.0.1:53"), Name: "www.example.com"})
	if err == nil && m.Rcode == dns.RcodeSuccess {
		t.Errorf("the container got an answer from us: %v", m)
	}
	if c := strings.Join(w.status().Classified, ", "); !strings.Contains(c, "from br-box") {
		t.Errorf("status says that these are classified: %s", c)
	}
	w.noLeaks()
}

// What is said to be left alone is left alone.
func TestSkippedInterfaceIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.config += "\n[routing]\nskip = [\"br-box\"]\n"
	w.start()
	w.waitUp()
	w.bothWays(w.Client, 0)
	w.noLeaks()
	if err := w.carries(w.Box, lab.AbroadWebV4, "direct", 0); err != nil {
		t.Errorf("the container of a skipped bridge: %v", err)
	}
	if w.Sniffer.Leaks() == 0 {
		t.Error("the sniffer did not see a skipped bridge's packets")
	}
	if c := strings.Join(w.status().Classified, ", "); !strings.Contains(c, "not br-box (skip)") {
		t.Errorf("status says that these are classified: %s", c)
	}
}
