package daemon

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"smartdns/configs"
	"smartdns/nft"
	"smartdns/routing"
)

// ways is the policy as routes, for mode = "routes": the order of addresses of
// our table (KERNEL), first match wins, without marks. In routes the most
// specific prefix wins, so a line's prefix is left out where one of a line
// before holds all of it.
func (p *Parts) ways(l live) []routing.Way {
	if p.Config.Routing.Mode != configs.ModeRoutes {
		return nil
	}
	w := waysOf{around: map[routing.Path]routing.Path{}}
	for _, t := range p.Tunnels {
		switch by := p.via(l, t.Path); {
		case by == routing.Direct:
			// Its lines then lead nowhere else than the rest of the host: an address
			// of the tunnel's would be the wrong source.
			w.around[t.Path] = ""
		case by.IsTunnel() && l.links[t.Path].index == 0:
			// Without a link no route leads to where flows are marked for the
			// stand-in.
			w.around[t.Path] = by
		}
	}
	main := routing.Path("") // what is direct because it is written goes as the main table says
	w.add(main, lanPrefixes(p.Config, l.facts)...)
	w.add(main, onLink()...)
	order := orderOf(p.Sets.Decide)
	w.lines(order.before, p.Sets.Lists)
	for _, t := range p.Tunnels {
		w.add(t.Path, t.own()...)
	}
	w.add(pathOrMain(order.private), nft.Private()...)
	w.lines(order.between, p.Sets.Lists)
	if order.home != "" {
		w.add(order.home, p.Sets.Home...)
	}
	w.lines(order.after, p.Sets.Lists)
	if last := p.Sets.Decide.Default; last.IsTunnel() {
		w.add(last, routing.V4.All(), routing.V6.All())
	}
	return w.all
}

// onLink is what never leaves a link. Without routes of ours for it, the
// default one would take it.
func onLink() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range []string{"169.254.0.0/16", "224.0.0.0/4", "fe80::/10", "ff00::/8"} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// lineOrder is where the lines of addresses stand among the rest.
type lineOrder struct {
	before, between, after []nft.AddressRule // private; home; everything
	private, home          routing.Path      // home is "" where no line says it
}

func orderOf(d nft.Decide) lineOrder {
	o := lineOrder{}
	for _, r := range d.Rules {
		switch {
		case r.Match.Kind == nft.MatchPrivate && o.private == "":
			o.private = r.Via
		case r.Match.Kind == nft.MatchHome && o.home == "":
			o.home = r.Via
		case r.Match.Kind == nft.MatchPrivate, r.Match.Kind == nft.MatchHome:
		case o.home != "":
			o.after = append(o.after, r)
		case o.private != "":
			o.between = append(o.between, r)
		default:
			o.before = append(o.before, r)
		}
	}
	return o
}

func pathOrMain(p routing.Path) routing.Path {
	if p.IsTunnel() {
		return p
	}
	return ""
}

// waysOf gathers ways in the order of their precedence.
type waysOf struct {
	around map[routing.Path]routing.Path // tunnels whose lines lead another way for now
	all    []routing.Way
	seen   bart.Lite
}

// add takes the prefixes that none before holds.
func (w *waysOf) add(via routing.Path, prefixes ...netip.Prefix) {
	fresh := len(w.all)
	if other, ok := w.around[via]; ok {
		via = other
	}
	for _, p := range prefixes {
		p = p.Masked()
		if !w.seen.LookupPrefix(p) {
			w.all = append(w.all, routing.Way{Dst: p, Path: via})
		}
	}
	// Only now: a line's own prefixes may hold one another.
	added := w.all[fresh:]
	kept := slices.DeleteFunc(added, func(x routing.Way) bool {
		twice := w.seen.Get(x.Dst)
		w.seen.Insert(x.Dst)
		return twice
	})
	w.all = w.all[:fresh+len(kept)]
}

func (w *waysOf) lines(rules []nft.AddressRule, lists []nft.List) {
	for _, r := range rules {
		switch r.Match.Kind {
		case nft.MatchPrefix:
			w.add(pathOrMain(r.Via), r.Match.Prefix)
		case nft.MatchList:
			for _, l := range lists {
				if l.Name == r.Match.List {
					w.add(pathOrMain(r.Via), l.Prefixes...)
				}
			}
		}
	}
}
