package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	headerLen = unix.SizeofNlMsghdr
	genLen    = 4 // struct nfgenmsg
	nestedBit = unix.NLA_F_NESTED
	typeMask  = 0x3fff // NLA_TYPE_MASK
)

// messages is a run of netlink messages being built. Building allocates only
// when the buffer has to grow.
type messages struct {
	table string // whose objects the messages are about; "" = TableName
	buf   []byte
	first uint32 // sequence number of the first message
	n     uint32 // messages in buf
	open  int    // offset of the message being built
}

// name is that of the table.
func (m *messages) name() string {
	if m.table == "" {
		return TableName
	}
	return m.table
}

// reset empties m; its next message gets the sequence number first.
func (m *messages) reset(first uint32) { m.buf, m.first, m.n = m.buf[:0], first, 0 }

// begin starts a message of nfnetlink.
func (m *messages) begin(typ, flags uint16, family byte, resource uint16) {
	m.open = len(m.buf)
	b := binary.NativeEndian.AppendUint32(m.buf, 0) // length: see end
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, m.first+m.n)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, unix.NFNETLINK_V0)
	m.buf = binary.BigEndian.AppendUint16(b, resource)
	m.n++
}

// end finishes the message that begin started.
func (m *messages) end() {
	binary.NativeEndian.PutUint32(m.buf[m.open:], uint32(len(m.buf)-m.open))
}

// nft starts a message about our table.
func (m *messages) nft(typ, flags uint16) {
	m.begin(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, unix.NFPROTO_INET, 0)
}

// attr starts an attribute and returns where, for close.
func (m *messages) attr(typ uint16) int {
	at := len(m.buf)
	b := binary.NativeEndian.AppendUint16(m.buf, 0)
	m.buf = binary.NativeEndian.AppendUint16(b, typ)
	return at
}

func (m *messages) nest(typ uint16) int { return m.attr(typ | nestedBit) }

func (m *messages) close(at int) {
	binary.NativeEndian.PutUint16(m.buf[at:], uint16(len(m.buf)-at))
	for len(m.buf)%unix.NLA_ALIGNTO != 0 {
		m.buf = append(m.buf, 0)
	}
}

func (m *messages) bytes(typ uint16, v []byte) {
	at := m.attr(typ)
	m.buf = append(m.buf, v...)
	m.close(at)
}

// str writes v with the zero byte that ends strings of nftables.
func (m *messages) str(typ uint16, v string) {
	at := m.attr(typ)
	m.buf = append(append(m.buf, v...), 0)
	m.close(at)
}

func (m *messages) u32(typ uint16, v uint32) {
	at := m.attr(typ)
	m.buf = binary.BigEndian.AppendUint32(m.buf, v)
	m.close(at)
}

func (m *messages) u64(typ uint16, v uint64) {
	at := m.attr(typ)
	m.buf = binary.BigEndian.AppendUint64(m.buf, v)
	m.close(at)
}

// batchBegin and batchEnd enclose one transaction.
func (m *messages) batchBegin() {
	m.begin(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	m.end()
}

// batchEnd asks for the acknowledgement of the message before it: whoever has
// that one knows the fate of the whole transaction.
func (m *messages) batchEnd() {
	flags := binary.NativeEndian.Uint16(m.buf[m.open+6:])
	binary.NativeEndian.PutUint16(m.buf[m.open+6:], flags|unix.NLM_F_ACK)
	m.begin(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	m.end()
}

// attributes calls f for each attribute in b until f returns false. It reports
// whether b was well-formed as far as it was read.
func attributes(b []byte, f func(typ uint16, v []byte) bool) bool {
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return false
		}
		if !f(binary.NativeEndian.Uint16(b[2:])&typeMask, b[unix.SizeofNlAttr:n]) {
			return true
		}
		b = b[min(len(b), (n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
	return true
}

// find returns the value of the first attribute of that type, or nil.
func find(b []byte, typ uint16) (v []byte) {
	attributes(b, func(t uint16, value []byte) bool {
		if t == typ {
			v = value
		}
		return v == nil
	})
	return v
}

// text returns a string attribute without its final zero byte.
func text(v []byte) string {
	if n := len(v); n > 0 && v[n-1] == 0 {
		v = v[:n-1]
	}
	return string(v)
}

func be32(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

func be64(v []byte) uint64 {
	if len(v) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}
