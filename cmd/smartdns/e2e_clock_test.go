package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"smartdns/lab"
	"smartdns/web/api"
)

// envClock names a file that says how far the program's clock is off; there is
// none when it is right.
const envClock = "SMARTDNS_TEST_CLOCK"

// offClock is a wall clock that a test sets.
type offClock struct{ file string }

func (c offClock) Now() time.Time {
	off, _ := c.off()
	return time.Now().Add(off)
}

func (c offClock) Synchronised() bool {
	off, err := c.off()
	return err == nil && off == 0
}

func (c offClock) off() (time.Duration, error) {
	text, err := os.ReadFile(c.file)
	if err != nil {
		return 0, nil
	}
	return time.ParseDuration(strings.TrimSpace(string(text)))
}

// runByClock is run with the clock of the environment.
func runByClock(file string) int {
	a := &app{out: newPrinter(os.Stdout), errs: os.Stderr, clock: offClock{file}}
	return execute(a.root(), os.Args[1:], os.Stdout, os.Stderr)
}

// A gateway starts in 2001, for it has no clock chip. It waits for time: the
// host's NTP and the names of its servers go direct, encrypted servers are
// believed by the time when it last ran, and so the endpoint's name is found.
// When the clock is set the tunnel is called at once; the far end took what came
// before for replayed.
func TestAnOldClock(t *testing.T) {
	clock := t.TempDir() + "/off"
	t.Setenv(envClock, clock)
	w := newWorldAlone(t)
	w.config = w.Gateway.Config("tls://8.8.8.8", "tls://1.1.1.1")
	text, err := os.ReadFile(w.Gateway.WireGuardFile())
	if err != nil {
		t.Fatal(err)
	}
	const endpoint = "vpn.provider.test"
	named := strings.Replace(string(text), lab.Endpoint.String(), endpoint+":51820", 1)
	if err := os.WriteFile(w.Gateway.WireGuardFile(), []byte(named), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Zone.Poison(endpoint)
	for _, v := range []lab.View{lab.AtHome, lab.Abroad} {
		if err := w.Zone.Add(v, "2.debian.pool.ntp.org. 60 IN A 93.184.216.34"); err != nil {
			t.Fatal(err)
		}
	}
	ntp := netip.MustParseAddrPort("93.184.216.34:123")
	w.Sniffer.Allow(func(p lab.Packet) bool {
		return p.SrcPort == 853 || p.DstPort == 853 || p.DstPort == lab.Endpoint.Port() || p.DstPort == ntp.Port()
	})

	// It ran before, with a clock.
	w.start()
	if err := w.daemon.Stop(w.context(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	w.FarEnd.SetSilent(true)
	if err := os.WriteFile(clock, []byte("-220000h"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	waits := func() (c api.Condition, ok bool) {
		for _, c := range w.status().Conditions {
			if strings.HasPrefix(c.What, "waiting for time: the clock says 20") {
				return c, true
			}
		}
		return api.Condition{}, false
	}
	if s := w.status(); !strings.HasPrefix(s.Summary, "not fine: waiting for time") {
		t.Errorf("the summary is %q", s.Summary)
	}
	gateway := netip.MustParseAddr("127.0.0.1")
	m, err := w.Gateway.Ask(w.context(10*time.Second), lab.Question{Server: gateway, Name: "2.debian.pool.ntp.org"})
	if err != nil || len(lab.Addresses(m)) != 1 {
		t.Errorf("the name of a time server: %v, %v", m, err)
	}
	seen, err := w.Gateway.Datagram(w.context(5*time.Second), ntp)
	if err != nil || seen.Peer.Addr() != lab.UplinkV4 {
		t.Errorf("NTP: %+v, %v; want it to go direct", seen, err)
	}
	if out, err := w.cli("diff"); err != nil {
		t.Errorf("smartdns diff, while it waits for time: %v\n%s", err, out)
	}
	w.waitFor("the endpoint's name is found", 15*time.Second, func() error {
		if at := w.status().Tunnels[0].Endpoint; at != lab.Endpoint.String() {
			return fmt.Errorf("the endpoint is %s", at)
		}
		return nil
	})

	// NTP sets the clock, and the far end takes handshakes.
	w.FarEnd.SetSilent(false)
	if err := os.Remove(clock); err != nil {
		t.Fatal(err)
	}
	took := w.waitFor("the tunnel is up", 10*time.Second, w.tunnelUp)
	t.Logf("up %s after the clock was set", took.Round(time.Millisecond))
	w.waitFor("nothing waits for time", 5*time.Second, func() error {
		if c, ok := waits(); ok {
			return fmt.Errorf("%s", c.What)
		}
		return nil
	})
	if seen, err := w.Gateway.Datagram(w.context(5*time.Second), ntp); err != nil || !seen.ThroughTunnel() {
		t.Errorf("NTP after the clock was set: %+v, %v; want it in the tunnel", seen, err)
	}
	w.noLeaks()
}
