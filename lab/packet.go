package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Packet is one Ethernet frame as far as the lab looks into it.
type Packet struct {
	EtherType        uint16
	Proto            uint8 // after v6 extension headers; 0 when the frame is no IP
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16     // of TCP and UDP
	Flags            uint8      // of TCP
	Type, Code       uint8      // of ICMP
	Fragment         bool       // not the first of its datagram: no ports, no type
	Target           netip.Addr // whom an ARP request or a neighbour solicitation looks for
	Payload          []byte     // of UDP and TCP; of an ICMP error, the packet it quotes
}

const (
	ethHeader = 14
	etherIPv4 = unix.ETH_P_IP
	etherIPv6 = unix.ETH_P_IPV6
)

// parseFrame reads an Ethernet frame, which may be cut.
func parseFrame(b []byte) Packet {
	if len(b) < ethHeader {
		return Packet{}
	}
	p := parseIP(b[ethHeader:])
	p.EtherType = binary.BigEndian.Uint16(b[12:])
	if p.EtherType != etherIPv4 && p.EtherType != etherIPv6 {
		p = Packet{EtherType: p.EtherType}
		if p.EtherType == unix.ETH_P_ARP && len(b) >= ethHeader+28 && b[ethHeader+7] == 1 {
			p.Target = netip.AddrFrom4([4]byte(b[ethHeader+24:]))
		}
	}
	return p
}

// parseIP reads an IP packet, which may be cut.
func parseIP(b []byte) Packet {
	if len(b) < 20 {
		return Packet{}
	}
	switch b[0] >> 4 {
	case 4:
		hl := int(b[0]&15) * 4
		if hl < 20 || len(b) < hl {
			return Packet{}
		}
		p := Packet{EtherType: etherIPv4, Proto: b[9], Src: netip.AddrFrom4([4]byte(b[12:])), Dst: netip.AddrFrom4([4]byte(b[16:]))}
		p.Fragment = binary.BigEndian.Uint16(b[6:])&0x1fff != 0
		end := min(len(b), max(hl, int(binary.BigEndian.Uint16(b[2:])))) // Ethernet pads short packets
		p.transport(b[hl:end])
		return p
	case 6:
		if len(b) < 40 {
			return Packet{}
		}
		p := Packet{EtherType: etherIPv6, Proto: b[6], Src: netip.AddrFrom16([16]byte(b[8:])), Dst: netip.AddrFrom16([16]byte(b[24:]))}
		end := min(len(b), 40+int(binary.BigEndian.Uint16(b[4:])))
		p.transport(p.skipExtensions(b[40:end]))
		return p
	}
	return Packet{}
}

func (p *Packet) skipExtensions(b []byte) []byte {
	for len(b) >= 8 {
		n := 8
		switch p.Proto {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			n = 8 + int(b[1])*8
		case unix.IPPROTO_FRAGMENT:
			p.Fragment = binary.BigEndian.Uint16(b[2:])>>3 != 0
		default:
			return b
		}
		if n > len(b) {
			return nil
		}
		p.Proto, b = b[0], b[n:]
	}
	return b
}

func (p *Packet) transport(b []byte) {
	if p.Fragment || len(b) < 8 {
		return
	}
	switch p.Proto {
	case unix.IPPROTO_TCP:
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		if len(b) >= 20 {
			p.Flags = b[13]
			if off := int(b[12]>>4) * 4; off <= len(b) {
				p.Payload = b[off:]
			}
		}
	case unix.IPPROTO_UDP:
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		p.Payload = b[8:]
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		p.Type, p.Code = b[0], b[1]
		p.Payload = b[8:]
		if p.Proto == unix.IPPROTO_ICMPV6 && p.Type == 135 && len(p.Payload) >= 16 {
			p.Target = netip.AddrFrom16([16]byte(p.Payload))
		}
	}
}

// quoted returns the packet that an ICMP error is about.
func (p Packet) quoted() (Packet, bool) {
	switch {
	case p.Proto == unix.IPPROTO_ICMP && (p.Type == 3 || p.Type == 11 || p.Type == 12):
	case p.Proto == unix.IPPROTO_ICMPV6 && p.Type >= 1 && p.Type <= 4:
	default:
		return Packet{}, false
	}
	q := parseIP(p.Payload)
	return q, q.Proto != 0
}

// reversed returns p as its receiver would answer it.
func (p Packet) reversed() Packet {
	p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	return p
}

// from and to are the ends of p.
func (p Packet) from() netip.AddrPort { return netip.AddrPortFrom(p.Src, p.SrcPort) }
func (p Packet) to() netip.AddrPort   { return netip.AddrPortFrom(p.Dst, p.DstPort) }

// String prints p as "tcp 192.0.2.2:40000 > 93.184.216.34:443 SYN".
func (p Packet) String() string {
	if p.Target.IsValid() {
		return fmt.Sprintf("who has %s?", p.Target)
	}
	if p.Proto == 0 && !p.Src.IsValid() {
		return fmt.Sprintf("ethertype %#04x", p.EtherType)
	}
	switch p.Proto {
	case unix.IPPROTO_TCP:
		return fmt.Sprintf("tcp %s > %s %s", p.from(), p.to(), tcpFlags(p.Flags))
	case unix.IPPROTO_UDP:
		return fmt.Sprintf("udp %s > %s %s", p.from(), p.to(), p.udpDetail())
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		s := fmt.Sprintf("icmp %s > %s type %d code %d", p.Src, p.Dst, p.Type, p.Code)
		if q, ok := p.quoted(); ok {
			s += " about " + q.String()
		}
		return s
	}
	return fmt.Sprintf("protocol %d %s > %s", p.Proto, p.Src, p.Dst)
}

func (p Packet) udpDetail() string {
	if p.DstPort == 53 || p.SrcPort == 53 {
		if q, ok := firstQuestion(p.Payload); ok {
			return "dns " + q.Name + " " + dns.TypeToString[q.Qtype]
		}
	}
	return fmt.Sprintf("%d B", len(p.Payload))
}

// firstQuestion reads the question of a message that may be cut behind it.
func firstQuestion(b []byte) (dns.Question, bool) {
	if len(b) < 12 || binary.BigEndian.Uint16(b[4:]) == 0 {
		return dns.Question{}, false
	}
	name, off, err := dns.UnpackDomainName(b, 12)
	if err != nil || off+4 > len(b) {
		return dns.Question{}, false
	}
	return dns.Question{Name: name, Qtype: binary.BigEndian.Uint16(b[off:]), Qclass: binary.BigEndian.Uint16(b[off+2:])}, true
}

func tcpFlags(f uint8) string {
	var s []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"} {
		if f&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	return strings.Join(s, "+")
}

// udpReply builds the frame that answers the given one with payload, as if its
// destination had sent it. It returns nil if the frame is no whole UDP header.
func udpReply(frame, payload []byte) []byte {
	p := parseFrame(frame)
	if p.Proto != unix.IPPROTO_UDP || p.Fragment || p.SrcPort == 0 {
		return nil
	}
	udp := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(udp, p.DstPort)
	binary.BigEndian.PutUint16(udp[2:], p.SrcPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	udp = append(udp, payload...)
	sum := checksum(udp, pseudoSum(p.Dst, p.Src, unix.IPPROTO_UDP, len(udp)))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)

	out := make([]byte, 0, ethHeader+40+len(udp))
	out = append(out, frame[6:12]...)
	out = append(out, frame[0:6]...)
	out = append(out, frame[12:14]...)
	if p.Src.Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 60, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(udp)))
		copy(h[12:], p.Dst.AsSlice())
		copy(h[16:], p.Src.AsSlice())
		binary.BigEndian.PutUint16(h[10:], checksum(h, 0))
		out = append(out, h...)
	} else {
		h := make([]byte, 40)
		h[0], h[6], h[7] = 0x60, unix.IPPROTO_UDP, 60
		binary.BigEndian.PutUint16(h[4:], uint16(len(udp)))
		copy(h[8:], p.Dst.AsSlice())
		copy(h[24:], p.Src.AsSlice())
		out = append(out, h...)
	}
	return append(out, udp...)
}

func pseudoSum(src, dst netip.Addr, proto uint8, length int) uint32 {
	b := append(src.AsSlice(), dst.AsSlice()...)
	return uint32(^checksum(b, 0)) + uint32(proto) + uint32(length)
}

// checksum is the Internet checksum (RFC 1071) of b added to sum.
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
