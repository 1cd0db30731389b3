package list

import (
	"bytes"
	"encoding/binary"
	"io"
	"iter"
	"net/netip"
	"strconv"

	"go4.org/netipx"
)

// Delegated reads the statistics that the regional internet registries
// publish ("delegated-apnic-latest"), and yields the prefixes of one country,
// given as its ISO 3166 code in upper case. Only addresses that are allocated
// or assigned count. A v4 record counts addresses, and where that is no power
// of two it yields the fewest prefixes that cover exactly them.
func Delegated(r io.Reader, country string) iter.Seq2[Line, error] {
	d := delegated{country: []byte(country)}
	return scan(r, d.parse)
}

type delegated struct{ country []byte }

// parse reads registry|cc|type|start|value|date|status[|extensions...].
func (d delegated) parse(rule []byte, emit func(Line) bool) string {
	var field [7][]byte
	n := 0
	for f := range bytes.SplitSeq(rule, []byte("|")) {
		if n == len(field) {
			break
		}
		field[n] = f
		n++
	}
	if n == 6 && string(field[5]) == "summary" || n == 7 && isVersion(field[0]) {
		return ""
	}
	if n < 7 {
		return "not a record: registry|cc|type|start|value|date|status"
	}
	if !bytes.Equal(field[1], d.country) {
		return ""
	}
	if s := string(field[6]); s != "allocated" && s != "assigned" {
		return ""
	}
	switch string(field[2]) {
	case "ipv4":
		return emitCount(field[3], field[4], emit)
	case "ipv6":
		p, err := parseCIDR(string(field[3]) + "/" + string(field[4]))
		if err != nil || p.Addr().Is4() {
			return "not an ipv6 record: start is an address, value a prefix length"
		}
		emitPrefix(p, emit)
		return ""
	case "asn":
		return ""
	}
	return `unknown type: "ipv4", "ipv6" or "asn"`
}

// isVersion reports whether a line that starts with field is the header, whose
// first field is the format's version: "2" or "2.3".
func isVersion(field []byte) bool {
	return len(field) > 0 && '0' <= field[0] && field[0] <= '9'
}

func emitCount(start, count []byte, emit func(Line) bool) string {
	const wrong = "not an ipv4 record: start is an address, value how many follow it, all of them below 255.255.255.255"
	first, err := netip.ParseAddr(string(start))
	if err != nil || !first.Is4() {
		return wrong
	}
	n, err := strconv.ParseUint(string(count), 10, 32)
	if err != nil || n == 0 {
		return wrong
	}
	a4 := first.As4()
	last := uint64(binary.BigEndian.Uint32(a4[:])) + n - 1
	if last > 1<<32-1 {
		return wrong
	}
	var b4 [4]byte
	binary.BigEndian.PutUint32(b4[:], uint32(last))
	for _, p := range netipx.IPRangeFrom(first, netip.AddrFrom4(b4)).Prefixes() {
		if !emitPrefix(p, emit) {
			break
		}
	}
	return ""
}
