package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/web/api"
)

// addClaims adds what the file says of addresses whatever the sources say: its
// own prefixes before those of the lists that it names.
func (l *lists) addClaims(b *geo.Builder) error {
	claims := []struct {
		region  geo.Region
		entries []configs.GeoEntry
	}{{geo.Home, l.config.Geo.Home}, {geo.Abroad, l.config.Geo.Abroad}}
	for _, c := range claims {
		for _, e := range c.entries {
			if e.List == "" {
				b.AddClaim(geo.Claim{Prefix: e.Prefix, Region: c.region, List: e.Pos.File, Line: e.Pos.Line})
			}
		}
	}
	var errs []error
	for _, c := range claims {
		for _, e := range c.entries {
			if e.List == "" {
				continue
			}
			entries, err := l.prefixes(e.List)
			errs = append(errs, err)
			for _, p := range entries {
				b.AddClaim(geo.Claim{Prefix: p.Prefix, Region: c.region, List: p.List, Line: p.Line})
			}
		}
	}
	return errors.Join(errs...)
}

// checkHome returns an error when none of the sources knows an address at home,
// unless one of them is fetched and may still come to.
func (l *lists) checkHome(t *geo.Table) error {
	for _, name := range l.config.Geo.Sources {
		if name != configs.GeoEmbedded && len(l.find(name).Fetch.URLs) > 0 {
			return nil
		}
	}
	if t.Has(geo.Home) {
		return nil
	}
	return fmt.Errorf("%s: [geo] sources: none of them knows an address in %s: name a list of its prefixes, with region = %q, or of another home",
		filepath.Base(l.config.File), l.config.Decide.Home, l.config.Decide.Home)
}

// dateOf is the day on which a file was written, "" when nobody knows.
func dateOf(f fs.File) string {
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	return info.ModTime().UTC().Format(time.DateOnly)
}

// dates says of which day the data of each list is.
type dates map[string]string

func (p *Parts) dates() dates {
	all := dates{geo.Embedded: geo.EmbeddedDate}
	for _, l := range p.Lists {
		all[l.Name] = l.Date
	}
	return all
}

// cite names a line of a list, with the day of the list's data.
func (d dates) cite(list string, line int) string {
	text := list
	if line > 0 {
		text = fmt.Sprintf("%s:%d", list, line)
	}
	if d[list] != "" {
		text += " (" + d[list] + ")"
	}
	return text
}

// ofRule adds the list's line that matched to a rule.
func (d dates) ofRule(r *api.Rule, list string, line int) {
	if list != "" {
		r.List, r.ListDate = fmt.Sprintf("%s:%d", list, line), d[list]
	}
}
