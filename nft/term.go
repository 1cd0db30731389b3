package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// A term is one match or statement of a rule: its nft text, and the
// expressions that the kernel executes.
type term struct {
	text  string
	exprs []expr.Any
}

// reg is the only register our rules need.
const reg = unix.NFT_REG_1

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func port(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func equal(v []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: v} }

func unequal(v []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: v} }

func masked(mask, xor []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: xor}
}

func ifname(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}

// side is where a packet came in, or where it goes out.
type side struct {
	text string
	key  expr.MetaKey
}

func in() side  { return side{"iifname", expr.MetaKeyIIFNAME} }
func out() side { return side{"oifname", expr.MetaKeyOIFNAME} }

func (s side) load() expr.Any { return &expr.Meta{Key: s.key, Register: reg} }

func (s side) is(name string) term {
	return term{fmt.Sprintf("%s %q", s.text, name), []expr.Any{s.load(), equal(ifname(name))}}
}

func (s side) not(name string) term {
	return term{fmt.Sprintf("%s != %q", s.text, name), []expr.Any{s.load(), unequal(ifname(name))}}
}

func (s side) among(set string) term {
	return term{s.text + " @" + set, []expr.Any{s.load(), &expr.Lookup{SourceRegister: reg, SetName: set}}}
}

func (s side) outside(set string) term {
	return term{s.text + " != @" + set, []expr.Any{s.load(), &expr.Lookup{SourceRegister: reg, SetName: set, Invert: true}}}
}

// family is one of the two address families.
type family struct {
	text    string
	proto   byte
	suffix  string
	size    uint32
	src     uint32 // offset of the source address in the network header
	dst     uint32
	headers int // of IP and TCP, which do not count as segment
}

func v4() family { return family{"ip", unix.NFPROTO_IPV4, "_4", 4, 12, 16, 40} }
func v6() family { return family{"ip6", unix.NFPROTO_IPV6, "_6", 16, 8, 24, 60} }

func families() []family { return []family{v4(), v6()} }

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4()
	}
	return v6()
}

func (f family) name() string {
	if f.size == 4 {
		return "ipv4"
	}
	return "ipv6"
}

// only matches packets of the family.
func (f family) only() term {
	return term{"meta nfproto " + f.name(), f.exprs()}
}

func (f family) exprs() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, equal([]byte{f.proto})}
}

func (f family) addr(offset uint32) []expr.Any {
	return append(f.exprs(), &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.size})
}

func (f family) among(offset uint32, word, set string) term {
	return term{fmt.Sprintf("%s %s @%s", f.text, word, set), append(f.addr(offset), &expr.Lookup{SourceRegister: reg, SetName: set})}
}

// notTo matches destinations of the family outside of a set.
func (f family) notTo(set string) term {
	return term{fmt.Sprintf("%s daddr != @%s", f.text, set+f.suffix),
		append(f.addr(f.dst), &expr.Lookup{SourceRegister: reg, SetName: set + f.suffix, Invert: true})}
}

// to matches destinations in a set of the family, from sources.
func (f family) to(set string) term   { return f.among(f.dst, "daddr", set+f.suffix) }
func (f family) from(set string) term { return f.among(f.src, "saddr", set+f.suffix) }

func toPrefix(p netip.Prefix) term {
	f := familyOf(p.Addr())
	text, exprs := p.String(), f.addr(f.dst)
	if p.IsSingleIP() {
		text = p.Addr().String()
	} else {
		exprs = append(exprs, masked(prefixMask(p), make([]byte, f.size)))
	}
	return term{f.text + " daddr " + text, append(exprs, equal(p.Masked().Addr().AsSlice()))}
}

func fromAddr(a netip.Addr) term {
	f := familyOf(a)
	return term{f.text + " saddr " + a.String(), append(f.addr(f.src), equal(a.AsSlice()))}
}

func toAddr(a netip.Addr) term { return toPrefix(netip.PrefixFrom(a, a.BitLen())) }

func prefixMask(p netip.Prefix) []byte {
	mask := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// addrType is the kernel's word for what an address is to this host.
type addrType struct {
	text  string
	value uint32
}

func local() addrType     { return addrType{"local", unix.RTN_LOCAL} }
func broadcast() addrType { return addrType{"broadcast", unix.RTN_BROADCAST} }

func toType(t addrType) term {
	return term{"fib daddr type " + t.text, []expr.Any{&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true}, equal(native(t.value))}}
}

func notFromType(t addrType) term {
	return term{"fib saddr type != " + t.text, []expr.Any{&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagSADDR: true}, unequal(native(t.value))}}
}

// marking is our field of the packet mark or of the flow's mark in conntrack.
type marking struct {
	text  string
	load  expr.Any
	store expr.Any
	field routing.Field
}

func packet(f routing.Field) marking {
	return marking{"meta mark", &expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true}, f}
}

func flow(f routing.Field) marking {
	return marking{"ct mark", &expr.Ct{Key: expr.CtKeyMARK, Register: reg},
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true}, f}
}

func (m marking) is(v uint32) term {
	return term{fmt.Sprintf("%s & 0x%08x == 0x%08x", m.text, uint32(m.field), v),
		[]expr.Any{m.load, masked(native(uint32(m.field)), native(0)), equal(native(v))}}
}

func (m marking) isNot(v uint32) term {
	return term{fmt.Sprintf("%s & 0x%08x != 0x%08x", m.text, uint32(m.field), v),
		[]expr.Any{m.load, masked(native(uint32(m.field)), native(0)), unequal(native(v))}}
}

// set writes v into our field and keeps the bits of others.
func (m marking) set(v uint32) term {
	rest := ^uint32(m.field)
	text := fmt.Sprintf("%s set %s & 0x%08x | 0x%08x", m.text, m.text, rest, v)
	if v == 0 {
		text = fmt.Sprintf("%s set %s & 0x%08x", m.text, m.text, rest)
	}
	return term{text, []expr.Any{m.load, masked(native(rest), native(v)), m.store}}
}

// ctState matches packets by what conntrack thinks of them.
func ctState(text string, bit uint32) term {
	return term{"ct state " + text, []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, masked(native(bit), native(0)), unequal(native(0))}}
}

func isNew() term     { return ctState("new", expr.CtStateBitNEW) }
func isInvalid() term { return ctState("invalid", expr.CtStateBitINVALID) }
func isKnown() term {
	return ctState("established,related", expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}
func isUntracked() term { return ctState("untracked", expr.CtStateBitUNTRACKED) }
func isReply() term {
	return term{"ct direction reply", []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, equal([]byte{1})}}
}

// Directions of a flow, and keys of conntrack that the library does not name.
const (
	original = 0 // IP_CT_DIR_ORIGINAL
	replying = 1

	ctKeyDSTIP  = 20 // NFT_CT_DST_IP
	ctKeyDSTIP6 = 22
)

// flowTo matches flows whose packets of that direction go to a.
func flowTo(direction uint32, a netip.Addr) term {
	f, word := familyOf(a), "original"
	if direction == replying {
		word = "reply"
	}
	key := expr.CtKey(ctKeyDSTIP)
	if f.size != 4 {
		key = ctKeyDSTIP6
	}
	return term{fmt.Sprintf("ct %s %s daddr %s", word, f.text, a),
		[]expr.Any{&expr.Ct{Key: key, Register: reg, Direction: direction}, equal(a.AsSlice())}}
}

// isUntranslated matches what the sender of a flow sends after the flow's first
// packet, if its source stays as it is: whoever translates does so at the first.
func isUntranslated() []term {
	return []term{
		{"ct direction original", []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, equal([]byte{original})}},
		{"ct status & (confirmed | snat) == confirmed", []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATUS, Register: reg}, masked(native(statusConfirmed|statusSourceNAT), native(0)), equal(native(statusConfirmed)),
		}},
	}
}

func isRelated() term { return ctState("related", expr.CtStateBitRELATED) }

// isForwardedPort matches flows whose destination somebody translated.
func isForwardedPort() term {
	const dstNAT = 1 << 5 // IPS_DST_NAT
	return term{"ct status dnat", []expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: reg}, masked(native(dstNAT), native(0)), unequal(native(0))}}
}

// protocol is a transport protocol.
type protocol struct {
	text  string
	value byte
}

func tcp() protocol { return protocol{"tcp", unix.IPPROTO_TCP} }
func udp() protocol { return protocol{"udp", unix.IPPROTO_UDP} }

func (p protocol) exprs() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, equal([]byte{p.value})}
}

func (p protocol) only() term { return term{"meta l4proto " + p.text, p.exprs()} }

func (p protocol) header(offset, size uint32) []expr.Any {
	return append(p.exprs(), &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: size})
}

func (p protocol) sport(n uint16) term {
	return term{fmt.Sprintf("%s sport %d", p.text, n), append(p.header(0, 2), equal(port(n)))}
}

func (p protocol) dport(n uint16) term {
	return term{fmt.Sprintf("%s dport %d", p.text, n), append(p.header(2, 2), equal(port(n)))}
}

// redirects match the messages by which a router says that there is a shorter
// way (RFC 792, RFC 4861 4.5).
func redirects() []term {
	icmp, icmp6 := protocol{"icmp", unix.IPPROTO_ICMP}, protocol{"icmpv6", unix.IPPROTO_ICMPV6}
	return []term{
		{"icmp type redirect", append(icmp.header(0, 1), equal([]byte{5}))},
		{"icmpv6 type nd-redirect", append(icmp6.header(0, 1), equal([]byte{137}))},
	}
}

const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// isSYN matches TCP segments that carry options about segment size: SYN and
// SYN+ACK.
func isSYN() term {
	return term{"tcp flags & (syn | rst) == syn", append(tcp().header(13, 1), masked([]byte{syn | rst}, []byte{0}), equal([]byte{syn}))}
}

// isStray matches TCP segments that do not begin a connection.
func isStray() term {
	return term{"tcp flags & (fin | syn | rst | ack) != syn",
		append(tcp().header(13, 1), masked([]byte{fin | syn | rst | ack}, []byte{0}), unequal([]byte{syn}))}
}

// Option and offset of the TCP maximum segment size.
const (
	optMSS    = 2
	offsetMSS = 2
	lenMSS    = 2
)

func storeMSS() expr.Any {
	return &expr.Exthdr{SourceRegister: reg, Type: optMSS, Offset: offsetMSS, Len: lenMSS, Op: expr.ExthdrOpTcpopt}
}

// clampToRoute lowers the segment size to what the route out carries.
func clampToRoute() term {
	return term{"tcp option maxseg size set rt mtu", []expr.Any{&expr.Rt{Register: reg, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: lenMSS, Size: lenMSS}, storeMSS()}}
}

func clampTo(n uint16) term {
	return term{fmt.Sprintf("tcp option maxseg size set %d", n), []expr.Any{&expr.Immediate{Register: reg, Data: port(n)}, storeMSS()}}
}

func verdict(text string, kind expr.VerdictKind) term {
	return term{text, []expr.Any{&expr.Verdict{Kind: kind}}}
}

func drop() term { return verdict("drop", expr.VerdictDrop) }
func ret() term  { return verdict("return", expr.VerdictReturn) }

func jump(chain string) term {
	return term{"jump " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

func goTo(chain string) term {
	return term{"goto " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}
}

// count adds to the counter of that name, which outlives the rule.
func count(name string) term {
	return term{fmt.Sprintf("counter name %q", name), []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}}}
}

func notrack() term { return term{"notrack", []expr.Any{&expr.Notrack{}}} }

func masquerade() term { return term{"masquerade", []expr.Any{&expr.Masq{}}} }

func redirect(n uint16) term {
	const protoSpecified = 1 << 1 // NF_NAT_RANGE_PROTO_SPECIFIED
	return term{fmt.Sprintf("redirect to :%d", n), []expr.Any{&expr.Immediate{Register: reg, Data: port(n)},
		&expr.Redir{RegisterProtoMin: reg, RegisterProtoMax: reg, Flags: protoSpecified}}}
}

// rejectTCP needs a match on TCP before it.
func rejectTCP() term {
	return term{"reject with tcp reset", []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}}
}

func reject() term {
	return term{"reject with icmpx admin-prohibited", []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}}
}

// A rule is what happens to the packets that pass all of its terms.
type rule struct {
	terms   []term
	comment string
}

func (r rule) String() string {
	var words []string
	for _, t := range r.terms {
		words = append(words, t.text)
	}
	if r.comment != "" {
		words = append(words, fmt.Sprintf("comment %q", r.comment))
	}
	return strings.Join(words, " ")
}
