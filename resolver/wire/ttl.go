package wire

// AgeTTLs subtracts seconds from the TTL of every record but the OPT of msg,
// in place and never below 0.
func AgeTTLs(msg []byte, seconds uint32) {
	w, ok := readRecords(msg)
	if !ok {
		return
	}
	for r, ok := w.next(); ok; r, ok = w.next() {
		if r.typ != TypeOPT {
			age(msg[r.ttl:], seconds)
		}
	}
}

// TTLOffsets appends the offset of every TTL but the OPT's, two octets each, so
// that they can be kept beside the message as they are. With them AgeAt does
// the work of AgeTTLs without walking the message again.
func TTLOffsets(dst, msg []byte) []byte {
	w, ok := readRecords(msg)
	if !ok {
		return dst
	}
	for r, ok := w.next(); ok; r, ok = w.next() {
		if r.typ != TypeOPT && r.ttl <= 0xffff {
			dst = be.AppendUint16(dst, uint16(r.ttl))
		}
	}
	return dst
}

// AgeAt subtracts seconds from the TTLs at the given offsets of msg, never
// below 0. The offsets must be TTLOffsets' for this message.
func AgeAt(msg, offsets []byte, seconds uint32) {
	for ; len(offsets) >= 2; offsets = offsets[2:] {
		age(msg[be.Uint16(offsets):], seconds)
	}
}

func age(b []byte, seconds uint32) {
	ttl := be.Uint32(b)
	be.PutUint32(b, ttl-min(ttl, seconds))
}

// MinTTL returns the smallest TTL of all records but the OPT, and whether
// there is any.
func MinTTL(msg []byte) (ttl uint32, ok bool) {
	w, walk := readRecords(msg)
	if !walk {
		return 0, false
	}
	for r, more := w.next(); more; r, more = w.next() {
		if r.typ == TypeOPT {
			continue
		}
		if t := be.Uint32(msg[r.ttl:]); !ok || t < ttl {
			ttl, ok = t, true
		}
	}
	return ttl, ok
}

// ClampTTLs lowers every TTL but the OPT's to at most limit, in place. A TTL
// with its highest bit set becomes 0 (RFC 2181 section 8).
func ClampTTLs(msg []byte, limit uint32) {
	w, ok := readRecords(msg)
	if !ok {
		return
	}
	for r, ok := w.next(); ok; r, ok = w.next() {
		if r.typ == TypeOPT {
			continue
		}
		ttl := be.Uint32(msg[r.ttl:])
		if ttl>>31 != 0 {
			ttl = 0
		}
		be.PutUint32(msg[r.ttl:], min(ttl, limit))
	}
}

// NegativeTTL returns how long a reply without an answer may be kept: the
// smaller of its SOA's TTL and minimum field (RFC 2308 section 5). ok is false
// when the authority section has no SOA.
func NegativeTTL(msg []byte) (ttl uint32, ok bool) {
	w, walk := readRecords(msg)
	if !walk {
		return 0, false
	}
	for r, more := w.next(); more; r, more = w.next() {
		if r.section == 2 && r.typ == TypeSOA && r.end-r.data >= 22 {
			return min(be.Uint32(msg[r.ttl:]), be.Uint32(msg[r.end-4:])), true
		}
	}
	return 0, false
}
