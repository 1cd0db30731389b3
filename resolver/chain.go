package resolver

import (
	"smartdns/geo"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/wire"
)

// crossing reports whether the domestic answer m for name leads out of what
// the domestic side may answer, and how many of its records stand before that:
// behind the first CNAME whose target no rule gives to the domestic side, and
// behind that one's signature. An answer whose every address is home stays
// whole, since a lie could move its addresses nowhere else: large networks
// serve names at home by way of foreign ones. So does one that says there is
// no IPv6 and no service record, since nobody needs either.
func (p *Policy) crossing(m message, name dnsname.FQDN, qtype uint16, lines policy.Lines) (records int, cut bool) {
	if m.links() == 0 || p.harmless(m, name, qtype) {
		return 0, false
	}
	for i, r := range m.answer {
		if r.typ != wire.TypeCNAME || qtype == wire.TypeCNAME {
			continue
		}
		rule, ok := p.Names.MatchFor(r.target(), lines)
		if ok && (rule.Action == policy.Local || rule.Action == policy.AskSide && rule.Side == Domestic) {
			continue
		}
		return behind(m.answer, i), true
	}
	return 0, false
}

// barred reports whether the chain of m leads to a name that a rule of its own
// answers locally (a block above all), or that has records of the user's, and how many of its records stand before
// that. A rule for every name bars no chain.
func (p *Policy) barred(m message, qtype uint16, lines policy.Lines) (records int, cut bool) {
	for i, r := range m.answer {
		if r.typ != wire.TypeCNAME || qtype == wire.TypeCNAME {
			continue
		}
		if _, _, ok := p.Local.Records.Match(r.target()); ok {
			return behind(m.answer, i), true
		}
		if rule, ok := p.Names.MatchFor(r.target(), lines); ok && rule.Action == policy.Local && rule.By.Kind != policy.All {
			return behind(m.answer, i), true
		}
	}
	return 0, false
}

// behind returns how many records there are up to the one at i and its
// signature.
func behind(answer []record, i int) int {
	owner := answer[i].name
	for i < len(answer) && answer[i].name == owner {
		i++
	}
	return i
}

// harmless reports whether m may stay whole wherever its chain leads.
func (p *Policy) harmless(m message, name dnsname.FQDN, qtype uint16) bool {
	addrs := m.addresses()
	if len(addrs) == 0 {
		optional := qtype == wire.TypeAAAA || isService(qtype)
		return optional && m.rcode == wire.NoError && !m.data(qtype)
	}
	private := p.Sides[Domestic].Private || p.privateOK(name)
	for _, f := range addrs {
		region := p.Geo.Classify(f.addr).Region
		if kind, _ := geo.Special(f.addr); region != geo.Home && !(private && kind != geo.NotSpecial) {
			return false
		}
	}
	return true
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
