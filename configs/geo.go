package configs

import (
	"net/netip"
	"slices"
	"strings"
)

func (c converter) geo(raw rawGeo) Geo {
	g := Geo{Sources: []string{GeoEmbedded}}
	if !raw.Sources.missing() {
		g.Sources = c.geoSources(raw.Sources)
	}
	stands := map[netip.Prefix]string{}
	g.Home = c.geoEntries(raw.Home, "home", stands)
	g.Abroad = c.geoEntries(raw.Abroad, "abroad", stands)
	return g
}

func (c converter) geoSources(raw rawStrings) []string {
	if len(raw.items) == 0 && !raw.bad {
		c.addf(raw.place, `no source: write at least ["embedded"]`)
	}
	var all []string
	for _, item := range raw.items {
		name, isList := strings.CutPrefix(item.value, "list:")
		switch {
		case slices.Contains(all, name):
			c.twice(item)
		case isList:
			c.listOfPrefixes(item.place, name, true)
			all = append(all, name)
		case item.value == GeoEmbedded:
			all = append(all, name)
		default:
			c.addf(item.place, `no such source %s: it is "embedded" or "list:NAME"`, quote(item.value))
		}
	}
	return all
}

// geoEntries reads what is in a region whatever the sources say. Stands has the
// prefixes and lists that were read before, with their regions.
func (c converter) geoEntries(raw rawStrings, region string, stands map[netip.Prefix]string) []GeoEntry {
	var all []GeoEntry
	for _, item := range raw.items {
		e := GeoEntry{Pos: c.pos(item.place)}
		if name, ok := strings.CutPrefix(item.value, "list:"); ok {
			if slices.ContainsFunc(all, func(o GeoEntry) bool { return o.List == name }) {
				c.twice(item)
				continue
			}
			c.listOfPrefixes(item.place, name, false)
			e.List = name
			all = append(all, e)
			continue
		}
		prefix, err := parsePrefix(item.value)
		switch {
		case err != nil && !strings.ContainsAny(item.value, ":./"):
			c.addf(item.place, `no such entry %s: it is an address, a prefix or "list:NAME"`, quote(item.value))
			continue
		case err != nil:
			c.valuef(item, err)
			continue
		case prefix.Bits() == 0:
			c.addf(item.place, "%s is every address: which of them are home is for sources to say", prefix)
			continue
		case stands[prefix] == region:
			c.twice(item)
			continue
		case stands[prefix] != "":
			c.addf(item.place, "%s stands in %s, too", prefix, stands[prefix])
			continue
		}
		stands[prefix] = region
		e.Prefix = prefix
		all = append(all, e)
	}
	return all
}

// isEmbedded reports whether a list is the one of the program.
func (l List) isEmbedded() bool {
	return l.Name == ListCNDomains && l.File == "" && len(l.Fetch.URLs) == 0
}

func geoTexts(entries []GeoEntry) []string {
	all := make([]string, len(entries))
	for i, e := range entries {
		if all[i] = "list:" + e.List; e.List == "" {
			all[i] = e.Prefix.String()
		}
	}
	return all
}
