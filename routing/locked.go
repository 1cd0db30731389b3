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

// discretion makes the uplinks answer ARP for their own addresses alone. The
// kernel takes the larger of this and the value for all.
func (in Input) discretion(f Facts) []Sysctl {
	var s []Sysctl
	for _, l := range f.Links {
		if slices.Contains(f.Uplinks(), l.Name) && l.ARPIgnore == 0 && !in.owns(l) {
			s = append(s, Sysctl{Key: "net/ipv4/conf/" + l.Name + "/arp_ignore", Value: "1"})
		}
	}
	return s
}
