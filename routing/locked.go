package routing

import "slices"

// lockedRules leave a way to what is near alone. They hold without our table,
// and for whatever mark a packet has.
func (in Input) lockedRules(fams []Family) []Rule {
	var rules []Rule
	for _, p := range in.Near {
		if f := FamilyOf(p.Addr()); slices.Contains(fams, f) {
			rules = append(rules, Rule{Family: f, Pref: PrefNear, To: p.Masked(), Table: TableMain})
		}
	}
	for _, f := range fams {
		rules = append(rules, Rule{Family: f, Pref: PrefNear + 1, Unreachable: true})
	}
	return rules
}

// Locked reports whether s keeps everything in that is not near.
func (s State) Locked() bool {
	return slices.ContainsFunc(s.Rules, func(r Rule) bool { return r.Pref == PrefNear+1 && r.Unreachable })
}
