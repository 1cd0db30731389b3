package main

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"smartdns/lab"
)

// An endpoint that is a name, of which the domestic servers lie, is found by
// asking encrypted foreign servers for it directly; :53 serves meanwhile, and
// what once shook hands is tried first at the next start (SECURITY N-23).
func TestEndpointName(t *testing.T) {
	w := newWorld(t)
	b, err := os.ReadFile(w.Gateway.WireGuardFile())
	if err != nil {
		t.Fatal(err)
	}
	const name = "vpn.provider.test"
	text := strings.Replace(string(b), lab.Endpoint.String(), name+":51820", 1)
	if err := os.WriteFile(w.Gateway.WireGuardFile(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Zone.Poison(name)
	w.config = w.Gateway.Config("tls://8.8.8.8", "tls://1.1.1.1")
	// The question for this one name goes to the foreign servers directly, and
	// handshakes to whatever address somebody answers.
	w.Sniffer.Allow(func(p lab.Packet) bool {
		return p.SrcPort == 853 || p.DstPort == 853 || p.DstPort == lab.Endpoint.Port()
	})
	w.start()
	if a := w.resolve("www.baidu.com", 0); !lab.IsHome(a) {
		t.Errorf("while connecting, www.baidu.com resolved to %s", a)
	}
	w.waitFor("the tunnel is up", 40*time.Second, w.tunnelUp)
	seen, err := w.Client.Visit(w.context(5*time.Second), netip.AddrPortFrom(w.resolve("www.example.com", 0), 443))
	if err != nil || !seen.ThroughTunnel() {
		t.Errorf("www.example.com: %v, %v", seen, err)
	}
	if err := w.daemon.Stop(w.context(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	w.DNS.Forget()
	w.start()
	if took := w.waitFor("the tunnel is up again", 10*time.Second, w.tunnelUp); took > 5*time.Second {
		t.Logf("the second time it took %s", took)
	}
	if asked := w.DNS.Asked(name); len(asked) != 0 {
		t.Errorf("asked for the endpoint again, though it was known: %v", asked)
	}
	w.noLeaks()
}
