package policy

import (
	"fmt"
	"iter"
	"regexp"
	"strings"

	"smartdns/resolver/dnsname"
)

// Entry is one thing that a rule or a list compares names with.
type Entry struct {
	Kind   Kind
	Name   dnsname.FQDN   // Suffix, Full
	Text   string         // Keyword: lower case; Regexp: as the file writes it
	Regexp *regexp.Regexp // Regexp
	Line   int            // in its list, from 1
	// Except says that the name, or all below it, is not what its list means,
	// unless a longer name of the list says that it is: only for Suffix and Full.
	Except bool
}

// List is a named source of entries. Its entries are read once, by NewNames.
type List struct {
	Name    string
	Size    int // about how many entries, to make room at once; 0 when nobody knows
	Entries iter.Seq[Entry]
}

// NameRule is a rule and what it matches: the entries it has itself, and
// lists.
type NameRule struct {
	Rule    Rule
	Entries []Entry
	Lists   []List
	Clients Clients
}

// Names says whom to ask about a name. It is immutable, and safe for
// concurrent use.
type Names struct {
	rules    []Rule
	sources  []source
	suffixes table
	fulls    table
	patterns []pattern // in the order of their rules
	all      int       // the rule with All; len(rules) when there is none
	limited  []limited // to clients, in the order of their rules
	shadows  []*shadow // none without exceptions
	before   *Names    // nil, or what stands before all rules but those with an answer of their own
}

// source is where an entry came from: one rule's own entries, or one of its
// lists.
type source struct {
	rule    int
	list    string
	excepts *excepts // nil without any
}

// pattern is an entry that has to be tried on every name.
type pattern struct {
	source int
	entry  Entry
}

func (p pattern) matches(name string) bool {
	if p.entry.Kind == Keyword {
		return strings.Contains(name, p.entry.Text)
	}
	return p.entry.Regexp.MatchString(name)
}

// NewNames compiles rules, which are in the order of the file.
func NewNames(rules []NameRule) (*Names, error) {
	n := &Names{all: len(rules), suffixes: newTable(), fulls: newTable()}
	n.cast(&n.suffixes, Suffix, 0)
	n.cast(&n.fulls, Full, 0)
	for i, r := range rules {
		n.rules = append(n.rules, r.Rule)
		if !r.Clients.Everybody() {
			if err := n.addLimited(r); err != nil {
				return nil, fmt.Errorf("adding names[%d], for some clients: %w", i, err)
			}
			continue
		}
		own := source{rule: i}
		for _, e := range r.Entries {
			if err := n.add(own, e); err != nil {
				return nil, fmt.Errorf("adding names[%d] %s: %w", i, r.Rule.Text, err)
			}
		}
		for _, l := range r.Lists {
			from := source{rule: i, list: l.Name}
			n.suffixes.reserve(l.Size)
			for e := range l.Entries {
				if err := n.add(from, e); err != nil {
					return nil, fmt.Errorf("adding list %s line %d: %w", l.Name, e.Line, err)
				}
			}
		}
	}
	n.compact()
	return n, nil
}

func (n *Names) add(from source, e Entry) error {
	at := len(n.sources) - 1
	if at < 0 || n.sources[at].rule != from.rule || n.sources[at].list != from.list {
		n.sources = append(n.sources, from)
		at++
	}
	if e.Except {
		if n.sources[at].excepts == nil {
			n.sources[at].excepts = &excepts{newTable(), newTable()}
		}
		return n.sources[at].excepts.add(e)
	}
	switch e.Kind {
	case Suffix:
		return n.suffixes.add(e.Name, at, e.Line)
	case Full:
		return n.fulls.add(e.Name, at, e.Line)
	case Keyword:
		if e.Text == "" {
			return fmt.Errorf("empty keyword")
		}
		n.patterns = append(n.patterns, pattern{at, e})
	case Regexp:
		if e.Regexp == nil {
			return fmt.Errorf("no expression")
		}
		n.patterns = append(n.patterns, pattern{at, e})
	case All:
		n.all = min(n.all, from.rule)
	default:
		return fmt.Errorf("unknown kind of entry %d", e.Kind)
	}
	return nil
}

// Len returns how many distinct names the rules hold.
func (n *Names) Len() int { return n.suffixes.count + n.fulls.count }

// Rules returns the rules in the order of the file, without evidence.
func (n *Names) Rules() []Rule { return n.rules }

// Match returns the first rule that matches name for everybody, with the entry
// that matched; among the entries of one rule the longest suffix is named. It
// does not allocate.
func (n *Names) Match(name dnsname.FQDN) (Rule, bool) {
	rule, ok, _ := n.match(name)
	return n.after(name, rule, ok)
}

// After returns n with the rules of first before its own, except before those
// whose Action is Local. first nil is n as it was made.
func (n *Names) After(first *Names) *Names {
	c := *n
	c.before = first
	return &c
}

// First returns what n was given by After.
func (n *Names) First() *Names { return n.before }

// after is rule, or what stands before it.
func (n *Names) after(name dnsname.FQDN, rule Rule, ok bool) (Rule, bool) {
	if n.before == nil || ok && rule.Action == Local {
		return rule, ok
	}
	if earlier, is := n.before.Match(name); is {
		return earlier, true
	}
	return rule, ok
}

// maxProbes is how many suffixes of a name are looked up side by side.
const maxProbes = 8

// match is Match, with the index of the rule.
func (n *Names) match(name dnsname.FQDN) (rule Rule, ok bool, index int) {
	best, by := n.all, Evidence{Kind: All}
	consider := func(kind Kind, from, line int, text string) {
		for level := 0; ; level++ {
			s := &n.sources[from]
			if s.rule >= best {
				return
			}
			if s.excepts == nil || !s.excepts.hold(name, kind, text) {
				best, by = s.rule, Evidence{Kind: kind, Text: text, List: s.list, Line: line}
				return
			}
			below, ok := n.below(level, kind, text)
			if !ok {
				return
			}
			from, line = below.from(), below.line()
		}
	}
	if s, ok := n.fulls.find(name); ok {
		consider(Full, s.from(), s.line(), string(name))
	}
	var starts [maxProbes]struct {
		suffix dnsname.FQDN
		probe
	}
	for suffix, more := name, true; more; {
		count := 0
		for ; more && count < maxProbes; suffix, more = suffix.Parent() {
			starts[count].suffix, starts[count].probe = suffix, n.suffixes.probe(suffix)
			count++
		}
		for _, p := range starts[:count] {
			if s, ok := n.suffixes.follow(p.probe); ok {
				consider(Suffix, s.from(), s.line(), string(p.suffix))
			}
		}
	}
	text := strings.TrimSuffix(string(name), ".")
	for _, p := range n.patterns {
		if n.sources[p.source].rule >= best {
			break // the rest belongs to the same rule or to later ones
		}
		if p.matches(text) {
			consider(p.entry.Kind, p.source, p.entry.Line, p.entry.Text)
		}
	}
	if best == len(n.rules) {
		return Rule{}, false, best
	}
	rule = n.rules[best]
	rule.By = by
	return rule, true, best
}
