package geo_test

import (
	"net/netip"
	"strings"
	"testing"

	"smartdns/geo"
	"smartdns/resolver/dnsname"
)

// Whatever is in the list is a name that can be asked for, or public addresses
// of few hosts, once each.
func TestDoHServersAreNamesAndPublicAddresses(t *testing.T) {
	names, prefixes := map[string]int{}, map[netip.Prefix]int{}
	for s := range geo.DoH() {
		if s.Name == "" {
			if kind, _ := geo.Special(s.Prefix.Addr()); kind != geo.NotSpecial || s.Prefix != s.Prefix.Masked() || s.Prefix.Addr().Is4() && s.Prefix.Bits() < 24 || s.Prefix.Bits() < 24 {
				t.Errorf("line %d: %s is %v, or too much", s.Line, s.Prefix, kind)
			}
			if at := prefixes[s.Prefix]; at != 0 {
				t.Errorf("line %d: %s stands at %d, too", s.Line, s.Prefix, at)
			}
			prefixes[s.Prefix] = s.Line
			continue
		}
		if n, err := dnsname.Parse(s.Name); err != nil || n.Labels() < 2 || strings.ToLower(s.Name) != s.Name {
			t.Errorf("line %d: %q: %v", s.Line, s.Name, err)
		}
		if at := names[s.Name]; at != 0 {
			t.Errorf("line %d: %s stands at %d, too", s.Line, s.Name, at)
		}
		names[s.Name] = s.Line
	}
	if len(names) < 40 || len(prefixes) < 100 || names["dns.google"] == 0 || prefixes[netip.MustParsePrefix("8.8.8.8/32")] != names["dns.google"] {
		t.Errorf("%d names, %d prefixes", len(names), len(prefixes))
	}
}
