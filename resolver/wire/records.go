package wire

// record is where the parts of a record lie in its message.
type record struct {
	section     int // 1 answer, 2 authority, 3 additional
	name        int // first octet of the owner
	typ, class  uint16
	ttl         int // first octet of the TTL
	data, end   int // the record's data
	ownerIsRoot bool
}

// records walks the records of a message in order.
type records struct {
	msg     []byte
	off     int
	section int
	left    int // records left in this section
}

// readRecords starts behind the questions. ok is false when they cannot be
// followed.
func readRecords(msg []byte) (w records, ok bool) {
	if len(msg) < HeaderLen {
		return w, false
	}
	off := HeaderLen
	for n := int(be.Uint16(msg[4:])); n > 0; n-- {
		if off = skipName(msg, off); off < 0 || off+4 > len(msg) {
			return w, false
		}
		off += 4
	}
	return records{msg: msg, off: off}, true
}

// next returns the next record; ok is false behind the last one and at the
// first that cannot be followed. done tells the two apart.
func (w *records) next() (r record, ok bool) {
	for w.left == 0 {
		if w.section == 3 {
			return r, false
		}
		w.section++
		w.left = int(be.Uint16(w.msg[4+2*w.section:]))
	}
	end := skipName(w.msg, w.off)
	if end < 0 || end+10 > len(w.msg) {
		return r, false
	}
	r = record{
		section: w.section, name: w.off,
		typ: be.Uint16(w.msg[end:]), class: be.Uint16(w.msg[end+2:]),
		ttl: end + 4, data: end + 10, end: end + 10 + int(be.Uint16(w.msg[end+8:])),
		ownerIsRoot: end == w.off+1,
	}
	if r.end > len(w.msg) {
		return r, false
	}
	w.off = r.end
	w.left--
	return r, true
}

// done reports whether all records the header promises were read.
func (w *records) done() bool { return w.section == 3 && w.left == 0 }

// findOPT returns the first OPT of the additional section.
func findOPT(msg []byte) (record, bool) {
	if len(msg) < HeaderLen || be.Uint16(msg[10:]) == 0 {
		return record{}, false
	}
	w, ok := readRecords(msg)
	if !ok {
		return record{}, false
	}
	for r, ok := w.next(); ok; r, ok = w.next() {
		if r.section == 3 && r.typ == TypeOPT && r.ownerIsRoot {
			return r, true
		}
	}
	return record{}, false
}
