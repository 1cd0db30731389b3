package wire

import "net/netip"

// AppendQuery appends a query for an upstream: RD=1, ID 0, one question of
// class IN, and an OPT of version 0 with a UDP size of 1232. name is in wire
// form and uncompressed; options are packed EDNS options, nil for none.
func AppendQuery(dst, name []byte, qtype uint16, do, cd bool, options []byte) []byte {
	var flags, edns byte
	if cd {
		flags = bitCD
	}
	if do {
		edns = doBit
	}
	dst = append(dst, 0, 0, bitRD, flags, 0, 1, 0, 0, 0, 0, 0, 1)
	dst = append(dst, name...)
	dst = append(dst, byte(qtype>>8), byte(qtype), 0, byte(ClassIN))
	dst = append(dst, 0, 0, byte(TypeOPT), MaxUDP>>8, MaxUDP&0xff, 0, 0, edns, 0,
		byte(len(options)>>8), byte(len(options)))
	return append(dst, options...)
}

// AppendECS appends a packed client subnet option (RFC 7871 section 6) for an
// upstream query: the prefix with all bits behind it zero, scope 0. An invalid
// prefix appends nothing.
func AppendECS(dst []byte, p netip.Prefix) []byte {
	if !p.IsValid() {
		return dst
	}
	p = p.Masked()
	family := byte(1)
	if p.Addr().Is6() {
		family = 2
	}
	n := (p.Bits() + 7) / 8
	dst = append(dst, 0, OptionECS, 0, byte(4+n), 0, family, byte(p.Bits()), 0)
	if p.Addr().Is4() {
		a := p.Addr().As4()
		return append(dst, a[:n]...)
	}
	a := p.Addr().As16()
	return append(dst, a[:n]...)
}

// AppendWithoutOPT appends the query msg without its OPT, for a server that
// does not know EDNS (RFC 6891 section 7). Behind the OPT of a query nothing
// may stand.
func AppendWithoutOPT(dst, msg []byte) []byte {
	at := len(dst)
	dst = append(dst, msg...)
	return dst[:at+len(StripOPT(dst[at:]))]
}
