package wire

// Action is what a listener does with a message.
type Action uint8

const (
	Accept Action = iota // resolve it
	Drop                 // say nothing
	Reply                // send AppendError with the rcode
)

// maxOptions is the largest number of EDNS options a query may carry.
const maxOptions = 64

// Query is a client's query as ParseQuery found it. Its slices alias the
// message.
type Query struct {
	Msg         []byte
	Question    []byte // name (wire form, case as sent), type, class; nil when it did not parse
	Type, Class uint16
	EDNS        EDNS
}

// EDNS is what a query's OPT record says (RFC 6891). Size is at least 512,
// also when there is no OPT.
type EDNS struct {
	Present bool
	Version uint8
	Size    uint16
	DO      bool
}

// ID returns the query's ID.
func (q Query) ID() uint16 { return ID(q.Msg) }

// RD reports whether the client asks for recursion.
func (q Query) RD() bool { return len(q.Msg) >= HeaderLen && q.Msg[2]&bitRD != 0 }

// CD reports whether the client asks not to have the answer validated.
func (q Query) CD() bool { return len(q.Msg) >= HeaderLen && q.Msg[3]&bitCD != 0 }

// AD reports whether the client wants to see the AD bit (RFC 6840 section 5.7).
func (q Query) AD() bool { return len(q.Msg) >= HeaderLen && q.Msg[3]&bitAD != 0 }

// Name returns the asked name in wire form, its case as sent; nil when the
// question did not parse.
func (q Query) Name() []byte {
	if len(q.Question) < 5 {
		return nil
	}
	end := len(q.Question) - 4
	return q.Question[:end:end]
}

// In returns q as it is in msg, a copy of its message.
func (q Query) In(msg []byte) Query {
	q.Msg = msg
	if q.Question != nil {
		q.Question = msg[HeaderLen:][:len(q.Question):len(q.Question)]
	}
	return q
}

// Options returns the packed EDNS options of the query, nil without an OPT.
func (q Query) Options() []byte {
	options, _, _ := Options(q.Msg)
	return options
}

// Limit returns the largest reply to send over UDP: what the client takes,
// and never more than MaxUDP.
func (q Query) Limit() int { return int(max(MinUDP, min(q.EDNS.Size, MaxUDP))) }

// ParseQuery is the accept function of every transport. It looks at the
// header's counts, the opcode, the question and the OPT record, and at
// nothing else:
//
//   - Drop: runts and messages with QR=1.
//   - NOTIMP: every opcode but QUERY; meta types but ANY.
//   - FORMERR: not exactly one question, a compressed or broken name, any
//     answer or authority record, more than two additional ones, any but OPT,
//     TSIG and SIG(0), an OPT that is not at the root, stands twice or whose
//     options do not parse or are more than 64, trailing octets, a client
//     subnet or a cookie that cannot be one.
//   - BADVERS: an EDNS version above 0.
//   - REFUSED: every class but IN, zone transfers, signed queries (nobody has
//     a key with us).
//
// The Query is filled in as far as the message could be followed, so that
// AppendError can answer it. It never allocates.
func ParseQuery(msg []byte) (q Query, action Action, rcode uint16) {
	q = Query{Msg: msg, EDNS: EDNS{Size: MinUDP}}
	if len(msg) < HeaderLen || msg[2]&bitQR != 0 {
		return q, Drop, 0
	}
	if msg[2]&opcodeBit != 0 {
		return q, Reply, NotImp
	}
	additional := be.Uint16(msg[10:])
	if q.Question = Question(msg); q.Question == nil {
		return q, Reply, FormErr
	}
	tail := msg[HeaderLen+len(q.Question)-4:]
	q.Type, q.Class = be.Uint16(tail), be.Uint16(tail[2:])
	if be.Uint32(msg[6:]) != 0 || additional > 2 {
		return q, Reply, FormErr
	}
	signed := false
	if rcode = q.readAdditional(int(additional), &signed); rcode != 0 {
		return q, Reply, rcode
	}
	switch {
	case q.EDNS.Version != 0:
		return q, Reply, BadVers
	case q.Class != ClassIN || signed:
		return q, Reply, Refused
	}
	if rcode = refuseType(q.Type); rcode != 0 {
		return q, Reply, rcode
	}
	return q, Accept, 0
}

// readAdditional reads the records behind the question.
func (q *Query) readAdditional(n int, signed *bool) (rcode uint16) {
	w := records{msg: q.Msg, off: HeaderLen + len(q.Question), section: 3, left: n}
	for r, ok := w.next(); ok; r, ok = w.next() {
		switch {
		case r.typ == TypeOPT:
			if q.EDNS.Present || !r.ownerIsRoot {
				return FormErr
			}
			ttl := q.Msg[r.ttl:]
			q.EDNS = EDNS{Present: true, Version: ttl[1], Size: max(r.class, MinUDP), DO: ttl[2]&doBit != 0}
			if q.EDNS.Version == 0 && !askedOptionsParse(q.Msg[r.data:r.end], maxOptions) {
				return FormErr
			}
		case r.typ == TypeTSIG || r.typ == TypeSIG:
			if *signed = true; w.left != 0 {
				return FormErr
			}
		default:
			return FormErr
		}
	}
	if !w.done() || w.off != len(q.Msg) {
		return FormErr
	}
	return 0
}

// refuseType returns the rcode for types that no client may ask (RFC 6895
// section 3.1), 0 for all others.
func refuseType(t uint16) uint16 {
	switch {
	case t == TypeAXFR || t == TypeIXFR:
		return Refused
	case t == TypeNXNAME: // RFC 9824 section 3.4
		return FormErr
	case t == 0 || t == TypeOPT || t > TypeNXNAME && t < TypeANY:
		return NotImp
	}
	return 0
}
