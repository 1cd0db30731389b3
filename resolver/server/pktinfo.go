package server

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Layouts of struct in_pktinfo and struct in6_pktinfo (ip(7), ipv6(7)).
const (
	pktinfo4Len  = 12
	pktinfo4Spec = 4 // ipi_spec_dst: the local address; as a source when sending
	pktinfo4Dst  = 8 // ipi_addr: the packet's destination
	pktinfo6Len  = 20
)

// destination returns the address that a packet was sent to.
func destination(oob []byte) netip.Addr {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= pktinfo4Len:
			return netip.AddrFrom4([4]byte(data[pktinfo4Dst:]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= pktinfo6Len:
			return netip.AddrFrom16([16]byte(data))
		}
		oob = rest
	}
	return netip.Addr{}
}

// source turns the packet info of a query, in place, into that of its answer:
// the address that was asked becomes the source. The interface index is
// cleared for v4, so that routing decides the way back (an answer to a client
// behind another interface must not be forced out of the asked one); link-local
// v6 keeps it, as its address means nothing without.
func source(oob []byte) []byte {
	all := oob
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return nil
		}
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= pktinfo4Len:
			clear(data[:pktinfo4Spec])
			copy(data[pktinfo4Spec:pktinfo4Dst], data[pktinfo4Dst:pktinfo4Len])
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= pktinfo6Len:
			if a := netip.AddrFrom16([16]byte(data)); !a.IsLinkLocalUnicast() {
				clear(data[16:pktinfo6Len])
			}
		}
		oob = rest
	}
	return all
}
