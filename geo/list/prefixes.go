package list

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"strings"

	"go4.org/netipx"
)

// Prefixes reads addresses. Each line is one of
//
//	203.0.113.0/24, 2001:db8::/32   a prefix; bits beyond its length have to be 0
//	203.0.113.7                     a single address
//	203.0.113.1-203.0.113.9         a range: the fewest prefixes that cover exactly it
//	bogus-nxdomain=203.0.113.7      dnsmasq, also ignore-address=
//	add chnroute 203.0.113.0/24     ipset, also "ip route add", "route add ... netmask", sets of nft, OpenVPN
//
// and lines of all kinds may be mixed. A v4-mapped address is read as the v4
// one. Prefixes that cover every address are Dropped. Comments start with #, ;
// or !.
func Prefixes(r io.Reader) iter.Seq2[Line, error] { return scan(r, parsePrefix) }

const notAddress = "not an address: write 203.0.113.0/24, 203.0.113.7 or 203.0.113.1-203.0.113.9"

func parsePrefix(rule []byte, emit func(Line) bool) string {
	rule = cutComment(rule)
	if isCommand(rule) {
		return parseCommand(rule, emit)
	}
	if key, value, ok := bytes.Cut(rule, []byte("=")); ok {
		if string(key) != "bogus-nxdomain" && string(key) != "ignore-address" {
			return notAddress
		}
		rule = value
	}
	if from, to, ok := bytes.Cut(rule, []byte("-")); ok {
		return emitRange(from, to, emit)
	}
	prefix, err := parseCIDR(string(rule))
	if err != nil {
		return err.Error()
	}
	emitPrefix(prefix, emit)
	return ""
}

func parseCIDR(s string) (netip.Prefix, error) {
	addr, bits, hasBits := strings.Cut(s, "/")
	a, err := parseAddr(addr)
	if err != nil {
		return netip.Prefix{}, err
	}
	if !hasBits {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	n, ok := parseBits(bits, a.BitLen())
	if !ok {
		return netip.Prefix{}, fmt.Errorf("prefix length %q: write a number from 0 to %d", bits, a.BitLen())
	}
	if a.Is4In6() {
		if n < 96 {
			return netip.Prefix{}, errors.New("a v4-mapped prefix is at least /96 long")
		}
		a, n = a.Unmap(), n-96
	}
	p := netip.PrefixFrom(a, n)
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("bits are set beyond the prefix length: write %s, or %s alone", p.Masked(), a)
	}
	return p, nil
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, errors.New(notAddress)
	}
	return a, nil
}

// parseBits reads a decimal number of at most limit, as digits alone.
func parseBits(s string, limit int) (n int, ok bool) {
	if s == "" || len(s) > 3 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, n <= limit
}

func emitRange(from, to []byte, emit func(Line) bool) string {
	a, err := parseAddr(string(bytes.TrimSpace(from)))
	if err != nil {
		return err.Error()
	}
	b, err := parseAddr(string(bytes.TrimSpace(to)))
	if err != nil {
		return err.Error()
	}
	r := netipx.IPRangeFrom(a.Unmap(), b.Unmap())
	if !r.IsValid() {
		return "not a range: write the lower address first, and both of one family"
	}
	for _, p := range r.Prefixes() {
		if !emitPrefix(p, emit) {
			break
		}
	}
	return ""
}

func emitPrefix(p netip.Prefix, emit func(Line) bool) bool {
	if p.Bits() == 0 {
		return emit(Line{Kind: Dropped, Prefix: p, Err: &LineError{
			Text:   p.String(),
			Reason: `covers every address: a list cannot say that, "*" in smartdns.toml can`,
		}})
	}
	return emit(Line{Kind: Prefix, Prefix: p})
}
