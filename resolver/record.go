package resolver

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"

	"github.com/miekg/dns"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/wire"
)

const (
	maxTTL         = 86400 // seconds
	maxNegativeTTL = 3600  // seconds
	maxLinks       = 11    // CNAMEs between the asked name and the answer
)

// Record types that only this file reads inside of.
const (
	typeDNAME = 39
	typeNSEC  = 47
	typeNSEC3 = 50
)

// record is one resource record of class IN. Its data is as it came, but for
// compressed names, which are written out: the data of types that may not be
// compressed (RFC 3597 section 4), HTTPS among them, stay equal octet by octet.
type record struct {
	name dnsname.FQDN
	typ  uint16
	ttl  uint32
	data []byte // never changed in place: answers share it
}

// target returns the name that a CNAME points to.
func (r record) target() dnsname.FQDN {
	name, _, err := dnsname.FromWire(r.data)
	if err != nil {
		return ""
	}
	return name
}

// addr returns the address of an A or AAAA record.
func (r record) addr() (netip.Addr, bool) {
	if r.typ != wire.TypeA && r.typ != wire.TypeAAAA {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(r.data)
}

// covers returns the type that an RRSIG signs.
func (r record) covers() uint16 {
	if r.typ != wire.TypeRRSIG || len(r.data) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(r.data)
}

var (
	errMalformed = errors.New("malformed reply")
	errLoop      = errors.New("the CNAMEs lead in a circle")
	errTooLong   = errors.New("more than 11 CNAMEs")
)

// reader walks the records of a packed message.
type reader struct {
	msg   []byte
	off   int
	asked dnsname.FQDN // the name in its question
}

// newReader returns a reader that stands behind the question of msg, which is
// about asked.
func newReader(msg []byte, asked dnsname.FQDN) (reader, error) {
	q := wire.Question(msg)
	if q == nil {
		return reader{}, errMalformed
	}
	return reader{msg: msg, off: wire.HeaderLen + len(q), asked: asked}, nil
}

func (r *reader) name() (dnsname.FQDN, error) {
	var room [255]byte
	raw, next, err := appendName(room[:0], r.msg, r.off)
	if err != nil {
		return "", err
	}
	r.off = next
	if question := r.msg[wire.HeaderLen:]; len(question) >= len(raw) && string(question[:len(raw)]) == string(raw) {
		return r.asked, nil // most are
	}
	name, _, err := dnsname.FromWire(raw)
	return name, err
}

// section appends count records to all; those of other classes are left out.
func (r *reader) section(all []record, count uint16) ([]record, error) {
	if count > wire.MaxRecords {
		return nil, errMalformed
	}
	for range count {
		name, err := r.name()
		if err != nil {
			return nil, err
		}
		if len(r.msg)-r.off < 10 {
			return nil, errMalformed
		}
		head := r.msg[r.off:]
		rec := record{name: name, typ: binary.BigEndian.Uint16(head), ttl: clampTTL(binary.BigEndian.Uint32(head[4:]))}
		start := r.off + 10
		if r.off = start + int(binary.BigEndian.Uint16(head[8:])); r.off > len(r.msg) {
			return nil, errMalformed
		}
		if binary.BigEndian.Uint16(head[2:]) != wire.ClassIN {
			continue
		}
		if rec.data, err = expand(r.msg, start, r.off, rec.typ); err != nil {
			return nil, err
		}
		if size := addressSize(rec.typ); size != 0 && len(rec.data) != size {
			return nil, errMalformed
		}
		all = append(all, rec)
	}
	return all, nil
}

func addressSize(typ uint16) int {
	switch typ {
	case wire.TypeA:
		return 4
	case wire.TypeAAAA:
		return 16
	}
	return 0
}

// clampTTL bounds a TTL; one with its highest bit set is 0 (RFC 2181 section
// 8).
func clampTTL(ttl uint32) uint32 {
	if ttl > 1<<31-1 {
		return 0
	}
	return min(ttl, maxTTL)
}

// layout says where names that may be compressed stand in the data of a type:
// octets before the first, how many names there are, character strings before
// them.
func layout(typ uint16) (skip, names, strings int) {
	switch typ {
	case 2, 3, 4, 5, 7, 8, 9, 12, typeDNAME, 30: // NS MD MF CNAME MB MG MR PTR DNAME NXT
		return 0, 1, 0
	case 6, 14, 17: // SOA MINFO RP
		return 0, 2, 0
	case 15, 18, 21, 36: // MX AFSDB RT KX
		return 2, 1, 0
	case 26: // PX
		return 2, 2, 0
	case 33: // SRV
		return 6, 1, 0
	case 35: // NAPTR
		return 4, 1, 3
	case 24: // SIG
		return 18, 1, 0
	}
	return 0, 0, 0
}

// expand returns the data of a record at msg[start:end] with its names
// written out.
func expand(msg []byte, start, end int, typ uint16) ([]byte, error) {
	skip, names, texts := layout(typ)
	if names == 0 {
		return msg[start:end:end], nil
	}
	at := start + skip
	for range texts {
		if at >= end {
			return nil, errMalformed
		}
		at += 1 + int(msg[at])
	}
	if at > end {
		return nil, errMalformed
	}
	data := append([]byte(nil), msg[start:at]...)
	for range names {
		var err error
		if data, at, err = appendName(data, msg, at); err != nil {
			return nil, err
		}
		if at > end {
			return nil, errMalformed
		}
	}
	return append(data, msg[at:end]...), nil
}

// appendName appends the name at off, uncompressed, and returns where it ends
// in msg. Pointers lead strictly backwards, so that there is an end.
func appendName(dst, msg []byte, off int) (name []byte, next int, err error) {
	start, limit := len(dst), off
	for {
		if off >= len(msg) {
			return nil, 0, errMalformed
		}
		size := int(msg[off])
		switch {
		case size >= 0xc0:
			if off+1 >= len(msg) {
				return nil, 0, errMalformed
			}
			if next == 0 {
				next = off + 2
			}
			to := size&0x3f<<8 | int(msg[off+1])
			if to >= limit {
				return nil, 0, errMalformed
			}
			off, limit = to, to
			continue
		case size > 63 || off+1+size > len(msg) || len(dst)-start+1+size > 255:
			return nil, 0, errMalformed
		}
		dst = append(dst, msg[off:off+1+size]...)
		off += 1 + size
		if size == 0 {
			if next == 0 {
				next = off
			}
			return dst, next, nil
		}
	}
}

// places is where names stand in a message that is being packed: an owner name
// that stood there before, or that a CNAME just pointed to, becomes a pointer to
// it. The search is bounded: no chain has more names, and what else an answer
// names is not worth more time.
type places struct {
	all [32]place
	n   int
}

// place is where a name stands in a message.
type place struct {
	name dnsname.FQDN
	at   int
}

// add appends records to msg, and counts them in the field of its header at
// count.
func (p *places) add(msg []byte, count int, records []record) []byte {
	for i := range records {
		r := &records[i]
		if at, ok := p.find(r.name); ok {
			msg = binary.BigEndian.AppendUint16(msg, 0xc000|uint16(at))
		} else {
			p.know(r.name, len(msg))
			msg = r.name.AppendWire(msg)
		}
		msg = binary.BigEndian.AppendUint16(msg, r.typ)
		msg = binary.BigEndian.AppendUint16(msg, wire.ClassIN)
		msg = binary.BigEndian.AppendUint32(msg, r.ttl)
		msg = binary.BigEndian.AppendUint16(msg, uint16(len(r.data)))
		if r.typ == wire.TypeCNAME {
			p.know(r.target(), len(msg))
		}
		msg = append(msg, r.data...)
	}
	binary.BigEndian.PutUint16(msg[count:], uint16(len(records)))
	return msg
}

// know notes that name is about to be written.
func (p *places) know(name dnsname.FQDN, at int) {
	if _, ok := p.find(name); !ok && at < 0x4000 && p.n < len(p.all) {
		p.all[p.n] = place{name, at}
		p.n++
	}
}

func (p *places) find(name dnsname.FQDN) (at int, ok bool) {
	for i := range p.n {
		if p.all[i].name == name {
			return p.all[i].at, true
		}
	}
	return 0, false
}

// Where the header counts the records of each section.
const (
	answerCount    = 6
	authorityCount = 8
)

// typeName returns what people call a type.
func typeName(typ uint16) string {
	switch typ { // most are
	case wire.TypeA:
		return "A"
	case wire.TypeAAAA:
		return "AAAA"
	}
	return dns.Type(typ).String()
}

// rcodeName returns what people call a response code.
func rcodeName(rcode uint16) string {
	if rcode == wire.NoError { // most are
		return "NOERROR"
	}
	if name, ok := dns.RcodeToString[int(rcode)]; ok {
		return name
	}
	return "RCODE" + strconv.Itoa(int(rcode))
}
