package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// What iptables-nft writes is partly no expression of nf_tables, but a match or
// target of x_tables, as a structure of linux/netfilter/xt_*.h in the machine's
// order.

// xtTarget is what a target of x_tables does with a packet.
func xtTarget(name string) ruling {
	switch name {
	case "REJECT", "DROP":
		return ruling{code: verdictDrop}
	case "NFQUEUE", "TPROXY", "SYNPROXY":
		return ruling{code: verdictQueue}
	}
	return ruling{code: verdictContinue} // it logs, marks, counts
}

// xtMatch reports whether a match of x_tables takes the packet.
func (v visit) xtMatch(name string, revision uint32, info []byte) answer {
	e := binary.NativeEndian
	switch {
	case name == "comment" || name == "limit":
		return yes
	case name == "conntrack" && revision >= 2 && len(info) >= 154:
		return v.xtConntrack(e.Uint16(info[146:]), e.Uint16(info[148:]), uint32(e.Uint16(info[150:])), uint32(e.Uint16(info[152:])))
	case name == "state" && len(info) >= 4:
		return answered(e.Uint32(info)&v.xtState() != 0)
	case name == "udp" && len(info) >= 9:
		if v.protocol != unix.IPPROTO_UDP {
			return no
		}
		return v.xtPorts(info, info[8])
	case name == "tcp" && len(info) >= 12:
		const syn = 0x02
		switch option, mask, flags, invert := info[8], info[9], info[10], info[11]; {
		case v.protocol != unix.IPPROTO_TCP:
			return no
		case option != 0:
			return maybe
		case mask != 0 && (syn&mask == flags) == (invert&4 != 0): // XT_TCP_INV_FLAGS
			return no
		default:
			return v.xtPorts(info, invert)
		}
	case name == "multiport" && revision == 1 && len(info) >= 48:
		return v.xtMultiport(info)
	case name == "addrtype" && revision == 1 && len(info) >= 8:
		return v.xtAddrType(e.Uint16(info), e.Uint16(info[2:]), e.Uint32(info[4:]))
	}
	return maybe
}

// Bits of x_tables for what a flow is.
const (
	xtNew       = 1 << 3
	xtDNAT      = 1 << 7
	xtUntracked = 1 << 8
	// xtStateUntracked is xtUntracked in xt_state.h.
	xtStateUntracked = 1 << 6
)

func (v visit) xtState() uint32 {
	if v.state == stateUntracked {
		return xtStateUntracked
	}
	return xtNew
}

func (v visit) xtConntrack(match, invert uint16, states, statuses uint32) answer {
	const state, status = 1 << 0, 1 << 6 // XT_CONNTRACK_STATE, XT_CONNTRACK_STATUS
	if match&^(state|status) != 0 {
		return maybe
	}
	if match&state != 0 {
		is := uint32(xtNew)
		if v.state == stateUntracked {
			is = xtUntracked
		}
		if v.status&statusDNAT != 0 {
			is |= xtDNAT
		}
		if (states&is != 0) == (invert&state != 0) {
			return no
		}
	}
	if match&status != 0 {
		if v.state == stateUntracked || (statuses&v.status != 0) == (invert&status != 0) {
			return no
		}
	}
	return yes
}

// xtPorts compares the ports at the head of xt_udp and xt_tcp.
func (v visit) xtPorts(info []byte, invert byte) answer {
	e := binary.NativeEndian
	from := e.Uint16(info) <= clientPort && clientPort <= e.Uint16(info[2:])
	to := e.Uint16(info[4:]) <= v.port && v.port <= e.Uint16(info[6:])
	return answered(from != (invert&1 != 0) && to != (invert&2 != 0)) // XT_UDP_INV_SRCPT, XT_UDP_INV_DSTPT
}

func (v visit) xtMultiport(info []byte) answer {
	const ofDestination = 1 // XT_MULTIPORT_DESTINATION
	const most = 15         // XT_MULTI_PORTS
	e := binary.NativeEndian
	if info[0] != ofDestination || info[1] > most {
		return maybe
	}
	found := false
	for i := 0; i < int(info[1]); i++ {
		first := e.Uint16(info[2+2*i:])
		last := first
		if info[32+i] != 0 && i+1 < most {
			i++
			last = e.Uint16(info[2+2*i:])
		}
		found = found || first <= v.port && v.port <= last
	}
	return answered(found != (info[47] != 0))
}

func (v visit) xtAddrType(source, destination uint16, flags uint32) answer {
	const notSource, notDestination, known = 1, 2, 3
	const unicast, inHost = 1 << 1, 1 << 2 // 1 << RTN_UNICAST, 1 << RTN_LOCAL
	if flags&^known != 0 {
		return maybe
	}
	to := uint16(unicast)
	if v.local {
		to = inHost
	}
	if source != 0 && (source&unicast != 0) == (flags&notSource != 0) || destination != 0 && (destination&to != 0) == (flags&notDestination != 0) {
		return no
	}
	return yes
}
