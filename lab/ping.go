package lab

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Ping is one ICMP echo request.
type Ping struct {
	To   netip.Addr
	Size int  // of the whole IP packet; the smallest if 0
	TTL  int  // 64 if 0
	DF   bool // not to be fragmented, whatever the path's MTU is known to be
}

// Pong is what came back for a Ping.
type Pong struct {
	From       netip.Addr
	Type, Code uint8
	MTU        int // of "fragmentation needed" and "packet too big"
}

// Kinds of Pong.
func (p Pong) v6() bool { return p.From.Is6() }

// EchoReply reports whether the destination answered.
func (p Pong) EchoReply() bool { return p.Type == 0 && !p.v6() || p.Type == 129 && p.v6() }

// TimeExceeded reports whether the hop limit ended on the way.
func (p Pong) TimeExceeded() bool { return p.Type == 11 && !p.v6() || p.Type == 3 && p.v6() }

// TooBig reports whether the packet did not fit; MTU says what would.
func (p Pong) TooBig() bool {
	return p.Type == 3 && p.Code == 4 && !p.v6() || p.Type == 2 && p.v6()
}

// Unreachable reports whether somebody refused to carry the packet.
func (p Pong) Unreachable() bool {
	return p.Type == 3 && p.Code != 4 && !p.v6() || p.Type == 1 && p.v6()
}

// Ping sends an echo request from the namespace and waits for the first answer
// to it: the echo reply, or an ICMP error about it.
func (n *Namespace) Ping(ctx context.Context, p Ping) (Pong, error) {
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Pong{}, err
	}
	c, err := n.openPing(ctx, p)
	if err != nil {
		return Pong{}, fmt.Errorf("pinging %s: %w", p.To, err)
	}
	defer c.Close()
	defer bound(ctx, c)()
	if _, err := c.WriteTo(p.message(id), &net.IPAddr{IP: p.To.AsSlice()}); err != nil {
		return Pong{}, fmt.Errorf("pinging %s: %w", p.To, err)
	}
	b := make([]byte, 2048)
	for {
		k, from, err := c.ReadFrom(b)
		if err != nil {
			return Pong{}, fmt.Errorf("pinging %s: %w", p.To, err)
		}
		if !answers(b[:k], id, p.To.Is6()) {
			continue
		}
		a, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		pong := Pong{From: a.Unmap(), Type: b[0], Code: b[1]}
		switch {
		case pong.TooBig() && p.To.Is4():
			pong.MTU = int(binary.BigEndian.Uint16(b[6:]))
		case pong.TooBig():
			pong.MTU = int(binary.BigEndian.Uint32(b[4:]))
		}
		return pong, nil
	}
}

func (p Ping) message(id [4]byte) []byte {
	header, typ := 28, byte(8)
	if p.To.Is6() {
		header, typ = 48, 128
	}
	m := icmp.Message{Type: ipv4.ICMPType(typ), Body: &icmp.Echo{
		ID: int(binary.BigEndian.Uint16(id[:])), Seq: int(binary.BigEndian.Uint16(id[2:])), Data: make([]byte, max(0, p.Size-header)),
	}}
	if p.To.Is6() {
		m.Type = ipv6.ICMPType(typ) // the kernel fills in the checksum
	}
	b, err := m.Marshal(nil)
	if err != nil {
		panic(err) // an Echo always marshals
	}
	return b
}

// answers reports whether b is the reply to, or an error about, the request id.
func answers(b []byte, id [4]byte, v6 bool) bool {
	if len(b) < 8 {
		return false
	}
	reply, request, header := byte(0), byte(8), 20
	if v6 {
		reply, request, header = 129, 128, 40
	}
	if b[0] == reply {
		return [4]byte(b[4:]) == id
	}
	q := b[8:]
	if !v6 && len(q) > 0 {
		header = int(q[0]&15) * 4
	}
	return b[0] != request && len(q) >= header+8 && q[header] == request && [4]byte(q[header+4:]) == id
}

func (n *Namespace) openPing(ctx context.Context, p Ping) (*net.IPConn, error) {
	network, any := "ip4:icmp", "0.0.0.0"
	if p.To.Is6() {
		network, any = "ip6:ipv6-icmp", "::"
	}
	ttl := p.TTL
	if ttl == 0 {
		ttl = 64
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		set := func(level, option, value int) {
			if err == nil && value != 0 {
				rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
			}
		}
		probe := 0
		if p.DF {
			probe = unix.IP_PMTUDISC_PROBE
		}
		if p.To.Is6() {
			set(unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
			set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, probe)
		} else {
			set(unix.IPPROTO_IP, unix.IP_TTL, ttl)
			set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, probe)
		}
		return err
	}}
	var c *net.IPConn
	err := n.Do(func() error {
		pc, err := lc.ListenPacket(ctx, network, any)
		if err == nil {
			c = pc.(*net.IPConn)
		}
		return err
	})
	return c, err
}
