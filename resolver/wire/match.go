package wire

import "bytes"

// Match is how a reply relates to the query that was sent.
type Match uint8

const (
	NoMatch     Match = iota // no reply to this query
	Matches                  // ID, QR, opcode and question are right
	WrongID                  // a reply, but with another ID: somebody is guessing
	CaseDiffers              // all right but the case of the name
)

// MatchReply compares a reply with the packed query that was sent: same ID,
// QR=1, opcode 0, exactly one question and that equal octet by octet
// (RFC 5452 section 9.1). Anything may stand in reply.
func MatchReply(query, reply []byte) Match {
	if len(reply) < HeaderLen || len(query) < HeaderLen || reply[2]&bitQR == 0 {
		return NoMatch
	}
	if !bytes.Equal(reply[:2], query[:2]) {
		return WrongID
	}
	asked := Question(query)
	end := HeaderLen + len(asked)
	if asked == nil || reply[2]&opcodeBit != 0 || be.Uint16(reply[4:]) != 1 || len(reply) < end {
		return NoMatch
	}
	got := reply[HeaderLen:end]
	switch name := len(asked) - 4; {
	case bytes.Equal(asked, got):
		return Matches
	case bytes.Equal(asked[name:], got[name:]) && equalFold(asked[:name], got[:name]):
		return CaseDiffers
	}
	return NoMatch
}

// BareError reports whether reply is a header alone that answers query with
// an error code, as servers do that could not read the question, for one
// because they know no EDNS (RFC 6891 section 7). It proves less than a reply
// with the question in it.
func BareError(query, reply []byte) bool {
	return len(reply) == HeaderLen && len(query) >= HeaderLen &&
		bytes.Equal(reply[:2], query[:2]) &&
		reply[2]&(bitQR|opcodeBit) == bitQR && reply[3]&0x0f != 0 &&
		be.Uint64(reply[4:]) == 0
}

// CopyQuestion gives reply, which must match query but for the case of the
// name, the ID and the spelling of query.
func CopyQuestion(reply, query []byte) {
	q := Question(query)
	if len(reply) < HeaderLen+len(q) {
		return
	}
	copy(reply[:2], query)
	copy(reply[HeaderLen:], q)
}
