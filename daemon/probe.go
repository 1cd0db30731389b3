package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"smartdns/configs"
	"smartdns/routing"
)

// probe asks something through one tunnel that only its far end can bring
// about. A handshake is answered by the kernel of whoever is there, a refusal
// too: the tunnel is what is asked, not a server's mood.
func (e *engine) probe(path routing.Path) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		v := e.shown.Load()
		to := v.parts.probeTarget(path)
		conn, err := dialer(v.live.marks.of(path))(ctx, "tcp", to.String())
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("probing %s through the tunnel: %w", to, err)
		}
		return conn.Close()
	}
}

// probeTarget returns the first that the tunnel carries of: the servers of the
// sides that are asked through it, the file's DNS servers, well-known ones, and
// the first address of what its peers take.
func (p *Parts) probeTarget(path routing.Path) netip.AddrPort {
	i := slices.IndexFunc(p.Tunnels, func(t Tunnel) bool { return t.Path == path })
	if i < 0 {
		return netip.AddrPort{}
	}
	t := p.Tunnels[i]
	var to []netip.AddrPort
	for _, s := range p.Config.Sides {
		if s.Via == path {
			for _, server := range s.Servers {
				if server.Scheme != configs.SchemeH3 && server.Scheme != configs.SchemeQUIC {
					to = append(to, server.Known()...)
				}
			}
		}
	}
	for _, a := range t.WG.DNS {
		to = append(to, netip.AddrPortFrom(a, dnsPort))
	}
	to = append(to, netip.MustParseAddrPort("1.1.1.1:53"), netip.MustParseAddrPort("[2606:4700:4700::1111]:53"))
	for _, a := range t.allowed() {
		to = append(to, netip.AddrPortFrom(a.Masked().Addr().Next(), dnsPort))
	}
	for _, a := range to {
		if t.takes(a.Addr()) {
			return a
		}
	}
	return to[0]
}

// takes reports whether packets to a can go through the tunnel.
func (t Tunnel) takes(a netip.Addr) bool {
	return t.carries(routing.FamilyOf(a)) && slices.ContainsFunc(t.allowed(), func(p netip.Prefix) bool { return p.Contains(a) })
}
