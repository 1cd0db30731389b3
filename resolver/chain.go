package resolver

import (
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/wire"
)

// crossing reports whether the domestic answer m for name leads out of what
// the domestic side may answer, and how many of its records stand before that:
// behind the first CNAME whose target no rule gives to the domestic side. An
// answer whose every address is home stays whole, since a lie could move its
// addresses nowhere else: large networks serve names at home by way of foreign
// ones.
func (p *Policy) crossing(m message, name dnsname.FQDN) (records int, cut bool) {
	if p.allHome(m) || p.privateOK(name) {
		return 0, false
	}
	for i, r := range m.answer {
		if r.typ != wire.TypeCNAME {
			continue
		}
		rule, ok := p.Names.Match(r.target())
		if ok && (rule.Action == policy.Local || rule.Action == policy.AskSide && rule.Side == Domestic) {
			continue
		}
		return i + 1, true
	}
	return 0, false
}

// privateOK reports whether the answers for name may be private.
func (p *Policy) privateOK(name dnsname.FQDN) bool {
	for _, zone := range p.PrivateOK {
		if zone.Contains(name) {
			return true
		}
	}
	return false
}
