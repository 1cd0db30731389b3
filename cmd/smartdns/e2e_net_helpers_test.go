package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab"
	"smartdns/web/api"
)

// hosts are those whose traffic is decided: on the LAN, behind a bridge that is
// not in lan, and the gateway itself.
func (w *world) hosts() []*lab.Namespace {
	return []*lab.Namespace{w.Client, w.Box, w.Gateway.Namespace}
}

// port443 is a server's address.
func port443(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 443) }

// bothWays checks that a host reaches home directly and the rest of the world
// through the tunnel: v4 and v6, TCP and UDP, bulk bytes both ways.
func (w *world) bothWays(from *lab.Namespace, bulk int64) {
	w.t.Helper()
	for _, c := range []struct {
		to   netip.Addr
		want string
	}{
		{lab.HomeWebV4, "direct"}, {lab.HomeWebV6, "direct"}, {lab.AbroadWebV4, "tunnel"}, {lab.AbroadWebV6, "tunnel"},
	} {
		if err := w.carries(from, c.to, c.want, bulk); err != nil {
			w.t.Errorf("%s to %s: %v", from.Name, c.to, err)
		}
	}
}

// carries returns what is wrong with the way from a host to a server's
// address.
func (w *world) carries(from *lab.Namespace, to netip.Addr, want string, bulk int64) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	s, err := from.Connect(ctx, port443(to))
	if err != nil {
		return err
	}
	defer s.Close()
	if got := way(s.Seen); got != want {
		return fmt.Errorf("TCP went %s, want %s (the server saw %s)", got, want, s.Seen.Peer)
	}
	if bulk > 0 {
		if err := errors.Join(s.Upload(ctx, bulk), s.Download(ctx, bulk)); err != nil {
			return err
		}
	}
	seen, err := from.Datagram(ctx, port443(to))
	if err != nil {
		return fmt.Errorf("UDP: %w", err)
	}
	if got := way(seen); got != want {
		return fmt.Errorf("UDP went %s, want %s (the server saw %s)", got, want, seen.Peer)
	}
	return nil
}

// neighbours checks that the hosts behind the gateway, and itself, reach each
// other with their own addresses.
func (w *world) neighbours() {
	w.t.Helper()
	addrs := map[*lab.Namespace][]netip.Addr{
		w.Client: {lab.ClientV4, lab.ClientV6}, w.Box: {lab.BoxV4, lab.BoxV6},
		w.Gateway.Namespace: {lab.LANV4, lab.LANV6, lab.UplinkV4, lab.UplinkV6},
	}
	for from, own := range addrs {
		for to, all := range addrs {
			for _, a := range all {
				if from == to {
					continue
				}
				s, err := from.Connect(w.context(3*time.Second), netip.AddrPortFrom(a, lab.InboundPort))
				if err != nil {
					w.t.Errorf("%s to %s: %v", from.Name, a, err)
					continue
				}
				if s.Seen.Place != to.Name || from != w.Gateway.Namespace && !slices.Contains(own, s.Seen.Peer.Addr()) {
					w.t.Errorf("%s to %s: seen %+v", from.Name, a, s.Seen)
				}
				s.Close()
			}
		}
	}
}

// ask asks the gateway from the client. The zero Question is over UDP for A.
func (w *world) ask(name string, q lab.Question) *dns.Msg {
	w.t.Helper()
	q.Name = name
	if !q.Server.IsValid() {
		q.Server = gatewayDNS
	}
	m, err := w.Client.Ask(w.context(10*time.Second), q)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// marks is what smartdns marks says.
func (w *world) marks() api.Marks {
	w.t.Helper()
	out, err := w.cli("marks", "--json")
	var m api.Marks
	if err := errors.Join(err, json.Unmarshal([]byte(out), &m)); err != nil {
		w.t.Fatalf("smartdns marks --json: %v\n%s", err, out)
	}
	return m
}

// marked returns the paths that an address has marks for.
func (w *world) marked(a netip.Addr) []string {
	w.t.Helper()
	var paths []string
	for _, m := range w.marks().Marks {
		if m.Addr == a {
			paths = append(paths, m.Path)
		}
	}
	return paths
}

// counter returns one of the numbers that smartdns status shows.
func (w *world) counter(name string) uint64 {
	w.t.Helper()
	s := w.status()
	i := slices.IndexFunc(s.Counters, func(c api.Counter) bool { return c.Name == name })
	if i < 0 {
		w.t.Fatalf("no counter %q in %v", name, s.Counters)
	}
	return s.Counters[i].Value
}

// nft loads rules on the gateway, as an admin or another program would.
func (w *world) nft(rules string) {
	w.t.Helper()
	file := w.Dir + "/rules.nft"
	if err := os.WriteFile(file, []byte(rules), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.Gateway.Exec(w.context(10*time.Second), "nft", "-f", file); err != nil {
		w.t.Fatal(err)
	}
}

// v4Tunnel rewrites the provider's file as that of a tunnel without IPv6.
func (w *world) v4Tunnel() {
	w.t.Helper()
	text, err := os.ReadFile(w.Gateway.WireGuardFile())
	if err != nil {
		w.t.Fatal(err)
	}
	s := strings.Replace(string(text), fmt.Sprintf(", %s/128", lab.TunnelV6), "", 1)
	s = strings.Replace(s, ", ::/0", "", 1)
	if err := os.WriteFile(w.Gateway.WireGuardFile(), []byte(s), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// inTable makes the configuration say something under a table that it has.
func inTable(config, table, line string) string {
	return strings.Replace(config, table+"\n", table+"\n"+line+"\n", 1)
}
