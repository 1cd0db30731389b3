package configs

import (
	"slices"
	"strings"

	"smartdns/resolver/dnsname"
)

const defaultHome = "CN"

func (c converter) decide(raw rawDecide) Decide {
	return Decide{
		Home:      c.home(raw.Home),
		Auto:      word(c, raw.Auto, ForeignFirst, Race, ForeignOnly),
		Mixed:     word(c, raw.Mixed, MixedAll, MixedAny, MixedFirst),
		PrivateOK: c.privateOK(raw.PrivateOK),
		Names:     c.nameRules(raw.Names),
		Addresses: c.addressRules(raw.Addresses),
		Clients:   c.clientRules(raw.Clients),
	}
}

func (c converter) privateOK(raw rawStrings) []dnsname.FQDN {
	var all []dnsname.FQDN
	seen := make(map[dnsname.FQDN]bool)
	for _, item := range raw.items {
		name, err := parseName(item.value)
		if err != nil {
			c.valuef(item, err)
			continue
		}
		if seen[name] {
			c.twice(item)
			continue
		}
		seen[name] = true
		all = append(all, name)
	}
	return all
}

// checkLast says so when a list of rules does not end in the one rule that
// matches everything, or goes on after it.
func (c converter) checkLast(key place, places []place, matchesAll []bool, fix string) {
	first := slices.Index(matchesAll, true)
	if first < 0 {
		if key.bad {
			return
		}
		c.addf(key, "the last line must match everything: add %s", fix)
		return
	}
	for _, at := range places[first+1:] {
		c.addf(at, "is never reached: %s before it matches everything", strings.TrimPrefix(places[first].key, "[decide] "))
	}
}

// starIsAlone says so when "*" has company, which could never matter.
func (c converter) starIsAlone(raw rawOneOrMore) {
	if len(raw.items) < 2 {
		return
	}
	for _, item := range raw.items {
		if item.value == "*" {
			c.addf(item.place, `"*" matches everything: let it stand alone`)
			return
		}
	}
}
