package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"smartdns/lab"
)

// A foreign server that is known by name is found and asked through the tunnel,
// over every encrypted protocol; nothing of it is on the uplink, and its
// address, when a client asks for it, is put into no set.
func TestForeignServersByName(t *testing.T) {
	for _, c := range []struct{ scheme, server string }{
		{"https", fmt.Sprintf("https://dns.google:%d/dns-query", lab.SecurePort)},
		{"h3", fmt.Sprintf("h3://dns.google:%d/dns-query", lab.SecurePort)},
		{"quic", "quic://dns.google"},
	} {
		t.Run(c.scheme, func(t *testing.T) {
			w := newWorld(t)
			if err := w.Zone.Add(lab.Abroad, "dns.google. A 8.8.8.8\n"); err != nil {
				t.Fatal(err)
			}
			if err := w.Zone.Add(lab.AtHome, "dns.google. A "+lab.ForgedV4.String()+"\n"); err != nil {
				t.Fatal(err)
			}
			w.config = w.Gateway.Config(c.server)
			w.start()
			w.waitUp()
			for i := range 3 {
				name := fmt.Sprintf("n%05d.foreign.test", i+1)
				seen, err := w.Client.Visit(w.context(10*time.Second), netip.AddrPortFrom(w.resolve(name, 0), 443))
				if err != nil || !seen.ThroughTunnel() {
					t.Errorf("%s: %v, %v", name, seen, err)
				}
				asked := w.DNS.Asked(name)
				if len(asked) == 0 {
					t.Errorf("%s was asked nowhere", name)
				}
				for _, a := range asked {
					if a.Net != c.scheme || a.Server != lab.Google {
						t.Errorf("%s", a)
					}
				}
			}
			for _, a := range w.DNS.Asked("dns.google") {
				if a.Net != "tls" || a.From.Addr() != lab.TunnelV4 && a.From.Addr() != lab.TunnelV6 {
					t.Errorf("%s", a)
				}
			}
			out, err := w.cli("query", "dns.google")
			if err != nil || !strings.Contains(out, "an upstream resolver") {
				t.Errorf("its address was marked: %v\n%s", err, out)
			}
			servers := w.status().Sides[1].Servers
			if len(servers) != 1 || !servers[0].Up || servers[0].Proto != c.scheme || len(servers[0].Addrs) == 0 || servers[0].Addrs[0] != lab.Google || servers[0].Queries == 0 {
				t.Errorf("%+v", servers)
			}
			w.noLeaks()
		})
	}
}
