package resolver

import (
	"encoding/binary"

	"smartdns/resolver/wire"
)

const (
	sizeOPT = 11  // octets of an OPT without options
	sizeEDE = 166 // of the longest extended error in it
)

// Reply appends the packed answer for the client that asked q: with its ID,
// its spelling of the name, its RD and CD; with an OPT only if it sent one;
// over UDP cut to what it takes. q must be the Query of the Decision, or an
// equal one of another client.
func (d *Decision) Reply(dst []byte, q *Query) []byte {
	return wire.Truncate(dst, d.pack(nil, q), q.limit())
}

// limit is the largest reply that q's client takes.
func (q *Query) limit() int {
	if q.Transport != "udp" {
		return wire.MaxMessage
	}
	return max(wire.MinUDP, min(q.Size, wire.MaxUDP))
}

// pack appends the answer to q to dst, which is empty, however long it is.
func (d *Decision) pack(dst []byte, q *Query) []byte {
	var header [wire.HeaderLen]byte
	binary.BigEndian.PutUint16(header[:], q.ID)
	header[2] = 0x80
	header[3] = 0x80 | byte(d.rcode&15) // RA
	if q.Flags.RD {
		header[2] |= 0x01
	}
	if q.Flags.CD {
		header[3] |= 0x10
	}
	if d.msg.ad && (q.Flags.AD || q.Flags.DO) { // RFC 6840 section 5.8
		header[3] |= 0x20
	}
	header[5] = 1
	msg := d.msg.pack(dst, &header, q.Question, q.Name)
	// Over a stream there is no other way to ask: the records come first.
	stream := q.Transport != "udp"
	if room := q.limit() - len(msg); q.Flags.EDNS && (!stream || room >= sizeOPT) {
		code, text := -1, ""
		if len(d.EDE) > 0 && (!stream || room >= sizeOPT+sizeEDE) {
			code, text = d.EDE[0].Code, d.EDE[0].Text
		}
		msg = wire.AppendOPT(msg, q.Flags.DO, code, text)
	}
	return msg
}
