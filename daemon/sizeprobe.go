package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/resolver/wire"
	"smartdns/routing"
)

// arrives asks something through a tunnel by packets of one size. A DNS question
// that is padded (RFC 7830) is answered by a server or refused by a host; one
// that may go no further than the far end is returned by that, as to a
// traceroute. Whichever comes, the packet has arrived.
func (e *engine) arrives(path routing.Path) func(ctx context.Context, size int) bool {
	return func(ctx context.Context, size int) bool {
		v := e.shown.Load()
		to, mark := v.parts.probeTarget(path).Addr(), v.live.marks.of(path)
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		answers := make(chan bool, 2)
		for _, p := range []sizeProbe{{port: dnsPort}, {port: tracePort, hops: 1}} {
			p.to, p.mark, p.size = to, mark, size
			go func() { answers <- p.answered(ctx) }()
		}
		first := <-answers
		return first || <-answers
	}
}

// tracePort is where traceroute's packets go, and nobody listens.
const tracePort = 33434

// sizeProbe is a packet of one size.
type sizeProbe struct {
	to   netip.Addr
	port uint16
	mark uint32
	size int // of the IP packet, in bytes
	hops int // how far it goes; 0: as far as it takes
}

// resendTime is how long an answer is waited for before the packet is sent again.
const resendTime = 500 * time.Millisecond

// answered sends the packet again and again until something is answered, or ctx
// ends.
func (p sizeProbe) answered(ctx context.Context) bool {
	d := net.Dialer{Control: p.control}
	c, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(p.to, p.port).String())
	if err != nil {
		return false
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	packet, reply := p.packet(), make([]byte, 1500)
	for ctx.Err() == nil {
		if _, err := c.Write(packet); err != nil {
			return returned(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(resendTime)) // fails with the next read
		_, err := c.Read(reply)
		var slow net.Error
		if err == nil || returned(err) {
			return true
		}
		if !errors.As(err, &slow) || !slow.Timeout() {
			return false
		}
	}
	return false
}

// returned reports whether an ICMP message said that the packet came somewhere.
func returned(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH)
}

// control marks the socket, and has it send whole packets of any size.
func (p sizeProbe) control(_, _ string, raw syscall.RawConn) error {
	var err error
	e := raw.Control(func(fd uintptr) {
		set := func(level, option, value int) {
			if err == nil {
				err = unix.SetsockoptInt(int(fd), level, option, value)
			}
		}
		set(unix.SOL_SOCKET, unix.SO_MARK, int(p.mark))
		if p.to.Is4() {
			set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			set(unix.IPPROTO_IP, unix.IP_RECVERR, 1)
			if p.hops > 0 {
				set(unix.IPPROTO_IP, unix.IP_TTL, p.hops)
			}
			return
		}
		set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
		set(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		if p.hops > 0 {
			set(unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, p.hops)
		}
	})
	return errors.Join(e, err)
}

// packet is a question for the root's SOA, with as much padding as makes the IP
// packet as large as it shall be.
func (p sizeProbe) packet() []byte {
	const udp, v4, v6, padding, head = 8, 20, 40, 12, 4
	size := p.size - udp - v4
	if p.to.Is6() {
		size = p.size - udp - v6
	}
	bare := len(wire.AppendQuery(nil, []byte{0}, wire.TypeSOA, false, false, nil)) + head
	fill := max(0, size-bare)
	option := append([]byte{0, padding, byte(fill >> 8), byte(fill)}, make([]byte, fill)...)
	return wire.AppendQuery(nil, []byte{0}, wire.TypeSOA, false, false, option)
}
