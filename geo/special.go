package geo

import (
	"fmt"
	"net/netip"
)

// SpecialKind says why an address is nobody's in particular.
type SpecialKind uint8

// The kinds of special address.
const (
	NotSpecial     SpecialKind = iota
	SpecialPrivate             // private to some network, as Private says
	SpecialBogon               // not to be met on the Internet, or, as Teredo, only in forged answers
)

func (k SpecialKind) String() string {
	switch k {
	case NotSpecial:
		return "none"
	case SpecialPrivate:
		return listPrivate
	case SpecialBogon:
		return listBogon
	}
	return fmt.Sprintf("SpecialKind(%d)", uint8(k))
}

// The List of verdicts about special addresses.
const (
	listPrivate = "private"
	listBogon   = "bogon"
)

// Special reports whether a is private or a bogon, and the prefix that says
// so, which is invalid for NotSpecial. An address that carries a v4 address
// (v4-mapped, NAT64's 64:ff9b::/96, 6to4's 2002::/16) is what that one is, and
// the prefix is then one of v4. The zero Addr is a bogon.
func Special(a netip.Addr) (SpecialKind, netip.Prefix) {
	if !a.IsValid() {
		return SpecialBogon, netip.Prefix{}
	}
	switch v := specials.Lookup(a); v.List {
	case listPrivate:
		return SpecialPrivate, v.Prefix
	case listBogon:
		return SpecialBogon, v.Prefix
	}
	return NotSpecial, netip.Prefix{}
}

// specials is a Table that knows nothing else.
var specials = new(Builder).Table()

// privatePrefixes are the networks whose addresses mean something else in each
// place.
func privatePrefixes() []string {
	return []string{
		"10.0.0.0/8",     // RFC 1918
		"100.64.0.0/10",  // carrier-grade NAT, RFC 6598
		"127.0.0.0/8",    // loopback
		"169.254.0.0/16", // link-local
		"172.16.0.0/12",  // RFC 1918
		"192.168.0.0/16", // RFC 1918
		"::1/128",        // loopback
		"64:ff9b:1::/48", // NAT64 of a network's own, RFC 8215: where the v4 address is in it is its own affair
		"fc00::/7",       // unique local
		"fe80::/10",      // link-local
		"fec0::/10",      // site-local, the unique local of before RFC 4193
	}
}

// PrivatePrefixes returns the networks whose addresses mean something else in
// each place.
func PrivatePrefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range privatePrefixes() {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// bogonPrefixes are the networks that no answer should point to. What is
// inside a longer prefix of privatePrefixes is private all the same.
func bogonPrefixes() []string {
	return []string{
		"0.0.0.0/8",       // "this network"
		"192.0.0.0/24",    // IETF protocol assignments
		"192.0.2.0/24",    // documentation
		"192.88.99.0/24",  // 6to4 relays, RFC 7526
		"198.18.0.0/15",   // benchmarks
		"198.51.100.0/24", // documentation
		"203.0.113.0/24",  // documentation
		"224.0.0.0/4",     // multicast
		"240.0.0.0/4",     // reserved, and broadcast
		"::/3",            // not global unicast: unspecified, v4-compatible, discard-only 100::/64
		"2001::/32",       // Teredo: every forged AAAA answer seen so far
		"2001:2::/48",     // benchmarks
		"2001:10::/28",    // ORCHID
		"2001:20::/28",    // ORCHID v2: identifiers, not addresses
		"2001:30::/28",    // drone identifiers, RFC 9374
		"2001:db8::/32",   // documentation
		"2002::/16",       // 6to4: never looked up, because the inner v4 address is
		"3fff::/20",       // documentation, RFC 9637
		"4000::/2",        // not allocated, or segment identifiers
		"8000::/1",        // not allocated, and multicast
	}
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056
)

// inner returns the key of the v4 address that the v6 key k carries.
func (k key) inner() (v4 key, ok bool) {
	switch {
	case k.hi == 0 && k.lo>>32 == 0xffff: // ::ffff:0:0/96, v4-mapped
		return key{hi: k.lo << 32}, true
	case k.hi == 0x0064_ff9b_0000_0000 && k.lo>>32 == 0: // nat64
		return key{hi: k.lo << 32}, true
	case k.hi>>48 == 0x2002: // sixToFour
		return key{hi: k.hi << 16 &^ 0xffff_ffff}, true
	}
	return key{}, false
}

// viaNAT64 returns the v6 prefix of the addresses through which NAT64 reaches p.
func viaNAT64(p netip.Prefix) netip.Prefix {
	k := keyOf(nat64.Addr())
	k.lo |= keyOf(p.Addr()).hi >> 32
	return netip.PrefixFrom(k.addr(false), nat64.Bits()+p.Bits())
}

// via6to4 returns the v6 prefix that 6to4 makes of p.
func via6to4(p netip.Prefix) netip.Prefix {
	k := keyOf(sixToFour.Addr())
	k.hi |= keyOf(p.Addr()).hi >> 16
	return netip.PrefixFrom(k.addr(false), sixToFour.Bits()+p.Bits())
}
