package resolver

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/wire"
)

// ParseType returns the number of a record type by its name ("AAAA") or its
// number ("TYPE65", RFC 3597 section 5), in either case.
func ParseType(s string) (uint16, error) {
	upper := strings.ToUpper(s)
	if t, ok := dns.StringToType[upper]; ok {
		return t, nil
	}
	if digits, ok := strings.CutPrefix(upper, "TYPE"); ok {
		if n, err := strconv.ParseUint(digits, 10, 16); err == nil {
			return uint16(n), nil
		}
	}
	return 0, fmt.Errorf("%q is not a record type: write A, AAAA, HTTPS, TXT, … or TYPE65", s)
}

// AddressesOf returns the addresses at the end of the CNAME chain that a reply
// answers its own question with. A reply of package upstream is what it takes.
func AddressesOf(reply []byte) ([]netip.Addr, error) {
	q := wire.Question(reply)
	name, n, err := dnsname.FromWire(q)
	if err != nil {
		return nil, fmt.Errorf("reading the question: %w", err)
	}
	m, err := parse(reply, name, uint16(q[n])<<8|uint16(q[n+1]), false)
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, f := range m.addresses() {
		all = append(all, f.addr)
	}
	return all, nil
}
