package configs

import (
	"net/netip"
	"slices"

	"github.com/pelletier/go-toml/v2/unstable"

	"smartdns/routing"
)

// rawListeners is a list of addresses, each a string or a table.
type rawListeners struct {
	place
	entries []rawListener
}

// rawListener is an address to listen on, and what is different there.
type rawListener struct {
	Address rawString `toml:"address"`
	Side    rawString `toml:"side"`
}

func (r *rawListeners) take(p *problems, n *node, at place) {
	r.place = at
	switch n.kind {
	case unstable.Array:
	case unstable.String:
		p.addf(at, "want a list, got a string: write [%s]", quote(n.text))
		r.bad = true
		return
	default:
		p.addf(at, "want a list of strings, got %s", kindOf(n))
		r.bad = true
		return
	}
	for i, item := range n.items {
		var l rawListener
		place := at.item(i, item.line)
		if item.kind == unstable.Table {
			if !takeTable(p, item, place.key, &l) {
				r.bad = true
			} else if l.Address.missing() {
				p.addf(place, `no address: write { address = "192.168.9.1:53", side = "foreign" }`)
				r.bad = true
			}
		} else if l.Address.take(p, item, place); l.Address.bad {
			r.bad = true
		}
		if l.Address.given() {
			r.entries = append(r.entries, l)
		}
	}
}

// side reads the side that a listener asks whatever the lines say.
func (c converter) side(l rawListener) string {
	names := slices.DeleteFunc(c.sideNames(), func(s string) bool { return s == AskAuto })
	if l.Side.given() && !slices.Contains(names, l.Side.value) {
		c.addf(l.Side.place, "no side %s (%s)", quote(l.Side.value), thereAre(names))
	}
	return l.Side.value
}

// Clients says for whom a line holds. The zero value is everybody.
type Clients struct {
	Prefixes []netip.Prefix
	Zoned    []netip.Addr // link-local ones, each with its interface
	MACs     []routing.MAC
}

// Everybody reports whether the line holds for all clients.
func (c Clients) Everybody() bool { return len(c.Prefixes)+len(c.Zoned)+len(c.MACs) == 0 }

// lineClients reads whom a line of names is for.
func (c converter) lineClients(raw rawStrings) Clients {
	var all Clients
	if raw.given() && len(raw.items) == 0 {
		c.addf(raw.place, "no client: leave the key out for a line that holds for everybody")
	}
	for _, item := range raw.items {
		c.client(item, &all)
	}
	return all
}

func (c Clients) texts() []string {
	all := append(texts(c.Prefixes), texts(c.Zoned)...)
	for i, p := range c.Prefixes {
		if p.IsSingleIP() {
			all[i] = p.Addr().String()
		}
	}
	for _, m := range c.MACs {
		all = append(all, m.String())
	}
	return all
}

// listenerTexts returns addrs as the file can write them.
func (l Listen) listenerTexts(addrs []netip.AddrPort) string {
	text := "["
	for i, a := range addrs {
		if i > 0 {
			text += ", "
		}
		if side := l.Sides[a]; side != "" {
			text += "{ address = " + tomlString(a.String()) + ", side = " + tomlString(side) + " }"
		} else {
			text += tomlString(a.String())
		}
	}
	return text + "]"
}
