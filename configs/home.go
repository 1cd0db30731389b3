package configs

import (
	"slices"
	"strings"
)

// home refuses a country that no source knows: every address would be abroad.
func (c converter) home(raw rawString) string {
	home := c.country(raw, defaultHome)
	sources := c.raw.Geo.Sources
	embeddedOnly := !slices.ContainsFunc(sources.items, func(s rawString) bool { return s.value != GeoEmbedded })
	if home != defaultHome && embeddedOnly {
		name := strings.ToLower(home)
		c.addf(raw.place, `the embedded data knows only %s: for %s add, say, [list.%s] file = "/etc/smartdns/%s.txt" region = %q and [geo] sources = ["list:%s"]; the file holds prefixes, or is the delegated file of a regional registry or an mmdb`,
			defaultHome, home, name, name, home, name)
	}
	return home
}

// checkHome refuses the program's own domestic servers in another country than
// theirs: they would answer for where they are.
func (c converter) checkHome(cfg *Config) {
	i := slices.IndexFunc(c.raw.Side, func(s table[rawSide]) bool { return s.name == SideDomestic })
	named := i >= 0 && !c.raw.Side[i].body.Servers.missing()
	if cfg.Decide.Home == defaultHome || named || !cfg.asks(SideDomestic) {
		return
	}
	c.addf(c.raw.Decide.Home.place, `the domestic servers of the program are in %s: write those of %s, [side.domestic] servers = ["192.0.2.53"]`, defaultHome, cfg.Decide.Home)
}

// atEmbeddedHome reports whether home is the country whose names are part of the
// program.
func (c converter) atEmbeddedHome() bool {
	home := c.raw.Decide.Home
	return !home.given() || strings.EqualFold(home.value, defaultHome)
}

// embeddedNames reports whether the file leaves the list of these as it is.
func (c converter) embeddedNames() bool {
	return !slices.ContainsFunc(c.raw.List, func(l table[rawList]) bool {
		return l.name == ListCNDomains && (l.body.File.value != "" || len(l.body.URL.items) > 0)
	})
}
