package wire

import "unicode/utf8"

// maxEDEText keeps an error reply within 512 octets whatever was asked.
const maxEDEText = 160

// AppendError appends the reply that ParseQuery, an ACL or a failed look-up
// asks for. It has no records but an OPT, which it has when the query had
// one. The question is repeated when it parsed. A query of an unknown opcode
// gets a bare header with no flag but QR. ede is an extended error (RFC 8914)
// with its text, both left out when ede < 0 or the query had no OPT; the text
// is cut at 160 octets. An rcode above 15 needs the OPT: without one, SERVFAIL
// is sent instead.
func AppendError(dst []byte, q Query, rcode uint16, ede int, text string) []byte {
	if len(q.Msg) < HeaderLen {
		return dst
	}
	if rcode > 15 && !q.EDNS.Present {
		rcode = ServFail
	}
	at := len(dst)
	dst = append(dst, q.Msg[0], q.Msg[1], bitQR|q.Msg[2]&opcodeBit, byte(rcode&0x0f), 0, 0, 0, 0, 0, 0, 0, 0)
	if q.Msg[2]&opcodeBit != 0 {
		return dst
	}
	dst[at+2] |= q.Msg[2] & bitRD
	dst[at+3] |= bitRA | q.Msg[3]&bitCD
	if len(q.Question) > 0 {
		dst[at+5] = 1
		dst = append(dst, q.Question...)
	}
	if q.EDNS.Present {
		dst = appendOPT(dst, at, rcode, q.EDNS.DO, ede, text)
	}
	return dst
}

// AppendOPT appends an OPT record to the whole message msg, which must have
// none: our UDP size, version 0, the DO bit, and an extended error unless
// ede < 0. It is how a cached answer, which carries no OPT, is given to a
// client that sent one.
func AppendOPT(msg []byte, do bool, ede int, text string) []byte {
	if len(msg) < HeaderLen {
		return msg
	}
	return appendOPT(msg, 0, 0, do, ede, text)
}

func appendOPT(dst []byte, at int, rcode uint16, do bool, ede int, text string) []byte {
	be.PutUint16(dst[at+10:], be.Uint16(dst[at+10:])+1)
	var flags byte
	if do {
		flags = doBit
	}
	dst = append(dst, 0, 0, byte(TypeOPT), MaxUDP>>8, MaxUDP&0xff, byte(rcode>>4), 0, flags, 0, 0, 0)
	if ede < 0 {
		return dst
	}
	text = cutText(text)
	size := 6 + len(text)
	dst[len(dst)-2], dst[len(dst)-1] = byte(size>>8), byte(size)
	dst = append(dst, 0, OptionEDE, byte((size-4)>>8), byte(size-4), byte(ede>>8), byte(ede))
	return append(dst, text...)
}

// cutText cuts text to maxEDEText octets between two characters.
func cutText(text string) string {
	if len(text) <= maxEDEText {
		return text
	}
	n := maxEDEText
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// StripOPT returns msg, a reply that CheckReply accepted, without its OPT and
// without what stands behind it (a signature at most: it would no longer be
// true). Read RCode before: its upper bits go too.
func StripOPT(msg []byte) []byte {
	if len(msg) < HeaderLen {
		return msg
	}
	w, ok := readRecords(msg)
	if !ok {
		return msg
	}
	kept := uint16(0)
	for r, ok := w.next(); ok; r, ok = w.next() {
		if r.section != 3 {
			continue
		}
		if r.typ == TypeOPT {
			be.PutUint16(msg[10:], kept)
			return msg[:r.name]
		}
		kept++
	}
	return msg
}

// BeforeOPT returns how many octets of msg stand before its OPT: all of them
// when it has none.
func BeforeOPT(msg []byte) int {
	if opt, ok := findOPT(msg); ok {
		return opt.name
	}
	return len(msg)
}

// PatchReply makes a stored reply the answer to q: q's ID, its RD and CD, its
// spelling of the name; RA set, AA and Z cleared. AD stays only if q asked for
// it by AD or DO (RFC 6840 section 5.8). The question in msg must be q's but
// for its case.
func PatchReply(msg []byte, q Query) {
	if len(msg) < HeaderLen+len(q.Question) || len(q.Msg) < HeaderLen {
		return
	}
	msg[0], msg[1] = q.Msg[0], q.Msg[1]
	msg[2] = msg[2]&^(bitAA|bitRD) | bitQR | q.Msg[2]&bitRD
	flags := msg[3]&(0x0f|bitAD) | bitRA | q.Msg[3]&bitCD
	if !q.AD() && !q.EDNS.DO {
		flags &^= bitAD
	}
	msg[3] = flags
	copy(msg[HeaderLen:], q.Question)
}

// Truncate appends to dst the reply msg as it fits into size octets (where dst
// is nil and all of it fits, msg is returned, not a copy): msg itself, or else its header with TC, its question and its OPT (RFC 2181
// section 9: a client must ask again anyway). The OPT loses its options where
// they do not fit.
func Truncate(dst, msg []byte, size int) []byte {
	if len(msg) <= size || len(msg) < HeaderLen {
		if dst == nil {
			return msg
		}
		return append(dst, msg...)
	}
	at := len(dst)
	dst = append(dst, msg[:HeaderLen]...)
	dst[at+2] |= bitTC
	clear(dst[at+4 : at+HeaderLen])
	question := Question(msg)
	if question == nil || HeaderLen+len(question) > size {
		return dst
	}
	dst[at+5] = 1
	dst = append(dst, question...)
	opt, ok := findOPT(msg)
	room := size - (len(dst) - at)
	switch {
	case !ok || room < 11:
	case opt.end-opt.name <= room:
		dst[at+11] = 1
		dst = append(dst, msg[opt.name:opt.end]...)
	default:
		dst[at+11] = 1
		dst = append(dst, msg[opt.name:opt.data]...)
		dst[len(dst)-2], dst[len(dst)-1] = 0, 0
	}
	return dst
}
