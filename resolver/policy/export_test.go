package policy

import "smartdns/resolver/dnsname"

// Each calls f for every name with its records; that of a wildcard begins with
// "*.".
func (r *Records) Each(f func(dnsname.FQDN, []Record)) {
	for name, all := range r.names {
		f(name, all)
	}
	for zone, all := range r.wild {
		f(wildcard(zone), all)
	}
}
