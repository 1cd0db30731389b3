package policy

import "smartdns/resolver/dnsname"

// BypassIndex is the Index of a Rule that keeps clients from asking others past
// us.
const BypassIndex = -3

// Bypass answers the names by which programs would come to ask others past us.
// A nil Bypass answers none. It is immutable, and safe for concurrent use.
type Bypass struct {
	Signals *Names // the names by which programs ask whether they may, for everybody
	Servers *Names // those of the others, for the clients in Outside; nil: none
	Outside Lines  // the line of everybody but this host
}

// Over returns the rule of a client for name: rule, unless b has one. A line that
// names no more than what b would answer is somebody's will, and stays.
func (b *Bypass) Over(rule Rule, name dnsname.FQDN, lines Lines) Rule {
	if b == nil {
		return rule
	}
	own, ok := b.Signals.Match(name)
	if !ok && b.Servers != nil && lines&b.Outside != 0 {
		own, ok = b.Servers.Match(name)
	}
	by := rule.By
	if !ok || by.List == "" && (by.Kind == Suffix || by.Kind == Full) && by.Text != "" && dnsname.FQDN(own.By.Text).Contains(dnsname.FQDN(by.Text)) {
		return rule
	}
	return own
}

// ClientPath is the path of all that some clients send to public addresses,
// whatever the rules for addresses say.
type ClientPath struct {
	Line Lines // those it holds for
	Rule AddressRule
}
