package nft

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// expression evaluates one expression of nf_tables: what it says, and whether
// the rule still matches.
func (w *walker) expression(regs *registers, name string, data []byte) (ruling, answer) {
	next := ruling{code: verdictContinue}
	switch name {
	case "counter", "log", "notrack", "objref", "dynset", "masq", "comment", "last":
		return next, yes
	case "meta":
		if find(data, unix.NFTA_META_SREG) == nil {
			regs.store(be32(find(data, unix.NFTA_META_DREG)), w.visit.meta(be32(find(data, unix.NFTA_META_KEY))))
		}
	case "payload":
		if find(data, unix.NFTA_PAYLOAD_SREG) == nil {
			regs.store(be32(find(data, unix.NFTA_PAYLOAD_DREG)), w.visit.payload(data))
		}
	case "ct":
		if find(data, unix.NFTA_CT_SREG) == nil {
			regs.store(be32(find(data, unix.NFTA_CT_DREG)), w.visit.flow(be32(find(data, unix.NFTA_CT_KEY))))
		}
	case "fib":
		regs.store(be32(find(data, unix.NFTA_FIB_DREG)), w.visit.route(be32(find(data, unix.NFTA_FIB_RESULT)), be32(find(data, unix.NFTA_FIB_FLAGS))))
	case "immediate":
		value := find(data, unix.NFTA_IMMEDIATE_DATA)
		if be32(find(data, unix.NFTA_IMMEDIATE_DREG)) == unix.NFT_REG_VERDICT {
			return verdictIn(value), yes
		}
		regs.store(be32(find(data, unix.NFTA_IMMEDIATE_DREG)), find(value, unix.NFTA_DATA_VALUE))
	case "bitwise":
		regs.bitwise(data)
	case "cmp":
		return next, regs.compare(data)
	case "range":
		return next, regs.between(data)
	case "lookup":
		return w.lookup(regs, data)
	case "limit":
		const over = 1 // NFT_LIMIT_F_INV
		return next, answered(be32(find(data, unix.NFTA_LIMIT_FLAGS))&over == 0)
	case "reject":
		return ruling{code: verdictDrop}, yes
	case "queue":
		return ruling{code: verdictQueue}, yes
	case "match":
		return next, w.visit.xtMatch(text(find(data, unix.NFTA_MATCH_NAME)), be32(find(data, unix.NFTA_MATCH_REV)), find(data, unix.NFTA_MATCH_INFO))
	case "target":
		return xtTarget(text(find(data, unix.NFTA_TARGET_NAME))), yes
	default:
		*regs = registers{}
		return next, maybe
	}
	return next, yes
}

func verdictIn(data []byte) ruling {
	v := find(data, unix.NFTA_DATA_VERDICT)
	return ruling{code: int32(be32(find(v, unix.NFTA_VERDICT_CODE))), chain: text(find(v, unix.NFTA_VERDICT_CHAIN))}
}

// lookup asks a set about the key in a register.
func (w *walker) lookup(regs *registers, data []byte) (ruling, answer) {
	next := ruling{code: verdictContinue}
	const inverted = 1 // NFT_LOOKUP_F_INV
	set := text(find(data, unix.NFTA_LOOKUP_SET))
	source := be32(find(data, unix.NFTA_LOOKUP_SREG))
	dreg := find(data, unix.NFTA_LOOKUP_DREG)
	key, ok := regs.load(source, w.base.keys[set])
	found, match := []byte(nil), maybe
	if ok {
		found, match = w.member(set, key)
	}
	if be32(find(data, unix.NFTA_LOOKUP_FLAGS))&inverted != 0 {
		return next, yes + no - match
	}
	switch {
	case dreg == nil || match == no:
	case be32(dreg) != unix.NFT_REG_VERDICT:
		regs.store(be32(dreg), find(found, unix.NFTA_DATA_VALUE))
	case match == yes:
		return verdictIn(found), yes
	default: // some verdict, and nobody knows which
		w.unsure = true
	}
	return next, match
}

func (r *registers) bitwise(data []byte) {
	n := int(be32(find(data, unix.NFTA_BITWISE_LEN)))
	to := be32(find(data, unix.NFTA_BITWISE_DREG))
	mask, xor := find(find(data, unix.NFTA_BITWISE_MASK), unix.NFTA_DATA_VALUE), find(find(data, unix.NFTA_BITWISE_XOR), unix.NFTA_DATA_VALUE)
	v, ok := r.load(be32(find(data, unix.NFTA_BITWISE_SREG)), n)
	if !ok || len(mask) < n || len(xor) < n {
		r.store(to, nil)
		return
	}
	out := make([]byte, n)
	for i := range out {
		out[i] = v[i]&mask[i] ^ xor[i]
	}
	r.store(to, out)
}

func (r *registers) compare(data []byte) answer {
	want := find(find(data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
	have, ok := r.load(be32(find(data, unix.NFTA_CMP_SREG)), len(want))
	if !ok {
		return maybe
	}
	c := bytes.Compare(have, want)
	switch be32(find(data, unix.NFTA_CMP_OP)) {
	case unix.NFT_CMP_EQ:
		return answered(c == 0)
	case unix.NFT_CMP_NEQ:
		return answered(c != 0)
	case unix.NFT_CMP_LT:
		return answered(c < 0)
	case unix.NFT_CMP_LTE:
		return answered(c <= 0)
	case unix.NFT_CMP_GT:
		return answered(c > 0)
	case unix.NFT_CMP_GTE:
		return answered(c >= 0)
	}
	return maybe
}

func (r *registers) between(data []byte) answer {
	from, to := find(find(data, unix.NFTA_RANGE_FROM_DATA), unix.NFTA_DATA_VALUE), find(find(data, unix.NFTA_RANGE_TO_DATA), unix.NFTA_DATA_VALUE)
	have, ok := r.load(be32(find(data, unix.NFTA_RANGE_SREG)), len(from))
	if !ok || len(to) != len(from) {
		return maybe
	}
	inside := bytes.Compare(from, have) <= 0 && bytes.Compare(have, to) <= 0
	return answered(inside == (be32(find(data, unix.NFTA_RANGE_OP)) == unix.NFT_RANGE_EQ))
}

// The methods of visit return nil for what is not known.

func (v visit) meta(key uint32) []byte {
	const ethIPv4, ethIPv6 = 0x0800, 0x86dd
	switch key {
	case unix.NFT_META_IIFNAME:
		return v.in.label()
	case unix.NFT_META_OIFNAME:
		return v.out.label()
	case unix.NFT_META_IIF:
		return v.in.number()
	case unix.NFT_META_OIF:
		return v.out.number()
	case unix.NFT_META_L4PROTO:
		return []byte{v.protocol}
	case unix.NFT_META_NFPROTO:
		return []byte{v.family}
	case unix.NFT_META_PROTOCOL:
		if v.family == unix.NFPROTO_IPV4 {
			return binary.BigEndian.AppendUint16(nil, ethIPv4)
		}
		return binary.BigEndian.AppendUint16(nil, ethIPv6)
	case unix.NFT_META_PKTTYPE:
		return []byte{unix.PACKET_HOST}
	}
	return nil
}

func (d device) label() []byte {
	if d.name == "" {
		return nil
	}
	return append([]byte(d.name), make([]byte, max(unix.IFNAMSIZ-len(d.name), 0))...)
}

func (d device) number() []byte {
	if d.index == 0 {
		return nil
	}
	return binary.NativeEndian.AppendUint32(nil, uint32(d.index))
}

func (v visit) payload(data []byte) []byte {
	at, n := int(be32(find(data, unix.NFTA_PAYLOAD_OFFSET))), int(be32(find(data, unix.NFTA_PAYLOAD_LEN)))
	is := func(offset, length int) bool { return at == offset && n > 0 && n <= length }
	switch be32(find(data, unix.NFTA_PAYLOAD_BASE)) {
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		from, to, proto, size := 12, 16, 9, 4
		if v.family == unix.NFPROTO_IPV6 {
			from, to, proto, size = 8, 24, 6, 16
		}
		switch {
		case is(from, size) && v.from.IsValid():
			return v.from.AsSlice()[:n]
		case is(to, size) && v.to.IsValid():
			return v.to.AsSlice()[:n]
		case is(proto, 1):
			return []byte{v.protocol}
		}
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		const syn = 0x02
		switch ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, clientPort), v.port); {
		case n > 0 && at >= 0 && at+n <= len(ports):
			return ports[at : at+n]
		case is(13, 1) && v.protocol == unix.IPPROTO_TCP:
			return []byte{syn}
		}
	}
	return nil
}

func (v visit) flow(key uint32) []byte {
	switch key {
	case unix.NFT_CT_STATE:
		return binary.NativeEndian.AppendUint32(nil, v.state)
	case unix.NFT_CT_DIRECTION:
		return []byte{0}
	case unix.NFT_CT_STATUS:
		return binary.NativeEndian.AppendUint32(nil, v.status)
	case unix.NFT_CT_PROTOCOL:
		return []byte{v.protocol}
	}
	return nil
}

// route is what the kernel's routes say of its addresses.
func (v visit) route(result, flags uint32) []byte {
	const unicast, inHost = 1, 2 // RTN_UNICAST, RTN_LOCAL
	switch {
	case result != unix.NFT_FIB_RESULT_ADDRTYPE:
		return nil
	case flags&unix.NFTA_FIB_F_DADDR != 0 && v.local:
		return binary.NativeEndian.AppendUint32(nil, inHost)
	}
	return binary.NativeEndian.AppendUint32(nil, unicast)
}
