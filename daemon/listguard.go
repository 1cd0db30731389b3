package daemon

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/geo/list"
	"smartdns/resolver"
)

// lineGuard keeps what nobody can mean out of the lists that are fetched: whose
// file they are decides less than the user's own does.
type lineGuard struct {
	hosts   map[string]bool       // of mirrors, with the last dot
	addrs   map[netip.Addr]string // of this program's servers, and what they are
	private []netip.Prefix
}

func newLineGuard(c *configs.Config, tunnels []Tunnel) lineGuard {
	g := lineGuard{hosts: map[string]bool{}, addrs: map[netip.Addr]string{}, private: geo.PrivatePrefixes()}
	for _, x := range c.Lists {
		for _, u := range x.Fetch.URLs {
			if a, err := netip.ParseAddr(u.Hostname()); err == nil {
				g.addrs[a.Unmap()] = "a mirror of lists"
				continue
			}
			g.hosts[strings.ToLower(u.Hostname())+"."] = true
		}
	}
	for _, s := range c.Sides {
		for _, server := range slices.Concat(s.Servers, s.Bootstrap) {
			for _, a := range server.Known() {
				g.addrs[a.Addr().Unmap()] = anUpstream
			}
		}
	}
	for _, t := range tunnels {
		for _, peer := range t.WG.Peers {
			if a, ok := peer.Endpoint.Literal(); ok {
				g.addrs[a.Addr().Unmap()] = "a WireGuard endpoint"
			}
		}
	}
	return g
}

// watch returns the lines of a list, those left out as Dropped. A line that
// takes everything makes the file no list. OfHome says that the list is one of
// names to ask at home, which may hold that country's whole top-level domain.
func (g lineGuard) watch(lines iter.Seq2[list.Line, error], ofHome bool) iter.Seq2[list.Line, error] {
	return func(yield func(list.Line, error) bool) {
		for l, err := range lines {
			if err == nil && takesAll(l) {
				err = &list.FileError{Number: l.Number, Reason: "takes everything: such a file is not what it says it is"}
				yield(list.Line{}, err)
				return
			}
			if reason := g.reason(l, ofHome); err == nil && reason != "" {
				l = list.Line{Number: l.Number, Kind: list.Dropped, Err: &list.LineError{Number: l.Number, Text: lineText(l), Reason: reason}}
			}
			if !yield(l, err) {
				return
			}
		}
	}
}

// takesAll reports whether a line would take every name, or a large part of all
// addresses.
func takesAll(l list.Line) bool {
	e, ok := entry(l)
	switch {
	case l.Kind == list.Prefix:
		return l.Prefix.Bits() < 4
	case l.Kind == list.Dropped: // as parsers do with what takes everything
		return l.Name == "." || l.Prefix.IsValid() && l.Prefix.Bits() < 4
	case !ok:
		return false
	case l.Kind == list.Suffix:
		return l.Name == "."
	case l.Kind == list.Keyword:
		return !slices.ContainsFunc(unlike(), func(name string) bool { return !strings.Contains(name, e.Text) })
	case l.Kind == list.Regexp:
		return !slices.ContainsFunc(unlike(), func(name string) bool { return !e.Regexp.MatchString(name) })
	}
	return false
}

// unlike are names that have nothing in common but their form.
func unlike() []string { return []string{"www.kd7.com", "1-2.net", "b.zf.org.uk"} }

// reason returns why a line is left out, "" when it is not.
func (g lineGuard) reason(l list.Line, ofHome bool) string {
	switch l.Kind {
	case list.Suffix, list.Full:
		switch {
		case g.hosts[string(l.Name)]:
			return "the lists themselves are fetched from there"
		case l.Kind == list.Suffix && l.Name.Labels() < 2 && !ofHome:
			return "a whole top-level domain, in a list that is not one of names at home"
		}
	case list.Prefix:
		if what := g.addrs[l.Prefix.Addr()]; what != "" && l.Prefix.IsSingleIP() {
			return "the address of " + what
		}
		if slices.ContainsFunc(g.private, l.Prefix.Overlaps) {
			return "has private addresses in it, which mean something else in each network"
		}
	}
	return ""
}

// lineText is a line as it was meant.
func lineText(l list.Line) string {
	if l.Kind == list.Prefix {
		return l.Prefix.String()
	}
	return strings.TrimSuffix(string(l.Name), ".") + l.Text
}

// ofHome reports whether a list is one of names to ask at home.
func ofHome(c *configs.Config, name string) bool {
	return slices.ContainsFunc(c.Decide.Names, func(r configs.NameRule) bool {
		return r.Ask == resolver.Domestic && slices.ContainsFunc(r.Match, func(m configs.NameMatch) bool {
			return m.Kind == configs.MatchList && m.Text == name
		})
	})
}
