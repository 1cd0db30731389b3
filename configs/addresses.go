package configs

import (
	"fmt"
	"slices"
	"strings"

	"smartdns/routing"
)

func (c converter) addressRules(raw rules[rawAddressRule]) []AddressRule {
	if raw.missing() {
		return defaultAddressRules(c.firstTunnel())
	}
	var (
		all        []AddressRule
		places     []place
		matchesAll []bool
	)
	for i, line := range raw.items {
		rule := AddressRule{
			Index: i,
			Match: c.addressMatches(line.place, line.body.Match),
			Via:   c.via(line.body.Via, routing.Direct),
			Text:  line.body.Match.text(),
			Pos:   c.pos(line.place),
		}
		if line.body.Via.missing() && !line.bad {
			c.addf(line.child("via"), `missing: say which way the addresses leave, "direct" or a tunnel`)
		}
		all, places = append(all, rule), append(places, line.place)
		matchesAll = append(matchesAll, slices.ContainsFunc(rule.Match, func(m AddressMatch) bool { return m.Kind == AddrAll }))
	}
	c.checkLast(raw.place, places, matchesAll, fmt.Sprintf(`{ match = "*", via = %q }`, c.firstTunnel()))
	return all
}

func defaultAddressRules(path routing.Path) []AddressRule {
	return []AddressRule{
		{Index: 0, Match: []AddressMatch{{Kind: AddrPrivate}, {Kind: AddrHome}}, Via: routing.Direct, Text: `["private", "home"]`, Pos: defaultPos()},
		{Index: 1, Match: []AddressMatch{{Kind: AddrAll}}, Via: path, Text: `"*"`, Pos: defaultPos()},
	}
}

func (c converter) addressMatches(at place, raw rawOneOrMore) []AddressMatch {
	if len(raw.items) == 0 && !raw.bad && !at.bad {
		c.addf(at.child("match"), `missing: say what the line matches, e.g. match = "home"`)
	}
	c.starIsAlone(raw)
	var all []AddressMatch
	for _, item := range raw.items {
		m, err := parseAddressMatch(item.value)
		if err != nil {
			c.valuef(item, err)
			continue
		}
		if m.Kind == AddrList {
			c.listOfPrefixes(item.place, m.List, false)
		}
		all = append(all, m)
	}
	return all
}

// listOfPrefixes checks a list that addresses are looked up in; a database is
// one only for their countries.
func (c converter) listOfPrefixes(at place, name string, database bool) {
	if !c.listed(at, name) {
		return
	}
	use := "list:" + name
	if name == ListCNDomains {
		c.addf(at, "list %s holds names: here stand lists of addresses", quote(name))
		return
	}
	for _, l := range c.raw.List {
		format := ListFormat(l.body.Format.value)
		switch {
		case l.name != name:
		case format == ListMMDB && !database:
			c.addf(at, "list %s is a database of countries: name it in [geo] sources, and here write \"home\"", quote(name))
			return
		case format.ofNames():
			c.addf(at, "list %s is written as %s, so it holds names: here stand lists of addresses", quote(name), format)
			return
		}
	}
	for i, line := range c.raw.Decide.Names.items {
		if slices.ContainsFunc(line.body.Match.items, func(m rawString) bool { return m.value == use }) {
			c.addf(at, "list %s holds names, as names[%d] uses it: here stand lists of addresses", quote(name), i)
			return
		}
	}
}

// parseAddressMatch reads one entry of an address rule's match.
func parseAddressMatch(s string) (AddressMatch, error) {
	switch s {
	case "*":
		return AddressMatch{Kind: AddrAll}, nil
	case "private":
		return AddressMatch{Kind: AddrPrivate}, nil
	case "home":
		return AddressMatch{Kind: AddrHome}, nil
	}
	if name, ok := strings.CutPrefix(s, "list:"); ok {
		return AddressMatch{Kind: AddrList, List: name}, nil
	}
	prefix, err := parsePrefix(s)
	if err == nil {
		return AddressMatch{Kind: AddrPrefix, Prefix: prefix}, nil
	}
	if !strings.ContainsAny(s, ":./") {
		return AddressMatch{}, fmt.Errorf(`no such matcher: it is "private", "home", "*", an address, a prefix or "list:NAME"`)
	}
	return AddressMatch{}, err
}
