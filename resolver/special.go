package resolver

import (
	"net/netip"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/wire"
)

const typeNS = 2

// special answers names that never leave this host: what they mean is the
// local network's, or nobody's, affair. A rule that names such a zone itself
// (a router's "lan", an office's "10.in-addr.arpa") is somebody's will and
// comes first; nobody can want localhost, invalid or onion asked.
func special(name dnsname.FQDN, qtype uint16, rule policy.Rule) (m message, why string, ok bool) {
	for zone, more := name, true; more; zone, more = zone.Parent() {
		kind := specialZone(zone)
		if kind == notSpecial {
			continue
		}
		if kind != fixed && named(rule, zone) {
			return message{}, "", false
		}
		return specialAnswer(name, zone, qtype), "special-use " + zone.String(), true
	}
	if name.Labels() == 1 && !infrastructure(qtype) && !named(rule, name) {
		return message{rcode: wire.NXDomain, authority: []record{localSOA(name)}}, "a single label", true
	}
	return message{}, "", false
}

// named reports whether a rule's own entry names something in zone.
func named(rule policy.Rule, zone dnsname.FQDN) bool {
	by := rule.By
	return by.List == "" && (by.Kind == policy.Suffix || by.Kind == policy.Full) && zone.Contains(dnsname.FQDN(by.Text))
}

// infrastructure reports whether a type is asked about top-level domains
// themselves, by validators above all.
func infrastructure(qtype uint16) bool {
	return qtype == typeNS || qtype == wire.TypeSOA || qtype == wire.TypeDS || qtype == wire.TypeDNSKEY
}

func specialAnswer(name, zone dnsname.FQDN, qtype uint16) message {
	loopback := func(s string) message {
		return message{answer: []record{{name, qtype, localTTL, netip.MustParseAddr(s).AsSlice()}}}
	}
	switch {
	case zone == "localhost." && qtype == wire.TypeA:
		return loopback("127.0.0.1")
	case zone == "localhost." && qtype == wire.TypeAAAA:
		return loopback("::1")
	case name == "ipv4only.arpa." && qtype == wire.TypeA:
		return message{answer: []record{
			{name, qtype, localTTL, []byte{192, 0, 0, 170}}, {name, qtype, localTTL, []byte{192, 0, 0, 171}},
		}}
	case qtype == wire.TypePTR && (name == "1.0.0.127.in-addr.arpa." || name == loopback6):
		return message{answer: []record{{name, wire.TypePTR, localTTL, dnsname.FQDN("localhost.").AppendWire(nil)}}}
	}
	m := message{authority: []record{localSOA(zone)}}
	// RFC 9462 section 4: that there is nothing below resolver.arpa says that we
	// designate nobody.
	if zone != "localhost." && zone != "resolver.arpa." && name != zone {
		m.rcode = wire.NXDomain
	}
	return m
}

const (
	zeros16   = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0."
	zeros31   = zeros16 + "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0."
	loopback6 = "1." + zeros31 + "ip6.arpa."
)

// zoneKind is how special a zone is.
type zoneKind uint8

const (
	notSpecial zoneKind = iota
	local               // a rule may name somebody to ask
	fixed               // it is never asked
)

// specialZone returns how special zone itself is. Names under "test." are
// resolved: RFC 6761 section 6.2 only asks not to disturb the root with them,
// and a laboratory has servers for them.
func specialZone(zone dnsname.FQDN) zoneKind {
	switch zone {
	case "localhost.", "invalid.", "onion.": // RFC 6761, 7686
		return fixed
	case "ipv4only.arpa.", // RFC 8880 section 7.1: there is no NAT64 here
		"local.", "home.arpa.", "internal.", "alt.", // RFC 6762, 8375; ICANN SAC113; RFC 9476
		"resolver.arpa.", "service.arpa.", "eap.arpa.", // RFC 9462, 9665, 9965
		// RFC 6303 section 4, with RFC 7793's 100.64.0.0/10
		"10.in-addr.arpa.", "168.192.in-addr.arpa.", "0.in-addr.arpa.", "127.in-addr.arpa.", "254.169.in-addr.arpa.",
		"2.0.192.in-addr.arpa.", "100.51.198.in-addr.arpa.", "113.0.203.in-addr.arpa.", "255.255.255.255.in-addr.arpa.",
		"0." + zeros31 + "ip6.arpa.", loopback6,
		"c.f.ip6.arpa.", "d.f.ip6.arpa.", "8.e.f.ip6.arpa.", "9.e.f.ip6.arpa.", "a.e.f.ip6.arpa.", "b.e.f.ip6.arpa.",
		"8.b.d.0.1.0.0.2.ip6.arpa.":
		return local
	}
	if second, ok := octet(zone, ".172.in-addr.arpa."); ok && second >= 16 && second <= 31 {
		return local
	}
	if second, ok := octet(zone, ".100.in-addr.arpa."); ok && second >= 64 && second <= 127 {
		return local
	}
	return notSpecial
}

// octet returns the number that stands before rest in zone.
func octet(zone dnsname.FQDN, rest string) (n int, ok bool) {
	digits := len(zone) - len(rest)
	if digits < 1 || digits > 3 || string(zone[digits:]) != rest {
		return 0, false
	}
	for _, c := range zone[:digits] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, zone[0] != '0' || digits == 1
}
