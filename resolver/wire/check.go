package wire

import "errors"

// What CheckReply finds wrong.
var (
	errRunt      = errors.New("message is shorter than a header")
	errQuestions = errors.New("message has more than one question")
	errQuestion  = errors.New("question is broken")
	errTooMany   = errors.New("message has more than 256 records")
	errCounts    = errors.New("header counts more records than there are")
	errTrailing  = errors.New("octets behind the last record")
	errOwner     = errors.New("owner name is broken")
	errData      = errors.New("record data do not fit their type")
	errOPT       = errors.New("OPT record is broken, doubled or out of place")
)

// maxHosts bounds the names within one record of the types that hold a list
// of names.
const maxHosts = 16

// CheckReply reports why a packed reply must not be unpacked, nil when it may
// be. It walks every record: the header's counts must be the records present,
// at most 256, with nothing behind them; every name, also those inside the
// data of known types, must lie within the message and its pointers lead
// strictly backwards; the data of known types must have their type's form; an
// OPT may stand once, at the root, in the additional section. Its time is
// linear in the message's length, and it never allocates.
func CheckReply(msg []byte) error {
	if len(msg) < HeaderLen {
		return errRunt
	}
	questions := be.Uint16(msg[4:])
	if questions > 1 {
		return errQuestions
	}
	total := 0
	for off := 6; off < HeaderLen; off += 2 {
		total += int(be.Uint16(msg[off:]))
	}
	if total > MaxRecords {
		return errTooMany
	}
	w := records{msg: msg, off: HeaderLen}
	if questions == 1 {
		question := Question(msg)
		if question == nil {
			return errQuestion
		}
		w.off += len(question)
	}
	seenOPT := false
	for r, ok := w.next(); ok; r, ok = w.next() {
		if checkName(msg, r.name) < 0 {
			return errOwner
		}
		if r.typ == TypeOPT {
			if seenOPT || r.section != 3 || !r.ownerIsRoot || !optionsParse(msg[r.data:r.end], MaxRecords) {
				return errOPT
			}
			seenOPT = true
			continue
		}
		if !checkData(msg[:r.end], r) {
			return errData
		}
	}
	switch {
	case !w.done():
		return errCounts
	case w.off != len(msg):
		return errTrailing
	}
	return nil
}

// layout describes the data of a record type: n a name, N one that must not be
// compressed (RFC 3597 section 4, RFC 4034 sections 3.1.7 and 4.1.1, RFC 9460
// section 2.2) and is passed on as it lies, 1 2 4 6 (sixteen)
// octets, s a character string, S one or more of them, * anything, H a list of
// host names, P service parameters. Types without a layout are opaque.
func layout(typ uint16) string {
	switch typ {
	case TypeA:
		return "4"
	case TypeAAAA:
		return "6"
	case TypeNS, 3, 4, TypeCNAME, 7, 8, 9, TypePTR, 39: // MD MF MB MG MR DNAME
		return "n"
	case 23: // NSAP-PTR
		return "N"
	case TypeSOA:
		return "nn44444"
	case 14, 17: // MINFO RP
		return "nn"
	case 58: // TALINK
		return "NN"
	case 15, 18, 21, 36: // MX AFSDB RT KX
		return "2n"
	case 107: // LP
		return "2N"
	case 26: // PX
		return "2nn"
	case 33: // SRV
		return "222n"
	case 35: // NAPTR
		return "22sssn"
	case 13: // HINFO
		return "ss"
	case TypeTXT, 56, 99, 258: // NINFO SPF AVC
		return "S"
	case TypeSIG:
		return "2114442n*"
	case TypeRRSIG:
		return "2114442N*"
	case 25, TypeDNSKEY, 60, TypeDS, 59, 32769: // KEY CDNSKEY CDS DLV
		return "211*"
	case 47: // NSEC
		return "N*"
	case 55: // HIP
		return "H"
	case TypeSVCB, TypeHTTPS:
		return "2NP"
	}
	return "*"
}

// checkData reports whether the data of r have their type's form. msg ends
// where r does; names may point before it.
func checkData(msg []byte, r record) bool {
	off := r.data
	form := layout(r.typ)
	for i := range len(form) {
		switch form[i] {
		case '*':
			return true
		case 'n':
			off = checkName(msg, off)
		case 'N':
			off = plainName(msg, off)
		case '1', '2', '4':
			off += int(form[i] - '0')
		case '6':
			off += 16
		case 's':
			off = skipString(msg, off)
		case 'S':
			for first := true; first || off >= 0 && off < len(msg); first = false {
				off = skipString(msg, off)
			}
		case 'H':
			return checkHIP(msg, off)
		case 'P':
			return checkParams(msg[off:])
		}
		if off < 0 || off > len(msg) {
			return false
		}
	}
	return off == len(msg)
}

// skipString returns the offset behind the character string at off, or -1.
func skipString(msg []byte, off int) int {
	if off < 0 || off >= len(msg) {
		return -1
	}
	return off + 1 + int(msg[off])
}

// checkHIP bounds the rendezvous servers of a HIP record (RFC 8005 section 5):
// 64 KiB of them would unpack into 34 MiB.
func checkHIP(msg []byte, off int) bool {
	if off+4 > len(msg) {
		return false
	}
	off += 4 + int(msg[off]) + int(be.Uint16(msg[off+2:]))
	for n := 0; off != len(msg); n++ {
		if n == maxHosts || off > len(msg) {
			return false
		}
		if off = plainName(msg, off); off < 0 {
			return false
		}
	}
	return true
}

// checkParams reports whether b is a list of service parameters in ascending
// order of their keys, with address hints that hold whole addresses (RFC 9460
// sections 2.2 and 7.3).
func checkParams(b []byte) bool {
	for last := -1; len(b) > 0; {
		if len(b) < 4 {
			return false
		}
		key, size := int(be.Uint16(b)), int(be.Uint16(b[2:]))
		if key <= last || 4+size > len(b) {
			return false
		}
		if key == 4 && (size == 0 || size%4 != 0) || key == 6 && (size == 0 || size%16 != 0) {
			return false
		}
		last, b = key, b[4+size:]
	}
	return true
}
