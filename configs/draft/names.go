package draft

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"smartdns/configs"
)

// match checks an entry of a line of names.
func (r *reader) match(text string) (string, bool) {
	if err := configs.CheckMatch(text); err != nil {
		r.lost("%s cannot be matched here: %v", text, err)
		return "", false
	}
	return strings.TrimPrefix(text, "domain:"), true
}

// specific is a rule about one entry, of a program in which the longest name
// that matches decides.
type specific struct {
	rule
	depth int // how many other decisions about names above it there are
}

// said is everything but the names: what rules must have in common to be one.
func (x *rule) said() string {
	return strings.Join([]string{x.ask, strings.Join(x.answer, " "), x.via, x.aaaa, x.https, strings.Join(x.clients, " "), strings.Join(x.comment, " ")}, "\x00")
}

// bySpecificity turns rules of a program in which the longest name decides into
// lines of which the first decides. Each of all has one entry in match.
func bySpecificity(all []rule) []*rule {
	said := map[string]string{} // of each suffix
	for _, x := range all {
		if name, ok := suffixOf(x.match[0]); ok {
			said[name] = x.said()
		}
	}
	depths := map[string]int{}
	var depth func(name string) int
	depth = func(name string) int {
		if d, ok := depths[name]; ok {
			return d
		}
		d := 0
		for up := name; ; {
			_, rest, more := strings.Cut(up, ".")
			if up = rest; !more {
				break
			}
			if other, ok := said[up]; ok {
				d = depth(up)
				if other != said[name] {
					d++
				}
				break
			}
		}
		depths[name] = d
		return d
	}
	var sorted []specific
	for _, x := range all {
		s := specific{rule: x}
		name, suffix := suffixOf(x.match[0])
		full, isFull := strings.CutPrefix(x.match[0], "full:")
		switch {
		case suffix:
			s.depth = depth(name)
		case isFull:
			full = strings.ToLower(full)
			said["\x00."+full] = x.said()
			s.depth = depth("\x00."+full) + 1
		case strings.HasPrefix(x.match[0], "reverse:"):
			s.depth = depthOfReverse(all, x)
		default:
			s.depth = -1 // patterns and lists come after names
			if strings.HasPrefix(x.match[0], "list:") {
				s.depth = -2
			}
		}
		sorted = append(sorted, s)
	}
	slices.SortStableFunc(sorted, func(a, b specific) int { return b.depth - a.depth })
	return joined(sorted)
}

// depthOfReverse counts the prefixes around one of which something else is said.
func depthOfReverse(all []rule, of rule) int {
	p, err := netip.ParsePrefix(strings.TrimPrefix(of.match[0], "reverse:"))
	if err != nil {
		return 0
	}
	n := 0
	for _, x := range all {
		text, ok := strings.CutPrefix(x.match[0], "reverse:")
		if around, err := netip.ParsePrefix(text); ok && err == nil && around.Bits() < p.Bits() && around.Contains(p.Addr()) && x.said() != of.said() {
			n++
		}
	}
	return n
}

// joined makes one rule of those at one depth that say the same.
func joined(sorted []specific) []*rule {
	type group struct {
		depth int
		said  string
	}
	var out []*rule
	at := map[group]*rule{}
	seen := map[group]map[string]bool{}
	for _, s := range sorted {
		g := group{s.depth, s.said()}
		if at[g] == nil {
			x := s.rule
			x.match = nil
			at[g], seen[g] = &x, map[string]bool{}
			out = append(out, &x)
		}
		if !seen[g][s.match[0]] {
			seen[g][s.match[0]] = true
			at[g].match = append(at[g].match, s.match[0])
		}
	}
	return out
}

// suffixOf returns the name of an entry that stands for it and all below.
func suffixOf(match string) (string, bool) {
	name, plain := strings.CutPrefix(match, "domain:")
	if !plain && strings.Contains(match, ":") || match == "*" {
		return "", false
	}
	return strings.ToLower(strings.TrimSuffix(name, ".")), true
}

// shorten moves long matches into files beside the new one, where there can be
// any.
func (r *reader) shorten(base string) {
	const most = 60 // names in a line of the file
	for _, x := range r.rules {
		if len(x.match) <= most {
			continue
		}
		var names, rest []string
		for _, m := range x.match {
			if _, ok := suffixOf(m); ok || strings.HasPrefix(m, "full:") || strings.HasPrefix(m, "keyword:") || strings.HasPrefix(m, "regexp:") {
				names = append(names, m)
			} else {
				rest = append(rest, m)
			}
		}
		r.at, r.text = x.at, x.from
		what := x.ask
		if len(x.answer) > 0 {
			what = asWord(x.answer[0], "answer")
		}
		if list, ok := r.besides(base+"-"+asWord(what, "names"), "", configs.ListDomains, names); ok {
			r.changed("this and %d more names stand in %s now: what updates the old files does not update that one", len(names)-1, r.files[len(r.files)-1].Path)
			x.match = append(rest, "list:"+list)
		}
	}
}

// suffixPattern is the expression for names that end in text, label or not.
func suffixPattern(text string) string {
	return "regexp:" + regexp.QuoteMeta(strings.ToLower(text)) + "$"
}
