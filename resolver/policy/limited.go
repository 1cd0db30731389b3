package policy

import "smartdns/resolver/dnsname"

// limited is a rule that holds for some clients, with the names it matches.
type limited struct {
	index int // among the rules
	line  Lines
	names *Names
}

// addLimited compiles a rule that holds for some clients. Its names stand
// apart: the tables know the first rule of a name, and this one is not
// everybody's.
func (n *Names) addLimited(r NameRule) error {
	own, err := NewNames([]NameRule{{Rule: r.Rule, Entries: r.Entries, Lists: r.Lists}})
	if err != nil {
		return err
	}
	n.limited = append(n.limited, limited{index: len(n.rules) - 1, line: 1 << len(n.limited), names: own})
	return nil
}

// MatchFor returns the first rule that matches name for a client for whom lines
// hold. A rule of its own says whom to ask or what to answer; which path the
// addresses take is still what the first line for everybody says, since an
// address has one path for all.
func (n *Names) MatchFor(name dnsname.FQDN, lines Lines) (Rule, bool) {
	rule, ok, at := n.match(name)
	if lines == 0 {
		return n.after(name, rule, ok)
	}
	for _, l := range n.limited {
		if ok && l.index > at {
			break
		}
		if lines&l.line == 0 {
			continue
		}
		if own, matches := l.names.Match(name); matches {
			own.Via = rule.Via
			return n.after(name, own, true)
		}
	}
	return n.after(name, rule, ok)
}
