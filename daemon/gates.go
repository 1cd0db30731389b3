package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"smartdns/configs"
	"smartdns/nft"
	"smartdns/routing"
	"smartdns/web/api"
)

// gates says which chains of others keep the LAN from us or from a tunnel, and
// what lets it through, in the words of the program that made them.
func (p *Parts) gates(ctx context.Context, t *nft.Table, l live, severity string) ([]api.Condition, error) {
	lan := lanClients(p.Config, l.facts)
	if len(lan) == 0 {
		return nil, nil
	}
	input, err := t.InputGates(ctx, lan, p.lanPorts(l))
	if err != nil {
		return nil, err
	}
	forward := map[routing.Path][]nft.Gate{}
	found := len(input)
	for _, path := range paths(p) {
		if forward[path], err = t.Gates(ctx, path, lan); err != nil {
			return nil, err
		}
		found += len(forward[path])
	}
	if found == 0 {
		return nil, nil
	}
	chains, err := t.Foreign(ctx)
	if err != nil {
		return nil, err
	}
	var all []api.Condition
	beside := neighbours(chains)
	for _, g := range input {
		what, fix := beside.inputGate(g)
		all = append(all, api.Condition{Severity: severity, What: what, Fix: fix})
	}
	for _, path := range paths(p) {
		for _, g := range forward[path] {
			what, fix := beside.gate(g, path)
			all = append(all, api.Condition{Severity: severity, What: what, Fix: fix})
		}
	}
	return all, nil
}

// lanClients are what clients of the LAN are like: one for each prefix of its
// interfaces.
func lanClients(c *configs.Config, f routing.Facts) []nft.Client {
	var all []nft.Client
	for _, i := range f.Links {
		if !slices.Contains(c.Listen.LAN, i.Name) {
			continue
		}
		for _, a := range i.Addrs {
			if a.Addr().IsLinkLocalUnicast() {
				continue
			}
			client := a.Addr().Next()
			if !a.Contains(client) {
				client = a.Addr().Prev()
			}
			all = append(all, nft.Client{Link: i.Name, Index: i.Index, Addr: client, Us: a.Addr()})
		}
	}
	return all
}

// lanPorts are the ports at which clients of the LAN ask us.
func (p *Parts) lanPorts(l live) []nft.Port {
	var all []nft.Port
	c := p.Config
	for _, listen := range [][]netip.AddrPort{l.listen, c.Listen.DoT, c.Listen.DoH} {
		for _, a := range listen {
			onLAN(c, l.facts, func(lan netip.Prefix) {
				n := nft.Port{Number: a.Port()}
				here := a.Addr() == lan.Addr() || a.Addr().IsUnspecified() && (a.Addr().Is6() || lan.Addr().Is4())
				if here && n.Number != redirectPort && !slices.Contains(all, n) {
					all = append(all, n)
				}
			})
		}
	}
	if c.Listen.Redirect {
		if to := redirectTo(c, l); to != 0 {
			all = append(all, nft.Port{Number: to, Redirected: true})
		}
	}
	return all
}

// inputGate says which chain keeps the LAN from us, whose it is, and how that one
// lets it in.
func (n neighbours) inputGate(g nft.Gate) (what, fix string) {
	whose, fix := "", strings.Join(g.Fix(), "; ")
	if p, ok := n.of(g.Family, g.Table); ok {
		whose = " of " + p.name
		if p.open != nil {
			fix = p.open(g.Links, g.Ports)
		}
	}
	protocols := strings.ToUpper(strings.Join(g.Protocols, ", "))
	said := ""
	if g.By != g.Chain {
		said = ", as " + g.By + " says"
	}
	return fmt.Sprintf("chain %s%s drops what clients on %s ask us, at port %s over %s%s: our accept does not overrule it", g, whose,
		strings.Join(g.Links, ", "), numbers(g.Ports, ", "), protocols, said), fix
}

func numbers(all []uint16, between string) string {
	var out []string
	for _, n := range all {
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, between)
}
