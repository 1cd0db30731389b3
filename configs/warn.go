package configs

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"smartdns/routing"
)

// Warnings returns what is legal in c but probably not meant, in the order of
// the file. A default never warns.
func (c *Config) Warnings() []Warning {
	all := slices.Concat(
		c.clientWarnings(),
		c.tunnelWarnings(),
		c.sideWarnings(),
		c.listWarnings(),
		c.homeWarnings(),
		c.Decide.nameWarnings(),
		c.Decide.addressWarnings(),
		c.Decide.clientRuleWarnings(),
	)
	slices.SortStableFunc(all, func(a, b Warning) int { return cmp.Compare(a.Pos.Line, b.Pos.Line) })
	return all
}

func (c *Config) clientWarnings() []Warning {
	var all []Warning
	for _, p := range c.Listen.Clients {
		if p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16 {
			all = append(all, Warning{
				Pos:  c.somewhere(),
				Key:  "[listen] clients",
				Text: fmt.Sprintf("%s is a large part of the Internet: an open resolver is used in attacks on others", p),
			})
		}
	}
	return all
}

// somewhere is the place of what has no line of its own.
func (c *Config) somewhere() Pos { return Pos{File: printable(filepath.Base(c.File))} }

func (c *Config) tunnelWarnings() []Warning {
	var all []Warning
	for _, t := range c.Tunnels {
		if !c.uses(t.Path) {
			all = append(all, Warning{t.Pos, "[tunnel." + tomlKey(string(t.Path)) + "]", "no via names it: nothing goes through it"})
		}
	}
	return all
}

func (c *Config) uses(path routing.Path) bool {
	return slices.ContainsFunc(c.Sides, func(s Side) bool { return s.Via == path }) ||
		slices.ContainsFunc(c.Lists, func(l List) bool { return len(l.Fetch.URLs) > 0 && l.Fetch.Via == path }) ||
		slices.ContainsFunc(c.Decide.Names, func(r NameRule) bool { return r.Via == path }) ||
		slices.ContainsFunc(c.Decide.Clients, func(r ClientRule) bool { return r.Via == path }) ||
		slices.ContainsFunc(c.Decide.Addresses, func(r AddressRule) bool { return r.Via == path })
}

func (c *Config) sideWarnings() []Warning {
	var all []Warning
	for _, s := range c.Sides {
		if s.Pos.Line == 0 {
			continue
		}
		key := "[side." + tomlKey(s.Name) + "]"
		if !c.asks(s.Name) {
			all = append(all, Warning{s.Pos, key, "no line of [decide] names asks it"})
		}
		for _, server := range s.Servers {
			if text := server.doubt(s); text != "" {
				all = append(all, Warning{s.Pos, key + " servers", server.Text + ": " + text})
			}
		}
	}
	return all
}

// asks reports whether some name can reach the side.
func (c *Config) asks(side string) bool {
	for _, s := range c.Listen.Sides {
		if s == side {
			return true
		}
	}
	return slices.ContainsFunc(c.Decide.Names, func(r NameRule) bool {
		return r.Ask == side || r.Ask == AskAuto && (side == SideForeign || side == SideDomestic && c.Decide.Auto != ForeignOnly)
	})
}

func (c *Config) listWarnings() []Warning {
	used := slices.Concat(c.Geo.Sources, c.Poison.Bogus, c.Listen.Bypass.DoH)
	for _, e := range slices.Concat(c.Geo.Home, c.Geo.Abroad) {
		used = append(used, e.List)
	}
	for _, r := range c.Decide.Names {
		for _, m := range r.Match {
			if m.Kind == MatchList {
				used = append(used, m.Text)
			}
		}
	}
	for _, r := range c.Decide.Addresses {
		for _, m := range r.Match {
			if m.Kind == AddrList {
				used = append(used, m.List)
			}
		}
	}
	var all []Warning
	for _, l := range c.Lists {
		if (l.File != "" || len(l.Fetch.URLs) > 0) && !slices.Contains(used, l.Name) {
			all = append(all, Warning{l.Pos, "[list." + tomlKey(l.Name) + "]", "nothing uses it: no line says \"list:" + l.Name + "\""})
		}
	}
	return all
}

// homeWarnings finds the names of one country asked in another.
func (c *Config) homeWarnings() []Warning {
	if c.Decide.Home == defaultHome || !slices.ContainsFunc(c.Lists, List.isEmbedded) {
		return nil
	}
	var all []Warning
	for _, r := range c.Decide.Names {
		if r.Ask != SideDomestic || !slices.ContainsFunc(r.Match, func(m NameMatch) bool { return m.Kind == MatchList && m.Text == ListCNDomains }) {
			continue
		}
		text := fmt.Sprintf("asks domestic for the names of %s, but home is %s: give [list.%s] a file or url, or write names without it", defaultHome, c.Decide.Home, ListCNDomains)
		all = append(all, Warning{r.Pos, fmt.Sprintf("[decide] names[%d]", r.Index), text})
	}
	return all
}

// nameWarnings finds the entries that an earlier line leaves nothing to.
func (d Decide) nameWarnings() []Warning {
	var all []Warning
	first := make(map[string]int) // index of the line that takes all of an entry's names
	for i, r := range d.Names {
		for _, m := range r.Match {
			for _, cover := range m.coveredBy() {
				if j, ok := first[cover]; ok && j < i {
					all = append(all, unreached(r.Pos, fmt.Sprintf("names[%d]", i), fmt.Sprintf("names[%d]", j), m.String()))
					break
				}
			}
		}
		for _, m := range r.Match {
			if _, ok := first[m.String()]; !ok && r.Clients.Everybody() {
				first[m.String()] = i
			}
		}
	}
	return all
}

// coveredBy returns the entries that match all that m matches, m among them.
func (m NameMatch) coveredBy() []string {
	all := []string{m.String()}
	if m.Kind != MatchSuffix && m.Kind != MatchFull {
		return all
	}
	for name, ok := m.Name, true; ok; name, ok = name.Parent() {
		all = append(all, NameMatch{Kind: MatchSuffix, Name: name}.String())
	}
	return all
}

// addressWarnings finds the entries that an earlier line leaves nothing to.
func (d Decide) addressWarnings() []Warning {
	var all []Warning
	first := make(map[AddressMatch]int)
	for i, r := range d.Addresses {
		for _, m := range r.Match {
			for _, cover := range m.coveredBy() {
				if j, ok := first[cover]; ok && j < i {
					all = append(all, unreached(r.Pos, fmt.Sprintf("addresses[%d]", i), fmt.Sprintf("addresses[%d]", j), m.String()))
					break
				}
			}
		}
		for _, m := range r.Match {
			if _, ok := first[m]; !ok {
				first[m] = i
			}
		}
	}
	return all
}

func (m AddressMatch) coveredBy() []AddressMatch {
	if m.Kind != AddrPrefix {
		return []AddressMatch{m}
	}
	var all []AddressMatch
	for bits := m.Prefix.Bits(); bits >= 0; bits-- {
		all = append(all, AddressMatch{Kind: AddrPrefix, Prefix: netip.PrefixFrom(m.Prefix.Addr(), bits).Masked()})
	}
	return all
}

func unreached(pos Pos, line, earlier, entry string) Warning {
	return Warning{pos, "[decide] " + line, fmt.Sprintf("%s is never reached: %s matches it first", quote(entry), earlier)}
}
