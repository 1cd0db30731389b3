package configs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"smartdns/routing"
)

// Bypass says what happens to clients that ask other resolvers past us.
type Bypass struct {
	Mode BypassMode
	// DoH says who is a public server of DNS over HTTPS: list names, or
	// DoHEmbedded.
	DoH []string
	Pos Pos
}

// BypassMode is how much is done about it.
type BypassMode string

// The values of bypass.
const (
	BypassSignal BypassMode = "signal" // names by which programs ask whether they may say: ask us
	BypassAllow  BypassMode = "allow"  // nothing
	BypassReject BypassMode = "reject" // encrypted DNS of LAN clients fails at once, too
)

// DoHEmbedded is the word for the servers that are part of the program.
const DoHEmbedded = "embedded"

// ClientRule is a line of decide.clients: the path of all that some clients
// send to public addresses.
type ClientRule struct {
	Index int // in decide.clients, from 0
	Match Clients
	Via   routing.Path
	Text  string // its match as the file writes it, on one line, with its quotes
	Pos   Pos
}

// Masquerade says what leaves with the address of the uplink.
type Masquerade string

// The values of masquerade.
const (
	MasqueradeOff  Masquerade = "off"
	MasqueradeIPv4 Masquerade = "ipv4"
	MasqueradeBoth Masquerade = "both" // IPv6, too
)

type rawClientRule struct {
	Match rawOneOrMore `toml:"match"`
	Via   rawString    `toml:"via"`
}

func (c converter) bypass(raw rawListen) Bypass {
	return Bypass{Mode: word(c, raw.Bypass, BypassSignal, BypassAllow, BypassReject), DoH: c.dohServers(raw.DoHServers), Pos: c.pos(raw.Bypass.place)}
}

func (c converter) dohServers(raw rawStrings) []string {
	if raw.missing() {
		return []string{DoHEmbedded}
	}
	var all []string
	for _, item := range raw.items {
		name, isList := strings.CutPrefix(item.value, "list:")
		switch {
		case slices.Contains(all, name):
			c.twice(item)
		case isList && name == ListCNDomains:
			c.addf(item.place, "list %s holds the names of a country: here stand lists of DNS servers", quote(name))
		case isList:
			if c.listed(item.place, name) {
				all = append(all, name)
			}
		case item.value == DoHEmbedded:
			all = append(all, name)
		default:
			c.addf(item.place, `no such servers %s: it is "embedded" or "list:NAME", of names or of addresses`, quote(item.value))
		}
	}
	return all
}

// clientRules reads the lines of clients that have a path of their own.
func (c converter) clientRules(raw rules[rawClientRule]) []ClientRule {
	var all []ClientRule
	for i, line := range raw.items {
		rule := ClientRule{Index: i, Via: c.via(line.body.Via, routing.Direct), Text: line.body.Match.text(), Pos: c.pos(line.place)}
		if line.body.Via.missing() && !line.bad {
			c.addf(line.child("via"), `missing: say which way they go, "direct" or a tunnel`)
		}
		if len(line.body.Match.items) == 0 && !line.body.Match.bad && !line.bad {
			c.addf(line.child("match"), `missing: say which clients, e.g. match = "192.168.8.20"`)
		}
		for _, item := range line.body.Match.items {
			c.client(item, &rule.Match)
		}
		for _, a := range rule.Match.Zoned {
			c.addf(line.child("match"), "%s is link-local, and sends nothing that is routed: write its other addresses, or its MAC", a)
		}
		all = append(all, rule)
	}
	return all
}

// client reads a client of a line into all.
func (c converter) client(item rawString, all *Clients) {
	if mac, err := net.ParseMAC(item.value); err == nil && len(mac) == len(routing.MAC{}) {
		if m := routing.MAC(mac); slices.Contains(all.MACs, m) {
			c.twice(item)
		} else if m == (routing.MAC{}) {
			c.addf(item.place, "%s is nobody's MAC", quote(item.value))
		} else {
			all.MACs = append(all.MACs, m)
		}
		return
	}
	if strings.ContainsRune(item.value, '%') {
		if addr, err := parseAddr(item.value); err != nil {
			c.valuef(item, err)
		} else if slices.Contains(all.Zoned, addr) {
			c.twice(item)
		} else {
			all.Zoned = append(all.Zoned, addr)
		}
		return
	}
	prefix, err := parsePrefix(item.value)
	switch {
	case err != nil && strings.Contains(item.value, "/"):
		c.valuef(item, err)
	case err != nil:
		c.valuef(item, errors.New("not a client: write its address, a prefix such as 192.168.8.0/24, or its MAC such as 00:11:22:aa:bb:cc"))
	case slices.Contains(all.Prefixes, prefix):
		c.twice(item)
	default:
		all.Prefixes = append(all.Prefixes, prefix)
	}
}

// checkGateway says what of a gateway needs something that the file does not
// have.
func (c converter) checkGateway(cfg *Config) {
	kernel := func(at place, what string) {
		switch {
		case len(cfg.Tunnels) == 0:
			c.addf(at, "%s is for our nftables table, which is there with a tunnel only: add [tunnel.wg0]", what)
		case cfg.Routing.Mode == ModeOff:
			c.addf(at, `%s is for our nftables table, which is not there with [routing] mode = "off"`, what)
		}
	}
	if at := c.raw.Listen.Bypass.place; cfg.Listen.Bypass.Mode == BypassReject {
		kernel(at, `"reject"`)
		if len(cfg.Listen.LAN) == 0 {
			c.addf(at, `"reject" is about the clients of a LAN: write its interface, e.g. lan = ["br-lan"]`)
		}
	}
	if cfg.Routing.Masquerade != MasqueradeOff {
		kernel(c.raw.Routing.Masquerade.place, quote(string(cfg.Routing.Masquerade)))
	}
	if cfg.Routing.Flowtable {
		kernel(c.raw.Routing.Flowtable.place, "true")
	}
	treated := 1 // who asks from outside, for bypass
	for _, r := range cfg.Decide.Names {
		if !r.Clients.Everybody() {
			treated++
		}
	}
	for _, line := range c.raw.Decide.Clients.items {
		kernel(line.place, "a path of some clients")
		if treated++; treated == MaxLimited+1 {
			c.addf(line.place, "more than %d lines are for some clients, those of names counted: let one line have all clients of the same path", MaxLimited-1)
		}
	}
}

// clientWarnings finds the clients that an earlier line leaves nothing to.
func (d Decide) clientRuleWarnings() []Warning {
	var all []Warning
	for i, r := range d.Clients {
		for _, e := range d.Clients[:i] {
			for _, p := range r.Match.Prefixes {
				if slices.ContainsFunc(e.Match.Prefixes, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) }) {
					all = append(all, unreached(r.Pos, fmt.Sprintf("clients[%d]", r.Index), fmt.Sprintf("clients[%d]", e.Index), Clients{Prefixes: []netip.Prefix{p}}.texts()[0]))
				}
			}
			for _, m := range r.Match.MACs {
				if slices.Contains(e.Match.MACs, m) {
					all = append(all, unreached(r.Pos, fmt.Sprintf("clients[%d]", r.Index), fmt.Sprintf("clients[%d]", e.Index), m.String()))
				}
			}
		}
	}
	return all
}

// rows are what Text writes of it.
func (b Bypass) rows() []row {
	return []row{{"bypass", tomlString(string(b.Mode))}, {"doh_servers", tomlStrings(sourceTexts(b.DoH))}}
}

func clientRows(rules []ClientRule) []row {
	rows := make([]row, len(rules))
	for i, r := range rules {
		rows[i] = row{r.Text + ",", "via = " + tomlString(string(r.Via))}
	}
	return rows
}
