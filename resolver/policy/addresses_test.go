package policy_test

import (
	"net/netip"
	"testing"

	"smartdns/geo"
	"smartdns/resolver/policy"
)

func TestAddresses(t *testing.T) {
	prefix := netip.MustParsePrefix
	rules, err := policy.NewAddresses([]policy.AddressSpec{
		{Rule: policy.AddressRule{Index: 0, Via: "wg1"}, Prefixes: []policy.PrefixEntry{
			{Prefix: prefix("203.0.113.0/24")}, {Prefix: prefix("203.0.113.128/25"), List: "office", Line: 7}, {Prefix: prefix("2001:db8::1/128")},
		}},
		{Rule: policy.AddressRule{Index: 1, Via: "direct"}, Private: true, Home: true},
		{Rule: policy.AddressRule{Index: 2, Via: "wg0"}, All: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		about  string
		addr   string
		region geo.Region
		index  int
		by     string
	}{
		{"a prefix wins over its region", "203.0.113.1", geo.Home, 0, "203.0.113.0/24 :0"},
		{"the longest prefix is named, with its list", "203.0.113.200", geo.Abroad, 0, "203.0.113.128/25 office:7"},
		{"a v6 address", "2001:db8::1", geo.Unknown, 0, "2001:db8::1/128 :0"},
		{"home", "39.156.66.10", geo.Home, 1, ""},
		{"private", "10.0.0.1", geo.Private, 1, ""},
		{"everything else", "93.184.216.34", geo.Abroad, 2, ""},
		{"unknown", "2001:db8::2", geo.Unknown, 2, ""},
	} {
		got := rules.Match(geo.Verdict{Region: c.region}, netip.MustParseAddr(c.addr))
		by := ""
		if got.Named {
			by = got.Prefix.String() + " " + got.List + ":" + string(rune('0'+got.Line))
		}
		if got.Index != c.index || by != c.by {
			t.Errorf("%s: Match(%s) = rule %d by %q, want %d by %q", c.about, c.addr, got.Index, by, c.index, c.by)
		}
	}
	addr := netip.MustParseAddr("203.0.113.200")
	if n := testing.AllocsPerRun(100, func() { rules.Match(geo.Verdict{}, addr) }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}

func TestAddressesEndInAll(t *testing.T) {
	for about, specs := range map[string][]policy.AddressSpec{
		"none":         nil,
		"last is home": {{Home: true}},
	} {
		if _, err := policy.NewAddresses(specs); err == nil {
			t.Errorf("%s: no error", about)
		}
	}
}
