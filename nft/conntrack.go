package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Numbers of ctnetlink that x/sys does not name.
const (
	ctNew    = 0 // IPCTNL_MSG_CT_NEW
	ctGet    = 1 // IPCTNL_MSG_CT_GET
	ctDelete = 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoinfo  = 4
	ctaTimeout    = 7
	ctaMark       = 8
	ctaMarkMask   = 21
	ctaStatusMask = 26

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaIPv4Src    = 1
	ctaIPv4Dst    = 2
	ctaIPv6Src    = 3
	ctaIPv6Dst    = 4
	ctaProtoNum   = 1
	ctaProtoSport = 2
	ctaProtoDport = 3

	ctaProtoinfoTCP   = 1
	ctaTCPState       = 1
	ctaTCPFlagsOrig   = 4
	ctaTCPFlagsReply  = 5
	tcpEstablished    = 3    // TCP_CONNTRACK_ESTABLISHED
	tcpBeLiberal      = 0x08 // IP_CT_TCP_FLAG_BE_LIBERAL
	statusSeenReply   = 1 << 1
	statusAssured     = 1 << 2
	statusConfirmed   = 1 << 3
	statusSourceNAT   = 1 << 4
	establishedExpiry = 5 * 24 * 60 * 60 // the kernel's default, in seconds
)

// deleteFlows ends the conntrack entries whose mark has that value under mask.
// The next packet of such a flow looks like that of a new one.
func deleteFlows(c *conn, mark, mask uint32) error {
	var m messages
	err := c.request(&m, func(m *messages) {
		m.begin(unix.NFNL_SUBSYS_CTNETLINK<<8|ctDelete, unix.NLM_F_ACK, unix.AF_UNSPEC, 0)
		m.u32(ctaMark, mark)
		m.u32(ctaMarkMask, mask)
		m.end()
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// whichFlows selects conntrack entries.
type whichFlows struct {
	mark, mask uint32 // the mark under the mask; a mask of 0 takes every mark
	unanswered bool   // only those that nobody has answered yet
}

// has reports whether an entry is meant. Old kernels ignore parts of the
// question.
func (w whichFlows) has(mark, status uint32) bool {
	return mark&w.mask == w.mark && (!w.unanswered || status&statusSeenReply == 0)
}

// ask writes the question.
func (w whichFlows) ask(m *messages) {
	m.begin(unix.NFNL_SUBSYS_CTNETLINK<<8|ctGet, unix.NLM_F_DUMP, unix.AF_UNSPEC, 0)
	if w.mask != 0 {
		m.u32(ctaMark, w.mark)
		m.u32(ctaMarkMask, w.mask)
	}
	if w.unanswered {
		m.u32(ctaStatus, 0)
		m.u32(ctaStatusMask, statusSeenReply)
	}
	m.end()
}

// turnFlows gives flows another value of the field. decide says which value one
// should have, ok = false for "as it is". It returns how many it turned.
//
// An entry that was deleted instead would come back as a flow from outside if
// the other end is the first to send, and be answered the way it came. Where
// somebody translated the source that cannot be, and a translation would outlive
// the turn: such entries are deleted. So are those that nobody has answered:
// their next packet is that of a new flow.
func turnFlows(c *conn, which whichFlows, field uint32, decide func(Flow) (value uint32, ok bool)) (n int, err error) {
	type entry struct {
		family  byte
		tuple   []byte // CTA_TUPLE_ORIG
		value   uint32
		deleted bool
	}
	var m messages
	var found []entry
	err = c.dump(&m, which.ask, func(_ uint16, b []byte) error {
		if len(b) < genLen {
			return nil
		}
		mark, status := be32(find(b[genLen:], ctaMark)), be32(find(b[genLen:], ctaStatus))
		original := find(b[genLen:], ctaTupleOrig)
		from, ok := source(original)
		to, answers := source(find(b[genLen:], ctaTupleReply))
		if !ok || !answers || !which.has(mark, status) {
			return nil
		}
		if value, ok := decide(Flow{from, to, mark & field}); ok && value != mark&field {
			found = append(found, entry{b[0], slices.Clone(original), value, which.unanswered || status&statusSourceNAT != 0})
		}
		return nil
	})
	if err != nil && err != errInterrupted {
		return 0, err
	}
	for _, e := range found {
		err := c.request(&m, func(m *messages) {
			typ := uint16(ctNew)
			if e.deleted {
				typ = ctDelete
			}
			m.begin(unix.NFNL_SUBSYS_CTNETLINK<<8|typ, unix.NLM_F_ACK, e.family, 0)
			m.bytes(ctaTupleOrig|nestedBit, e.tuple)
			m.u32(ctaMark, e.value)
			m.u32(ctaMarkMask, field)
			m.end()
		})
		switch {
		case err == nil:
			n++
		case !errors.Is(err, unix.ENOENT):
			return n, err
		}
	}
	return n, nil
}

// source returns where packets of a direction come from. Those of replies come
// from where the flow leads after all translations, as the rules see it.
func source(tuple []byte) (netip.Addr, bool) {
	ip := find(tuple, ctaTupleIP)
	if a, ok := netip.AddrFromSlice(find(ip, ctaIPv4Src)); ok {
		return a, true
	}
	return netip.AddrFromSlice(find(ip, ctaIPv6Src))
}

// connection is a TCP connection of this host.
type connection struct {
	local, remote netip.AddrPort
}

// track gives each connection an entry with the mark, unless it has one. It
// returns how many got one, and the first error of those that did not.
func track(c *conn, connections []connection, mark uint32) (n int, first error) {
	var m messages
	for _, tcp := range connections {
		err := c.request(&m, func(m *messages) { newEntry(m, tcp, mark) })
		switch {
		case err == nil:
			n++
		case first == nil && !errors.Is(err, unix.EEXIST):
			first = fmt.Errorf("tracking the connection %s to %s: %w", tcp.local, tcp.remote, err)
		}
	}
	return n, first
}

// newEntry describes an established connection. Its sequence numbers are not
// known, so the entry takes any.
func newEntry(m *messages, c connection, mark uint32) {
	family := byte(unix.AF_INET6)
	if c.local.Addr().Is4() {
		family = unix.AF_INET
	}
	m.begin(unix.NFNL_SUBSYS_CTNETLINK<<8|ctNew, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, family, 0)
	tuple(m, ctaTupleOrig, c.local, c.remote)
	tuple(m, ctaTupleReply, c.remote, c.local)
	m.u32(ctaStatus, statusSeenReply|statusAssured|statusConfirmed)
	m.u32(ctaTimeout, establishedExpiry)
	m.u32(ctaMark, mark)
	info := m.nest(ctaProtoinfo)
	tcp := m.nest(ctaProtoinfoTCP)
	m.bytes(ctaTCPState, []byte{tcpEstablished})
	m.bytes(ctaTCPFlagsOrig, []byte{tcpBeLiberal, tcpBeLiberal})
	m.bytes(ctaTCPFlagsReply, []byte{tcpBeLiberal, tcpBeLiberal})
	m.close(tcp)
	m.close(info)
	m.end()
}

func tuple(m *messages, typ uint16, src, dst netip.AddrPort) {
	t := m.nest(typ)
	ip := m.nest(ctaTupleIP)
	if src.Addr().Is4() {
		m.bytes(ctaIPv4Src, src.Addr().AsSlice())
		m.bytes(ctaIPv4Dst, dst.Addr().AsSlice())
	} else {
		m.bytes(ctaIPv6Src, src.Addr().AsSlice())
		m.bytes(ctaIPv6Dst, dst.Addr().AsSlice())
	}
	m.close(ip)
	proto := m.nest(ctaTupleProto)
	m.bytes(ctaProtoNum, []byte{unix.IPPROTO_TCP})
	m.bytes(ctaProtoSport, port(src.Port()))
	m.bytes(ctaProtoDport, port(dst.Port()))
	m.close(proto)
	m.close(t)
}
