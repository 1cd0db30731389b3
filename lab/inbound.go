package lab

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// origin returns the host that has a.
func (w *World) origin(a netip.Addr) *Namespace {
	switch {
	case IsHome(a):
		return w.ISP
	case a == FarV4 || a == FarV6:
		return w.FarEnd.Namespace
	}
	return w.Outside
}

// crossesTunnel reports whether packets from one address to the other come to
// the gateway by the tunnel.
func crossesTunnel(from, to netip.Addr) bool {
	return from == FarV4 || from == FarV6 || throughTunnel(to)
}

// firstInboundPort is above the ports that the kernel gives out.
const firstInboundPort = 61_000

func (w *World) inboundFrom(proto uint8, from netip.Addr, to netip.AddrPort) netip.AddrPort {
	at := netip.AddrPortFrom(from, uint16(firstInboundPort+w.inbound.Add(1)%4000))
	if !crossesTunnel(from, to.Addr()) {
		w.Sniffer.AllowReplies(proto, at, to)
	}
	return at
}

// ConnectIn opens a session from outside: from any address at home or abroad, or
// the far end's inside the tunnel, to InboundPort of the gateway, the client or
// the box. What comes to the gateway by its uplink may be answered on it: those
// replies are no leaks.
func (w *World) ConnectIn(ctx context.Context, from, to netip.Addr) (*Session, error) {
	at := netip.AddrPortFrom(to, InboundPort)
	s, err := dialer(w.origin(from).Dial).connect(ctx, w.inboundFrom(unix.IPPROTO_TCP, from, at), at)
	if err != nil {
		return nil, fmt.Errorf("connecting in from %s: %w", from, err)
	}
	return s, nil
}

// DatagramIn is ConnectIn for one datagram and its answer.
func (w *World) DatagramIn(ctx context.Context, from, to netip.Addr) (Seen, error) {
	at := netip.AddrPortFrom(to, InboundPort)
	c, err := w.origin(from).Dial(ctx, "udp", w.inboundFrom(unix.IPPROTO_UDP, from, at), at)
	if err != nil {
		return Seen{}, fmt.Errorf("sending in from %s: %w", from, err)
	}
	defer c.Close()
	return askDatagram(ctx, c)
}
