package wire

// EDNS options that belong to a transport.
const (
	// OptionKeepalive asks for, or says, how long a TCP or TLS connection may
	// idle (RFC 7828).
	OptionKeepalive = 11
	// OptionPadding hides how long a message is (RFC 7830).
	OptionPadding = 12
)

// padBlock is the block that answers are padded to (RFC 8467 section 4.1).
const padBlock = 468

// MaxMessage is the size of the largest message over a stream (RFC 1035 section
// 4.2.2).
const MaxMessage = 0xffff

// AppendOption adds an EDNS option to the OPT record of msg, which must be its
// last record. A message without such an OPT, or without room below 64 KiB, is
// returned as it is.
func AppendOption(msg []byte, code uint16, value []byte) []byte {
	opt, ok := findOPT(msg)
	if !ok || opt.end != len(msg) || len(msg)+4+len(value) > MaxMessage {
		return msg
	}
	be.PutUint16(msg[opt.data-2:], uint16(opt.end-opt.data+4+len(value)))
	msg = be.AppendUint16(msg, code)
	msg = be.AppendUint16(msg, uint16(len(value)))
	return append(msg, value...)
}

// Pad adds a padding option to msg, as AppendOption does, so that its length
// is a multiple of 468 octets.
func Pad(msg []byte) []byte {
	var zeros [padBlock]byte
	n := (padBlock - (len(msg)+4)%padBlock) % padBlock
	return AppendOption(msg, OptionPadding, zeros[:min(n, max(0, MaxMessage-len(msg)-4))])
}
