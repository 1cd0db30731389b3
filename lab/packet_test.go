package lab

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func frame(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.ReplaceAll(s, " ", ""), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const macs = "020000000001 020000000002 "

var frames = []struct{ name, hex, want string }{
	{"TCP SYN", macs + "0800 4500002800004000 4006 0000 c0000202 5db8d822 9c4001bb 00000000 00000000 5002 ffff 0000 0000",
		"tcp 192.0.2.2:40000 > 93.184.216.34:443 SYN"},
	{"DNS question", macs + "0800 4500003d00004000 4011 0000 c0000202 08080808 d4310035 0029 0000 abcd0100000100000000 0000 03777777076578616d706c6503636f6d00 0001 0001",
		"udp 192.0.2.2:54321 > 8.8.8.8:53 dns www.example.com. A"},
	{"v6 UDP behind hop-by-hop", macs + "86dd 60000000 0014 00 40 20010db8000200000000000000000002 26062800022000010000000000000001 1100050200000000 d43101bb 000c 0000 61626364",
		"udp [2001:db8:2::2]:54321 > [2606:2800:220:1::1]:443 4 B"},
	{"ARP request", macs + "0806 0001080006040001 020000000002 c0000202 000000000000 5db8d822", "who has 93.184.216.34?"},
	{"neighbour solicitation", macs + "86dd 60000000 0018 3a ff fe800000000000000000000000000001 ff0200000000000000000001ff000001 87000000 00000000 26062800022000010000000000000001",
		"who has 2606:2800:220:1::1?"},
	{"second fragment", macs + "0800 4500001c00002001 4011 0000 c0000202 5db8d822 9c4001bb 00000000", "udp 192.0.2.2:0 > 93.184.216.34:0 0 B"},
	{"ICMP about UDP", macs + "0800 4500003800004000 4001 0000 c0000202 5db8d822 03030000 00000000 4500001c00004000 4011 0000 5db8d822 c0000202 01bbd431 00080000",
		"icmp 192.0.2.2 > 93.184.216.34 type 3 code 3 about udp 93.184.216.34:443 > 192.0.2.2:54321 0 B"},
	{"something else", macs + "88cc 0000", "ethertype 0x88cc"},
}

func TestFramesAreReadable(t *testing.T) {
	for _, row := range frames {
		if got := parseFrame(frame(t, row.hex)).String(); got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}

func TestUDPReplyGoesBackWithGoodChecksums(t *testing.T) {
	for _, i := range []int{1, 2} {
		p := parseFrame(frame(t, frames[i].hex))
		raw := frame(t, frames[i].hex)
		if i == 2 { // a reply has no extension headers
			raw = append(raw[:54:54], raw[62:]...)
			raw[20], raw[19] = unix.IPPROTO_UDP, 12
			p = parseFrame(raw)
		}
		out := udpReply(raw, []byte("abc"))
		r := parseFrame(out)
		if r.from() != p.to() || r.to() != p.from() || string(r.Payload) != "abc" {
			t.Errorf("%s is answered by %s", p, r)
		}
		l4 := out[len(out)-11:]
		if sum := checksum(l4, pseudoSum(r.Src, r.Dst, unix.IPPROTO_UDP, 11)); sum != 0 {
			t.Errorf("UDP checksum is off by %#x", sum)
		}
		if r.Src.Is4() {
			if sum := checksum(out[ethHeader:ethHeader+20], 0); sum != 0 {
				t.Errorf("IP checksum is off by %#x", sum)
			}
		}
	}
}

func TestAllowList(t *testing.T) {
	s := &Sniffer{inbound: map[flow]bool{}}
	up, cn, far := netip.AddrPortFrom(UplinkV4, 40000), netip.AddrPortFrom(HomeWebV4, 443), netip.AddrPortFrom(AbroadWebV4, 443)
	tcp := func(from, to netip.AddrPort) Packet {
		return Packet{EtherType: etherIPv4, Proto: unix.IPPROTO_TCP, Src: from.Addr(), SrcPort: from.Port(), Dst: to.Addr(), DstPort: to.Port()}
	}
	udp := func(from, to netip.AddrPort) Packet {
		p := tcp(from, to)
		p.Proto = unix.IPPROTO_UDP
		return p
	}
	s.AllowReplies(unix.IPPROTO_TCP, netip.AddrPortFrom(AbroadWebV4, 61001), netip.AddrPortFrom(UplinkV4, InboundPort))
	for _, row := range []struct {
		name string
		p    Packet
		want bool
	}{
		{"home", tcp(up, cn), true},
		{"abroad", tcp(up, far), false},
		{"WireGuard", udp(up, Endpoint), true},
		{"TCP to the endpoint", tcp(up, Endpoint), false},
		{"another port of the endpoint", udp(up, netip.AddrPortFrom(Endpoint.Addr(), 53)), false},
		{"domestic DNS", udp(up, netip.AddrPortFrom(AliDNS, 53)), true},
		{"domestic DNS by TLS", tcp(up, netip.AddrPortFrom(AliDNS, 853)), false},
		{"foreign DNS", udp(up, netip.AddrPortFrom(Google, 53)), false},
		{"a reply to an inbound session", tcp(netip.AddrPortFrom(UplinkV4, InboundPort), netip.AddrPortFrom(AbroadWebV4, 61001)), true},
		{"a session to its peer's port", tcp(up, netip.AddrPortFrom(AbroadWebV4, 61001)), false},
		{"its reply by UDP", udp(netip.AddrPortFrom(UplinkV4, InboundPort), netip.AddrPortFrom(AbroadWebV4, 61001)), false},
		{"DHCP", udp(netip.AddrPortFrom(UplinkV4, 68), netip.AddrPortFrom(RouterV4, 67)), true},
		{"ARP for the router", Packet{EtherType: unix.ETH_P_ARP, Target: RouterV4}, true},
		{"ARP for a foreign address", Packet{EtherType: unix.ETH_P_ARP, Target: AbroadWebV4}, false},
		{"ARP reply", Packet{EtherType: unix.ETH_P_ARP}, true},
		{"MLD report", Packet{EtherType: etherIPv6, Proto: unix.IPPROTO_ICMPV6, Type: 143, Src: UplinkV6, Dst: netip.MustParseAddr("ff02::16")}, true},
		{"a ping", Packet{EtherType: etherIPv6, Proto: unix.IPPROTO_ICMPV6, Type: 128, Src: UplinkV6, Dst: AbroadWebV6}, false},
		{"GRE", Packet{EtherType: etherIPv4, Proto: unix.IPPROTO_GRE, Src: UplinkV4, Dst: AbroadWebV4}, false},
		{"an unknown protocol", Packet{EtherType: 0x88cc}, false},
	} {
		if got := s.allowedLocked(row.p); got != row.want {
			t.Errorf("%s: allowed %t, want %t", row.name, got, row.want)
		}
	}
	s.Allow(func(p Packet) bool { return p.Dst == Google })
	if !s.allowedLocked(udp(up, netip.AddrPortFrom(Google, 53))) {
		t.Error("what a test allows is not allowed")
	}
}

func FuzzFrame(f *testing.F) {
	for _, row := range frames {
		f.Add(frame(f, row.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := parseFrame(b)
		_ = p.String()
		linkUpkeep(p)
		(&Sniffer{inbound: map[flow]bool{}}).allowedLocked(p)
		if out := udpReply(b, []byte("x")); out != nil {
			if r := parseFrame(out); r.from() != p.to() || r.to() != p.from() {
				t.Errorf("%s is answered by %s", p, r)
			}
		}
	})
}
