package configs

import (
	"errors"
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
		if s.name == SideForeign || s.name == SideDomestic && c.modeIs(ModeAll) {
			fallback = c.firstTunnel()
		}
		side := Side{
			Name:    s.name,
			Servers: c.servers(s, own),
			Via:     c.via(s.body.Via, fallback),
			Choose:  word(c, s.body.Choose, ChooseFastest, ChooseOrder, ChooseRace),
			SOCKS5:  c.socks5(s.body.SOCKS5),
			ECS:     c.ecs(s.body.ECS),
			Private: s.body.Private.or(false),
			Pos:     c.pos(s.place),
		}
		side.Bootstrap = c.bootstrap(s.body.Bootstrap, side, own)
		c.checkProxied(s, side)
		all = append(all, side)
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
			raw.items = append(raw.items, table[rawServer]{body: rawServer{Server: rawString{value: text}}})
		}
	} else if len(raw.items) == 0 && !raw.bad {
		c.addf(raw.place, `no server: write at least one, e.g. ["tls://1.1.1.1"]`)
	}
	var all []Server
	for _, item := range raw.items {
		if server, ok := c.server(item, own, all); ok {
			all = append(all, server)
		}
	}
	return all
}

// server reads one server of a list, and reports whether it can be asked.
func (c converter) server(item table[rawServer], own []netip.AddrPort, before []Server) (Server, bool) {
	raw := item.body.Server
	if raw.missing() && !item.missing() {
		if !item.bad {
			c.addf(item.child("server"), `missing: write the server, e.g. server = "https://dns.google/dns-query"`)
		}
		return Server{}, false
	}
	if raw.bad {
		return Server{}, false
	}
	server, err := parseServer(raw.value)
	if err != nil {
		c.valuef(raw, err)
		return Server{}, false
	}
	server.Addresses = c.addresses(item.body.Addresses, server)
	server.Pins = c.pins(item.body.Pin, server)
	if slices.ContainsFunc(server.Known(), func(a netip.AddrPort) bool { return isOwn(a, own) }) {
		c.addf(raw.place, "%s is an address of [listen]: it would ask itself", quote(raw.value))
		return Server{}, false
	}
	if slices.ContainsFunc(before, server.same) {
		c.twice(raw)
		return Server{}, false
	}
	return server, true
}

func (c converter) addresses(raw rawStrings, server Server) []netip.Addr {
	if raw.given() && server.Host == "" {
		c.addf(raw.place, "the server is written by its address already")
		return nil
	}
	var all []netip.Addr
	for _, item := range raw.items {
		addr, err := parseAddr(item.value)
		if err == nil && (addr.IsUnspecified() || addr.IsMulticast()) {
			err = errors.New("no server has this address")
		}
		switch {
		case err != nil:
			c.valuef(item, err)
		case slices.Contains(all, addr):
			c.twice(item)
		default:
			all = append(all, addr)
		}
	}
	return all
}

func (c converter) pins(raw rawOneOrMore, server Server) []Pin {
	if raw.given() && !server.Scheme.Encrypted() {
		c.addf(raw.place, "only a server of an encrypted scheme has a key: tls://, https://, h3:// or quic://")
		return nil
	}
	var all []Pin
	for _, item := range raw.items {
		pin, err := parsePin(item.value)
		if err != nil {
			c.valuef(item, err)
			continue
		}
		all = append(all, pin)
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
