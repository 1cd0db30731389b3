package daemon

import (
	"slices"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/web/api"
)

// Overlaps says where the lists of the file contradict each other: names that
// two of them have and that are asked on different sides, and prefixes that one
// source of [geo] calls home and another abroad. Most is how many of each are
// listed; all are counted. It works without the daemon.
func Overlaps(o Options, most int) (api.Overlaps, error) {
	out := api.Overlaps{Schema: api.Schema, Names: []api.Overlap{}, Prefixes: []api.Overlap{}}
	c, err := LoadConfig(o.Config)
	if err != nil {
		return out, err
	}
	l := newLists(c, openCopies(o.Dirs, c), newLineGuard(c, nil))
	tables, err := l.sourceTables()
	if err != nil {
		return out, err
	}
	all, err := l.nameClaims()
	if err != nil {
		return out, err
	}
	of := (&Parts{Lists: l.report()}).dates()
	out.NameCount = all.overlaps(func(name dnsname.FQDN, used, other nameClaim) {
		if len(out.Names) < most {
			out.Names = append(out.Names, api.Overlap{What: name.String(), Used: used.cite(of), Other: other.cite(of)})
		}
	})
	for i, a := range tables {
		for j, b := range tables[i+1:] {
			for d := range geo.Compare(a, b) {
				out.PrefixCount++
				if len(out.Prefixes) == most {
					continue
				}
				used, other := citeVerdict(d.A, c.Geo.Sources[i], of), citeVerdict(d.B, c.Geo.Sources[i+1+j], of)
				if d.A.List == "" { // what a source does not have, the next one says
					used, other = other, used
				}
				out.Prefixes = append(out.Prefixes, api.Overlap{What: d.Prefix.String(), Used: used, Other: other})
			}
		}
	}
	return out, nil
}

func citeVerdict(v geo.Verdict, source string, of dates) api.Claim {
	c := api.Claim{Says: v.Region.String(), List: "no line of " + of.cite(source, 0)}
	if v.List != "" {
		c.List, c.Entry = of.cite(v.List, v.Line), v.Prefix.String()
	}
	return c
}

// sourceTables returns a Table of each source of [geo], in their order.
func (l *lists) sourceTables() ([]*geo.Table, error) {
	var all []*geo.Table
	for _, name := range l.config.Geo.Sources {
		b := geo.NewBuilder(l.config.Decide.Home)
		if err := l.addSource(b, name); err != nil {
			return nil, err
		}
		all = append(all, b.Table())
	}
	return all, nil
}

// nameClaim is an entry of a list that a rule asks one side for.
type nameClaim struct {
	rule  int
	side  string
	list  string
	entry policy.Entry
}

func (c nameClaim) cite(of dates) api.Claim {
	return api.Claim{Says: "ask " + c.side, List: of.cite(c.list, c.entry.Line), Entry: c.entry.Name.String()}
}

// nameClaims are the entries of lists by their names, in the order of the rules.
type nameClaims struct {
	order  []nameClaim
	byName map[dnsname.FQDN][]int // indexes in order
}

func (l *lists) nameClaims() (nameClaims, error) {
	all := nameClaims{byName: map[dnsname.FQDN][]int{}}
	for i, r := range l.config.Decide.Names {
		if r.Ask == "" || r.Ask == configs.AskAuto || !r.Clients.Everybody() {
			continue
		}
		for _, m := range r.Match {
			if m.Kind != configs.MatchList {
				continue
			}
			var failed error
			for e := range l.names(m.Text, &failed) {
				if e.Except || e.Kind != policy.Suffix && e.Kind != policy.Full {
					continue
				}
				all.byName[e.Name] = append(all.byName[e.Name], len(all.order))
				all.order = append(all.order, nameClaim{rule: i, side: r.Ask, list: m.Text, entry: e})
			}
			if failed != nil {
				return all, failed
			}
		}
	}
	return all, nil
}

// overlaps calls found for every entry whose name, or what is around it, another
// rule's list has for another side, and returns how many there are. Used is what
// decides: the claim of the earlier rule.
func (all nameClaims) overlaps(found func(name dnsname.FQDN, used, other nameClaim)) (count int) {
	for at, c := range all.order {
		i, ok := all.against(at)
		if !ok {
			continue
		}
		count++
		used, other := c, all.order[i]
		if other.rule < used.rule {
			used, other = other, used
		}
		found(c.entry.Name, used, other)
	}
	return count
}

// against returns the first entry of another side that matches the name of the
// entry at. Of two for the same name the later one is none to the earlier.
func (all nameClaims) against(at int) (int, bool) {
	c := all.order[at]
	for name, more := c.entry.Name, true; more; name, more = name.Parent() {
		same := name == c.entry.Name
		i := slices.IndexFunc(all.byName[name], func(i int) bool {
			o := all.order[i]
			return o.side != c.side && (same && i < at || !same && o.entry.Kind == policy.Suffix)
		})
		if i >= 0 {
			return all.byName[name][i], true
		}
	}
	return 0, false
}
