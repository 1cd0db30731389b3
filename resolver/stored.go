package resolver

import (
	"encoding/binary"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/wire"
)

// A stored message is what its question and most of its header do not say: the
// octet with the response code and the AD bit, the counts of answer and authority, their
// records. Pointers in them are those of the whole message.
const storedLen = 1 + 2 + 2

// stored returns m as the cache keeps it under its question; room is where it
// may lie.
func (m message) stored(room, question []byte, name dnsname.FQDN) []byte {
	header := [wire.HeaderLen]byte{2: 0x80, 3: byte(m.rcode & 15), 5: 1}
	if m.ad {
		header[3] |= 0x20
	}
	msg := m.pack(room, &header, question, name)
	b := msg[wire.HeaderLen+len(question)-storedLen:]
	b[0] = msg[3]
	copy(b[1:storedLen], msg[answerCount:authorityCount+2]) // over the end of the question
	return b
}

// unpackStored reads what stored returned.
func unpackStored(b, question []byte, asked dnsname.FQDN, qtype uint16, do bool) (message, error) {
	if len(b) < storedLen {
		return message{}, errMalformed
	}
	msg := make([]byte, 0, wire.HeaderLen+len(question)+len(b)-storedLen)
	msg = append(msg, 0, 0, 0x80, b[0], 0, 1)
	msg = append(msg, b[1:storedLen]...)
	msg = binary.BigEndian.AppendUint16(msg, 0)
	msg = append(msg, question...)
	return parse(append(msg, b[storedLen:]...), asked, qtype, do)
}
