package daemon

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"

	"smartdns/configs"
	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/policy"
	"smartdns/resolver/server"
	"smartdns/routing"
	"smartdns/routing/linux"
)

// who knows the clients by their MACs, where the file names any.
type who struct {
	neighbours atomic.Pointer[linux.Neighbours] // nil: nobody needs them
	links      atomic.Pointer[map[string]int]   // indices of the links that zones name
	views      uint16                           // what the views of the next policy begin with
}

// client is who asks, as the lines for some clients know it.
func (w *who) client(listener netip.AddrPort, addr netip.Addr) policy.Client {
	addr = addr.Unmap()
	link := 0
	if zone := addr.Zone(); zone != "" {
		if links := w.links.Load(); links != nil {
			link = (*links)[zone]
		}
	}
	return policy.Client{Listener: listener, Addr: addr, MAC: w.neighbours.Load().MAC(addr.WithZone(""), link)}
}

// follow follows the neighbours from now on, or no longer.
func (w *who) follow(needed bool) error {
	old := w.neighbours.Load()
	switch {
	case needed && old == nil:
		n, err := linux.WatchNeighbours()
		if err != nil {
			return err
		}
		w.neighbours.Store(n)
	case !needed && old != nil:
		w.neighbours.Store(nil)
		return old.Close()
	}
	return nil
}

// access says who may ask, each by its view.
func (w *who) access(may askers, views *policy.Views) server.Access {
	return func(listener netip.AddrPort, client netip.Addr) (cache.View, bool) {
		if !may.ask(client) {
			return 0, false
		}
		return cache.View(views.Of(w.client(listener, client)).ID), true
	}
}

// askers is who may ask.
type askers struct {
	prefixes *bart.Lite
	links    map[string]bool     // link-local clients behind them
	own      map[netip.Addr]bool // addresses with a zone
}

// clients returns who may ask: this host by any of its addresses, the LAN by the
// prefixes of its interfaces, and whom the file adds. A link-local address is one
// of the LAN behind an interface of the LAN alone: other links have the same.
func clients(c *configs.Config, f routing.Facts) askers {
	may := askers{prefixes: new(bart.Lite), links: map[string]bool{}, own: map[netip.Addr]bool{}}
	may.prefixes.Insert(netip.MustParsePrefix("127.0.0.0/8"))
	may.prefixes.Insert(netip.MustParsePrefix("::1/128"))
	for _, p := range c.Listen.Clients {
		may.prefixes.Insert(p.Masked())
	}
	zoned := func(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }
	onLAN(c, f, func(p netip.Prefix) {
		if !zoned(p.Addr()) {
			may.prefixes.Insert(p.Masked())
		}
	})
	for _, name := range c.Listen.LAN {
		may.links[name] = true
	}
	for _, i := range f.Links {
		for _, a := range i.Addrs {
			if zoned(a.Addr()) {
				may.own[a.Addr().WithZone(i.Name)] = true
			} else {
				may.prefixes.Insert(netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
			}
		}
	}
	return may
}

// ask reports whether a client may.
func (m askers) ask(client netip.Addr) bool {
	if zone := client.Zone(); zone != "" {
		if m.links[zone] || m.own[client] {
			return true
		}
		client = client.WithZone("")
	}
	return m.prefixes.Contains(client)
}

// limited returns the clients of each line that is not for everybody.
func limited(c *configs.Config) []policy.Clients {
	var all []policy.Clients
	for _, r := range c.Decide.Names {
		if clients := clientsOf(r); !clients.Everybody() {
			all = append(all, clients)
		}
	}
	return all
}

func clientsOf(r configs.NameRule) policy.Clients {
	return policy.Clients{Prefixes: r.Clients.Prefixes, Zoned: r.Clients.Zoned, MACs: r.Clients.MACs}
}

// views compiles who is treated apart. IDs begin with first.
func (p *Parts) views(first uint16) (v *policy.Views, next uint16, err error) {
	v, next, err = policy.NewViews(treatedApart(p.Config), p.Config.Listen.Sides, first)
	if err != nil {
		rules := p.Config.Decide.Names
		for i := len(rules) - 1; i >= 0; i-- { // the last line that made it so
			if !clientsOf(rules[i]).Everybody() {
				return nil, 0, fmt.Errorf("%s: [decide] names[%d] clients: %w", rules[i].Pos, i, err)
			}
		}
	}
	return v, next, err
}

// setAccess lets clients ask, and tells them apart.
func (e *engine) setAccess(f routing.Facts) error {
	views := e.policy.Views
	links := map[string]int{}
	for _, i := range f.Links {
		links[i.Name] = i.Index
	}
	e.who.links.Store(&links)
	err := e.who.follow(views.ByMAC())
	e.server.SetAccess(e.who.access(clients(e.parts.Config, f), views))
	return err
}

// asked returns q as its client would ask it at a listener like any other.
func (e *engine) asked(q *resolver.Query) *resolver.Query {
	q.From = e.who.client(netip.AddrPort{}, q.Client)
	return q
}
