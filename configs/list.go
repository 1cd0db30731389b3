package configs

import (
	"slices"
	"strings"
)

// ListCNDomains is the list of domestic names that is part of the program. A
// configured one of that name replaces it.
const ListCNDomains = "cn-domains"

func (c converter) lists(raw named[rawList]) []List {
	if !slices.Contains(tableNames(raw), ListCNDomains) {
		raw = append(slices.Clip(raw), table[rawList]{name: ListCNDomains})
	}
	var all []List
	for _, l := range raw {
		switch {
		case !isWord(l.name):
			c.addf(l.place, "the name of a list is %s", wordRule)
		case isReserved(l.name):
			c.addf(l.place, "%s is a word of ours: call the list otherwise", l.name)
		case !l.missing() && slices.Contains(tableNames(c.raw.Tunnel), l.name):
			c.addf(l.place, "%s is a tunnel: call the list otherwise, since both name a set in the kernel", l.name)
		case l.name == GeoEmbedded:
			c.addf(l.place, `"embedded" is the word for the data in the program: call it otherwise`)
		}
		list := List{Name: l.name, Pos: c.pos(l.place)}
		file := l.body.File
		list.Fetch = c.fetch(l.body, file.value != "")
		switch {
		case file.value == "" && (l.name == ListCNDomains || len(l.body.URL.items) > 0 || l.body.URL.bad):
		case file.bad || file.missing() && l.bad:
		case file.missing():
			c.addf(l.child("file"), `missing: write the path of the list, e.g. file = "/etc/smartdns/%s.txt", or the url to fetch it from`, l.name)
		case file.value == "":
			c.addf(file.place, "no path: only %s is part of the program", ListCNDomains)
		default:
			list.File = c.path(file)
		}
		list.Format = word(c, l.body.Format, ListAuto, ListFormats()...)
		list.Code = c.code(l.body.Code, list.Format)
		if l.body.Region.value != "" {
			list.Region = c.country(l.body.Region, "")
		}
		all = append(all, list)
	}
	return all
}

// code reads the category of a list whose format has them.
func (c converter) code(raw rawString, format ListFormat) string {
	category, attributes, _ := strings.Cut(raw.value, "@")
	switch {
	case !raw.given() || raw.value == "":
		return ""
	case format != ListAuto && format != ListGeosite && format != ListGeoIP:
		c.addf(raw.place, "a file of format %s has no categories: geosite and geoip have", format)
	case category == "" || !isMadeOf(category, "!_.-") || !isMadeOf(attributes, "!_.-@"):
		c.addf(raw.place, `write the name of a category, such as "cn" or "google@cn"`)
	}
	return raw.value
}

// ofNames reports whether a list of this format can only hold names.
func (f ListFormat) ofNames() bool {
	switch f {
	case ListDomains, ListDnsmasq, ListHosts, ListAdblock, ListGFWList, ListGeosite:
		return true
	}
	return false
}

// ofAddresses reports whether a list of this format can only hold prefixes.
func (f ListFormat) ofAddresses() bool { return f == ListCIDR || f == ListAPNIC || f == ListGeoIP }

// listNames returns the lists that can be named.
func (c converter) listNames() []string {
	names := tableNames(c.raw.List)
	if !slices.Contains(names, ListCNDomains) {
		names = append(names, ListCNDomains)
	}
	return names
}

// listed reads the NAME of "list:NAME" and reports whether there is one.
func (c converter) listed(at place, name string) bool {
	if slices.Contains(c.listNames(), name) {
		return true
	}
	c.addf(at, "no list %s (%s)", quote(name), thereAre(c.listNames()))
	return false
}

// country reads an ISO 3166 country code in either case.
func (c converter) country(raw rawString, fallback string) string {
	if !raw.given() {
		return fallback
	}
	if len(raw.value) != 2 || !isMadeOf(raw.value, "") || strings.ContainsAny(raw.value, "0123456789") {
		c.addf(raw.place, "%s: a country is its two letters, e.g. \"CN\"", quote(raw.value))
		return fallback
	}
	return strings.ToUpper(raw.value)
}
