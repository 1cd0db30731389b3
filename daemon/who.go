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
	views      uint16                           // what the views of the next policy begin with
}

// client is who asks, as the lines for some clients know it.
func (w *who) client(listener netip.AddrPort, addr netip.Addr) policy.Client {
	addr = addr.Unmap().WithZone("")
	return policy.Client{Listener: listener, Addr: addr, MAC: w.neighbours.Load().MAC(addr)}
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

// access says who may ask: loopback and clients, each by its view.
func (w *who) access(prefixes []netip.Prefix, views *policy.Views) server.Access {
	var allowed bart.Lite
	allowed.Insert(netip.MustParsePrefix("127.0.0.0/8"))
	allowed.Insert(netip.MustParsePrefix("::1/128"))
	for _, p := range prefixes {
		allowed.Insert(p.Masked())
	}
	return func(listener netip.AddrPort, client netip.Addr) (cache.View, bool) {
		if !allowed.Contains(client) {
			return 0, false
		}
		return cache.View(views.Of(w.client(listener, client)).ID), true
	}
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
	return policy.Clients{Prefixes: r.Clients.Prefixes, MACs: r.Clients.MACs}
}

// views compiles who is treated apart. IDs begin with first.
func (p *Parts) views(first uint16) (v *policy.Views, next uint16, err error) {
	v, next, err = policy.NewViews(limited(p.Config), p.Config.Listen.Sides, first)
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
	err := e.who.follow(views.ByMAC())
	e.server.SetAccess(e.who.access(clients(e.parts.Config, f), views))
	return err
}

// asked returns q as its client would ask it at a listener like any other.
func (e *engine) asked(q *resolver.Query) *resolver.Query {
	q.From = e.who.client(netip.AddrPort{}, q.Client)
	return q
}
