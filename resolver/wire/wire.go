// Package wire reads and patches packed DNS messages where they lie: it
// recognises queries, checks replies before anything unpacks them, ages TTLs
// and cuts answers to size. Nothing in it allocates but growing a destination
// slice, nothing keeps a message, and no input makes it panic.
//
// Functions say which they expect: any octets (ParseQuery, CheckReply,
// MatchReply, Truncated, RCode, ...), or a message that CheckReply has
// accepted. Given anything else, the latter stop at the first octet they
// cannot follow and leave the rest as it is.
package wire

import "encoding/binary"

const (
	// HeaderLen is the size of a message's header (RFC 1035 section 4.1.1).
	HeaderLen = 12
	// MaxUDP is the largest UDP message that is sent or asked for: what fits
	// every path unfragmented (DNS flag day 2020).
	MaxUDP = 1232
	// MinUDP is what a client takes over UDP without saying so.
	MinUDP = 512
	// MaxRecords is the largest number of records in a reply that is looked at.
	MaxRecords = 256
	// OptionECS is the EDNS option code of a client subnet (RFC 7871).
	OptionECS = 8
	// OptionEDE is the EDNS option code of an extended error (RFC 8914).
	OptionEDE = 15
)

// Response codes (RFC 1035 section 4.1.1, RFC 2136 section 2.2, RFC 6891).
const (
	NoError  uint16 = 0
	FormErr  uint16 = 1
	ServFail uint16 = 2
	NXDomain uint16 = 3
	NotImp   uint16 = 4
	Refused  uint16 = 5
	NotAuth  uint16 = 9
	BadVers  uint16 = 16
)

// Record types that this module has to know by name.
const (
	TypeA      uint16 = 1
	TypeNS     uint16 = 2
	TypeCNAME  uint16 = 5
	TypeSOA    uint16 = 6
	TypePTR    uint16 = 12
	TypeTXT    uint16 = 16
	TypeSIG    uint16 = 24
	TypeAAAA   uint16 = 28
	TypeOPT    uint16 = 41
	TypeDS     uint16 = 43
	TypeRRSIG  uint16 = 46
	TypeDNSKEY uint16 = 48
	TypeSVCB   uint16 = 64
	TypeHTTPS  uint16 = 65
	TypeNXNAME uint16 = 128
	TypeTKEY   uint16 = 249
	TypeTSIG   uint16 = 250
	TypeIXFR   uint16 = 251
	TypeAXFR   uint16 = 252
	TypeANY    uint16 = 255
	ClassIN    uint16 = 1
)

// Bits of the third and fourth octet of the header.
const (
	bitQR     = 0x80
	bitAA     = 0x04
	bitTC     = 0x02
	bitRD     = 0x01
	bitRA     = 0x80
	bitAD     = 0x20
	bitCD     = 0x10
	opcodeBit = 0x78
	doBit     = 0x80 // of the OPT's third TTL octet
)

var be = binary.BigEndian

// ID returns the message's ID, 0 for a runt.
func ID(msg []byte) uint16 {
	if len(msg) < 2 {
		return 0
	}
	return be.Uint16(msg)
}

// SetID sets the message's ID.
func SetID(msg []byte, id uint16) {
	if len(msg) >= 2 {
		be.PutUint16(msg, id)
	}
}

// Truncated reports whether the TC bit is set.
func Truncated(msg []byte) bool { return len(msg) >= HeaderLen && msg[2]&bitTC != 0 }

// RCode returns the message's response code with the upper bits of its OPT
// (RFC 6891 section 6.1.3).
func RCode(msg []byte) uint16 {
	if len(msg) < HeaderLen {
		return ServFail
	}
	code := uint16(msg[3] & 0x0f)
	if opt, ok := findOPT(msg); ok {
		code |= uint16(msg[opt.ttl]) << 4
	}
	return code
}

// HasOPT reports whether the message has an OPT record.
func HasOPT(msg []byte) bool {
	_, ok := findOPT(msg)
	return ok
}

// Options returns the packed options of the message's OPT record and its DO
// bit; ok is false when there is no OPT.
func Options(msg []byte) (options []byte, do, ok bool) {
	opt, ok := findOPT(msg)
	if !ok {
		return nil, false, false
	}
	return msg[opt.data:opt.end], msg[opt.ttl+2]&doBit != 0, true
}

// Option returns the value of the first option with the given code among
// packed options.
func Option(options []byte, code uint16) (value []byte, ok bool) {
	for len(options) >= 4 {
		size := 4 + int(be.Uint16(options[2:]))
		if size > len(options) {
			break
		}
		if be.Uint16(options) == code {
			return options[4:size:size], true
		}
		options = options[size:]
	}
	return nil, false
}

// Question returns the message's only question: name, type and class, as they
// lie there. It is nil when there is not exactly one, or when its name is
// compressed or broken.
func Question(msg []byte) []byte {
	if len(msg) < HeaderLen || be.Uint16(msg[4:]) != 1 {
		return nil
	}
	end := plainName(msg, HeaderLen)
	if end < 0 || end+4 > len(msg) {
		return nil
	}
	return msg[HeaderLen : end+4 : end+4]
}

// Key appends the identity of a question to dst: its name in lower case, its
// type and its class. Equal questions have equal keys.
func Key(dst, question []byte) []byte {
	at := len(dst)
	dst = append(dst, question...)
	if len(question) > 4 {
		foldName(dst[at : len(dst)-4])
	}
	return dst
}
