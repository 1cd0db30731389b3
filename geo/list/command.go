package list

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// isCommand reports whether a line is, or is a part of, one of the scripts that
// lists of routes are published as: for ipset, ip, route, nft, OpenVPN and
// RouterOS. A line of an nft set ends with a comma or has a brace.
func isCommand(line []byte) bool {
	if line[len(line)-1] == ',' || bytes.ContainsAny(line, "{}") {
		return true
	}
	word, _ := cutField(line)
	switch strings.ToLower(string(word)) {
	case "add", "-a", "create", "-n", "flush", "ipset", "ip", "route", "nft", "define", "table", "set", "type", "flags", "auto-merge", "elements", "/ip", "push":
		return true
	}
	return false
}

// parseCommand passes on the addresses that a command is about: all of a set of
// nft, else the first, with its mask if one follows. ipset's nomatch makes an
// exception. A command without addresses says nothing.
func parseCommand(line []byte, emit func(Line) bool) string {
	several := bytes.ContainsAny(line, "{}") || line[len(line)-1] == ','
	words := strings.FieldsFunc(string(line), func(r rune) bool { return strings.ContainsRune(" \t{},=\"'", r) })
	for i := 0; i < len(words); i++ {
		word := words[i]
		if !isAddressWord(word) {
			if several && !isWord(word) {
				return notAddress
			}
			continue
		}
		if from, to, ok := strings.Cut(word, "-"); ok {
			if reason := emitRange([]byte(from), []byte(to), emit); reason != "" {
				return reason
			}
		} else {
			p, err := prefixAt(words[i:])
			if err != nil {
				return err.Error()
			}
			if words[len(words)-1] == "nomatch" && p.Bits() > 0 {
				emit(Line{Kind: ExceptPrefix, Prefix: p})
			} else {
				emitPrefix(p, emit)
			}
		}
		if !several {
			return ""
		}
	}
	return ""
}

// prefixAt reads a prefix, whose length may follow as a mask.
func prefixAt(words []string) (netip.Prefix, error) {
	text := words[0]
	if !strings.Contains(text, "/") {
		for _, next := range words[1:min(len(words), 3)] {
			if n, ok := maskBits(next); ok {
				return parseCIDR(text + "/" + n)
			}
			if next != "netmask" && next != "mask" {
				break
			}
		}
	}
	if addr, mask, ok := strings.Cut(text, "/"); ok {
		if n, ok := maskBits(mask); ok { // 1.0.1.0/255.255.255.0
			return parseCIDR(addr + "/" + n)
		}
	}
	return parseCIDR(text)
}

// maskBits returns the length that a mask such as 255.255.255.0 stands for.
func maskBits(s string) (string, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return "", false
	}
	b := a.As4()
	m := binary.BigEndian.Uint32(b[:])
	n := bits.LeadingZeros32(^m)
	if n == 0 || m<<n != 0 {
		return "", false
	}
	return strconv.Itoa(n), true
}

// isAddressWord reports whether a word looks like an address, a prefix or a
// range.
func isAddressWord(s string) bool {
	addr, _, _ := strings.Cut(s, "/")
	addr, _, _ = strings.Cut(addr, "-")
	return isAddress([]byte(addr))
}

// isWord reports whether s is one of a command, rather than an address that is
// wrong.
func isWord(s string) bool {
	return s != "" && (s[0]|0x20 >= 'a' && s[0]|0x20 <= 'z' || s[0] == '-' || s[0] == '$' || s[0] == '@' || s[0] == ';')
}
