package policy

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"

	"smartdns/geo"
	"smartdns/routing"
)

// AddressRule is a line of decide.addresses: which way the addresses it
// matches leave, and, when Match returned it, why it matched.
type AddressRule struct {
	Index int    // in decide.addresses, from 0
	Text  string // its match as the file writes it
	Pos   string // "file:line"
	Via   routing.Path
	// Named reports that a prefix of the user's matched, in the rule or in a
	// list, rather than private, home or everything.
	Named  bool
	Prefix netip.Prefix // that prefix
	List   string       // the list that has it; "" when the rule itself has it
	Line   int          // its line in that list, from 1; 0 without one
	Client bool         // it is a line of decide.clients, which no address matched
}

// PrefixEntry is one prefix of a list.
type PrefixEntry struct {
	Prefix netip.Prefix
	List   string // "" when the rule itself has it
	Line   int
}

// AddressSpec is a rule and what it matches.
type AddressSpec struct {
	Rule     AddressRule
	Private  bool // private addresses
	Home     bool // addresses whose verdict is home
	All      bool // every address
	Prefixes []PrefixEntry
}

// Addresses says which way an address leaves. It is immutable, and safe for
// concurrent use.
type Addresses struct{ rules []addressRule }

type addressRule struct {
	rule               AddressRule
	private, home, all bool
	prefixes           *bart.Table[PrefixEntry] // nil without any
}

// NewAddresses compiles specs, which are in the order of the file. The last
// must match everything.
func NewAddresses(specs []AddressSpec) (*Addresses, error) {
	a := &Addresses{}
	for i, s := range specs {
		r := addressRule{rule: s.Rule, private: s.Private, home: s.Home, all: s.All}
		for _, p := range s.Prefixes {
			if !p.Prefix.IsValid() {
				return nil, fmt.Errorf("adding addresses[%d] %s: invalid prefix", i, s.Rule.Text)
			}
			if r.prefixes == nil {
				r.prefixes = &bart.Table[PrefixEntry]{}
			}
			if _, ok := r.prefixes.Get(p.Prefix); !ok {
				r.prefixes.Insert(p.Prefix, p)
			}
		}
		a.rules = append(a.rules, r)
	}
	if len(a.rules) == 0 || !a.rules[len(a.rules)-1].all {
		return nil, errors.New("the last address rule does not match every address")
	}
	return a, nil
}

// Match returns the first rule that matches addr, whose verdict is v.
func (a *Addresses) Match(v geo.Verdict, addr netip.Addr) AddressRule {
	for _, r := range a.rules {
		if r.private && v.Region == geo.Private || r.home && v.Region == geo.Home {
			return r.rule
		}
		if r.prefixes != nil {
			if p, ok := r.prefixes.Lookup(addr); ok {
				rule := r.rule
				rule.Named, rule.Prefix, rule.List, rule.Line = true, p.Prefix, p.List, p.Line
				return rule
			}
		}
		if r.all {
			return r.rule
		}
	}
	return a.rules[len(a.rules)-1].rule // unreachable: the last one matches everything
}
