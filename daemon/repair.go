package daemon

import (
	"context"
	"net/netip"
	"slices"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/nft"
	"smartdns/resolver/policy"
	"smartdns/routing"
)

// repairFlows gives the flows that a reload sends another way that way: those
// to addresses whose path was one before, and is another now. All others keep
// theirs (see package nft, "Which flows keep their path").
func (e *engine) repairFlows(ctx context.Context, before, now decided) {
	field := e.marks.field
	of := map[uint32]routing.Path{field.Value(routing.MarkDirect): routing.Direct}
	for p, n := range e.marks.numbers {
		of[field.Tunnel(n)], of[field.Stood(n)] = p, p
	}
	never, l := e.never.Load(), e.shown.Load().live
	n, err := e.table.TurnFlows(ctx, func(f nft.Flow) (uint32, bool) {
		has, ours := of[f.Value]
		if !ours || never.Reason(f.To) != "" {
			return 0, false
		}
		want := now.path(f.From, f.To)
		if want == has || want == before.path(f.From, f.To) {
			return 0, false
		}
		switch by := e.parts.via(l, want); {
		case by == routing.Direct && want.IsTunnel():
			return field.Value(routing.MarkRevocable), true
		case by.IsTunnel() && by != want:
			return field.Stood(e.marks.numbers[want]), true
		}
		return e.marks.of(want), true
	})
	if err != nil {
		e.log.Warn("ending the connections that the file now sends another way", "err", err)
	}
	if n > 0 {
		e.log.Info("the file sends open connections another way: they begin anew", "connections", n)
	}
}

// rewritten reports whether the file itself says other ways than before. What
// only its lists say is no reason for a flow to begin anew.
func rewritten(before, now *Parts) bool {
	was, is := before.Config, now.Config
	sameEntry := func(a, b configs.GeoEntry) bool { return a.Prefix == b.Prefix && a.List == b.List }
	sameMatch := func(a, b configs.AddressRule) bool { return a.Via == b.Via && slices.Equal(a.Match, b.Match) }
	sameVia := func(a, b configs.NameRule) bool { return a.Via == b.Via && a.Text == b.Text }
	sameClients := func(a, b configs.ClientRule) bool { return a.Via == b.Via && a.Text == b.Text }
	return was.Decide.Home != is.Decide.Home ||
		!slices.EqualFunc(was.Decide.Clients, is.Decide.Clients, sameClients) ||
		!slices.EqualFunc(was.Decide.Addresses, is.Decide.Addresses, sameMatch) ||
		!slices.EqualFunc(was.Decide.Names, is.Decide.Names, sameVia) ||
		!slices.Equal(was.Geo.Sources, is.Geo.Sources) ||
		!slices.EqualFunc(was.Geo.Home, is.Geo.Home, sameEntry) ||
		!slices.EqualFunc(was.Geo.Abroad, is.Geo.Abroad, sameEntry) ||
		!slices.EqualFunc(before.Tunnels, now.Tunnels, sameOwn)
}

// marked are the paths of each address that has marks.
type marked map[netip.Addr][]routing.Path

func (m marked) add(mark routing.Mark) { m[mark.Addr] = append(m[mark.Addr], mark.Path) }

// decided is what a new flow meets: the file, the marks, and who it comes from.
type decided struct {
	parts *Parts
	marks marked
	mac   func(netip.Addr) routing.MAC
}

// path says which way a new flow goes, in the order of our table's rules.
func (d decided) path(from, to netip.Addr) routing.Path {
	v := d.parts.Geo.Lookup(to)
	if v.Region != geo.Private {
		for _, r := range d.parts.Config.Decide.Clients {
			if slices.ContainsFunc(r.Match.Prefixes, func(p netip.Prefix) bool { return p.Contains(from) }) ||
				len(r.Match.MACs) > 0 && slices.Contains(r.Match.MACs, d.mac(from)) {
				return r.Via
			}
		}
	}
	path, rule := d.parts.pathOf(v, to)
	if d.parts.precedesMarks(rule, v) {
		return path
	}
	for _, p := range append(paths(d.parts), routing.Direct) {
		if slices.Contains(d.marks[to], p) {
			return p
		}
	}
	return path
}

// precedesMarks reports whether our table tests for a rule, which matched an
// address of that verdict, before it tests for marks: those stand between
// private and home.
func (p *Parts) precedesMarks(rule policy.AddressRule, v geo.Verdict) bool {
	home := slices.IndexFunc(p.Config.Decide.Addresses, func(r configs.AddressRule) bool {
		return slices.ContainsFunc(r.Match, func(m configs.AddressMatch) bool { return m.Kind == configs.AddrHome })
	})
	switch {
	case rule.Index < 0 || v.Region == geo.Private:
		return true
	case !rule.Named:
		return false
	}
	return home < 0 || rule.Index <= home
}
