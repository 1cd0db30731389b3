package resolver

import (
	"net/netip"

	"smartdns/geo"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/routing"
)

// clientNote is why addresses that a client with a path of its own gets are not
// marked: others may have them on another path.
const clientNote = "a client's path is a static set"

// ownPath returns the path of all public addresses of the client, where it has
// one.
func (t *task) ownPath(a netip.Addr) (policy.AddressRule, bool) {
	if kind, _ := geo.Special(a); kind != geo.NotSpecial {
		return policy.AddressRule{}, false
	}
	for _, c := range t.pol.Clients {
		if t.view.Lines&c.Line != 0 {
			return c.Rule, true
		}
	}
	return policy.AddressRule{}, false
}

// Tunnelled returns the tunnel that a line of the file's own for a name, not one
// for every name, sends its addresses through, and whether there is one.
func (r *Resolver) Tunnelled(name dnsname.FQDN, c policy.Client) (routing.Path, bool) {
	p := r.policy.Load()
	rule, ok := p.Names.MatchFor(name, p.Views.Of(c).Lines)
	return rule.Via, ok && rule.Via.IsTunnel() && rule.By.Kind != policy.All
}

// OwnPath returns the rule by which a client has a path of its own to a, and
// whether it has one there.
func (r *Resolver) OwnPath(c policy.Client, a netip.Addr) (policy.AddressRule, bool) {
	p := r.policy.Load()
	t := task{pol: p, governed: governed{view: p.Views.Of(c)}}
	return t.ownPath(a)
}
