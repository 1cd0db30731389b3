package resolver

import (
	"bytes"
	"net/netip"
	"testing"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/wire"
)

// The examples of RFC 6052 section 2.4, there and back.
func TestNAT64Addresses(t *testing.T) {
	for prefix, want := range map[string]string{
		"2001:db8::/32":         "2001:db8:c000:221::",
		"2001:db8:100::/40":     "2001:db8:1c0:2:21::",
		"2001:db8:122::/48":     "2001:db8:122:c000:2:2100::",
		"2001:db8:122:300::/56": "2001:db8:122:3c0:0:221::",
		"2001:db8:122:344::/64": "2001:db8:122:344:c0:2:2100::",
		"2001:db8:122:344::/96": "2001:db8:122:344::192.0.2.33",
	} {
		d := DNS64{Prefix: netip.MustParsePrefix(prefix)}
		v6 := netip.MustParseAddr(want)
		if got := d.embed(netip.MustParseAddr("192.0.2.33")); got != v6 {
			t.Errorf("%s: %s, want %s", prefix, got, v6)
		}
		if name, ok := d.reverse(policy.Reverse(v6), wire.TypePTR); !ok || name != "33.2.0.192.in-addr.arpa." {
			t.Errorf("%s: the name of %s leads to %q, %v", prefix, v6, name, ok)
		}
	}
	d := DNS64{Prefix: netip.MustParsePrefix("64:ff9b::/96")}
	for _, name := range []dnsname.FQDN{
		"ip6.arpa.", "b.9.f.f.4.6.0.0.ip6.arpa.", policy.Reverse(netip.MustParseAddr("64:ff9c::1")), policy.Reverse(netip.MustParseAddr("192.0.2.1")),
		"x" + policy.Reverse(netip.MustParseAddr("64:ff9b::1"))[1:], "10." + policy.Reverse(netip.MustParseAddr("64:ff9b::1"))[3:],
	} {
		if to, ok := d.reverse(name, wire.TypePTR); ok {
			t.Errorf("%s leads to %s", name, to)
		}
	}
}

// Whatever a service record holds: one that loses nothing stays the very same
// octets, one that loses its hints has none, and is read again.
func FuzzFilterHints(f *testing.F) {
	f.Add([]byte("\x00\x01\x00\x00\x04\x00\x04\x01\x02\x03\x04"))
	f.Add([]byte("\x00\x01\x01a\x00\x00\x00\x00\x02\x00\x04\x00\x06\x00\x10aaaaaaaaaaaaaaaa"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := record{typ: wire.TypeHTTPS, data: data}
		seen := 0
		same, ok := filterHints(r, func(found) bool { seen++; return true })
		if ok && !bytes.Equal(same, data) {
			t.Fatalf("%x became %x", data, same)
		}
		none, kept := filterHints(r, func(found) bool { return false })
		if !ok && kept {
			t.Fatalf("%x cannot be read, and was kept", data)
		}
		if !kept {
			return
		}
		s, err := parseService(none)
		if err != nil || len(s.hints()) > 0 || seen == 0 && !bytes.Equal(none, data) {
			t.Fatalf("%x without hints is %x: %v", data, none, err)
		}
	})
}
