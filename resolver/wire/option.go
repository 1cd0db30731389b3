package wire

// optionCookie is the EDNS option code of a cookie (RFC 7873).
const optionCookie = 10

// optionsParse reports whether b is a list of at most limit EDNS options.
func optionsParse(b []byte, limit int) bool {
	return eachOption(b, limit, func(uint16, []byte) bool { return true })
}

// askedOptionsParse is optionsParse for a query: RFC 7871 (section 7.1.2) and
// RFC 7873 (section 5.2.2) want FORMERR for an option that cannot be one.
func askedOptionsParse(b []byte, limit int) bool { return eachOption(b, limit, askedOptionParses) }

func eachOption(b []byte, limit int, good func(code uint16, data []byte) bool) bool {
	for n := 0; len(b) > 0; n++ {
		if n == limit || len(b) < 4 {
			return false
		}
		size := 4 + int(be.Uint16(b[2:]))
		if size > len(b) || !good(be.Uint16(b), b[4:size]) {
			return false
		}
		b = b[size:]
	}
	return true
}

func askedOptionParses(code uint16, data []byte) bool {
	switch code {
	case OptionECS:
		return askedSubnetParses(data)
	case optionCookie: // 8 octets of the client's, then none or 8 to 32 of the server's
		return len(data) == 8 || len(data) >= 16 && len(data) <= 40
	}
	return true
}

// askedSubnetParses reports whether data is a client subnet as it stands in a query
// (RFC 7871 section 6): no scope, as many octets as the prefix needs, and no
// bit set behind it. Family 0 is what a client sends that wants none used.
func askedSubnetParses(data []byte) bool {
	if len(data) < 4 || data[3] != 0 {
		return false
	}
	most := 0
	switch be.Uint16(data) {
	case 1:
		most = 32
	case 2:
		most = 128
	}
	length, addr := int(data[2]), data[4:]
	if be.Uint16(data) > 2 || length > most || len(addr) != (length+7)/8 {
		return false
	}
	return length%8 == 0 || addr[len(addr)-1]<<(length%8) == 0
}
