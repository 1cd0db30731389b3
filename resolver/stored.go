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

// stored returns m as the cache keeps it under its question.
func (m message) stored(question []byte, name dnsname.FQDN) []byte {
	msg := m.pack(question, name)
	b := make([]byte, 0, storedLen+len(msg)-wire.HeaderLen-len(question))
	b = append(b, msg[3])
	b = append(b, msg[answerCount:authorityCount+2]...)
	return append(b, msg[wire.HeaderLen+len(question):]...)
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
