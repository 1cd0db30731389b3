package configs

import (
	"net/netip"
	"slices"

	"smartdns/routing"
)

// The sides that always exist.
const (
	SideDomestic = "domestic"
	SideForeign  = "foreign"
)

func (c converter) sides(raw named[rawSide], own []netip.AddrPort) []Side {
	for _, name := range []string{SideDomestic, SideForeign} {
		if !slices.Contains(tableNames(raw), name) {
			raw = append(slices.Clip(raw), table[rawSide]{name: name})
		}
	}
	var all []Side
	for _, s := range raw {
		switch {
		case !isWord(s.name):
			c.addf(s.place, "the name of a side is %s", wordRule)
		case s.name == AskAuto:
			c.addf(s.place, `"auto" is the word for either side: call it otherwise`)
		}
		fallback := routing.Direct
		if s.name == SideForeign {
			fallback = c.firstTunnel()
		}
		all = append(all, Side{
			Name:    s.name,
			Servers: c.servers(s, own),
			Via:     c.via(s.body.Via, fallback),
			Pos:     c.pos(s.place),
		})
	}
	return all
}

// sideNames returns what ask can say.
func (c converter) sideNames() []string {
	names := tableNames(c.raw.Side)
	for _, name := range []string{SideDomestic, SideForeign, AskAuto} {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (c converter) servers(side table[rawSide], own []netip.AddrPort) []Server {
	raw := side.body.Servers
	if raw.missing() {
		texts, ok := defaultServers()[side.name]
		if !ok && !side.bad {
			c.addf(side.child("servers"), `missing: a side needs a server, e.g. servers = ["tls://1.1.1.1"]`)
		}
		for _, text := range texts {
			raw.items = append(raw.items, rawString{value: text})
		}
	} else if len(raw.items) == 0 && !raw.bad {
		c.addf(raw.place, `no server: write at least one, e.g. ["tls://1.1.1.1"]`)
	}
	var all []Server
	for _, item := range raw.items {
		server, err := parseServer(item.value)
		if err != nil {
			c.valuef(item, err)
			continue
		}
		if isOwn(server.Addr, own) {
			c.addf(item.place, "%s is an address of [listen]: it would ask itself", quote(item.value))
			continue
		}
		if slices.ContainsFunc(all, func(s Server) bool { return s.Scheme == server.Scheme && s.Addr == server.Addr }) {
			c.twice(item)
			continue
		}
		all = append(all, server)
	}
	return all
}

func defaultServers() map[string][]string {
	return map[string][]string{
		SideDomestic: {"223.5.5.5", "119.29.29.29"},
		SideForeign:  {"tls://1.1.1.1", "tls://8.8.8.8"},
	}
}

// isOwn reports whether a query to addr would come back to us. A wildcard of
// IPv6 may take IPv4 too.
func isOwn(addr netip.AddrPort, own []netip.AddrPort) bool {
	return slices.ContainsFunc(own, func(o netip.AddrPort) bool {
		wild := o.Addr().IsUnspecified() && (o.Addr().Is6() || addr.Addr().Is4())
		return o == addr || o.Port() == addr.Port() && wild && addr.Addr().IsLoopback()
	})
}
