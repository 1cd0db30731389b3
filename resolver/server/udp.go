package server

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"smartdns/resolver/wire"
)

// maxUDPQuery is the longest query we read; a longer one is cut by the kernel
// and fails to parse. No honest query is longer (SECURITY 6.2).
const maxUDPQuery = wire.MaxUDP

// oobLen has room for the packet info of either family.
const oobLen = 64

// packet is a query on its way through; the buffers are reused.
type packet struct {
	msg [maxUDPQuery + 1]byte
	n   int
	oob [oobLen]byte
	on  int
}

func (s *Server) serveUDP(l *listener) {
	pool := sync.Pool{New: func() any { return new(packet) }}
	for {
		p := pool.Get().(*packet)
		n, on, flags, from, err := l.udp.ReadMsgUDPAddrPort(p.msg[:], p.oob[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || n > maxUDPQuery {
			// An ICMP error of an earlier answer, or an oversized packet.
			s.count.dropped.Add(1)
			pool.Put(p)
			continue
		}
		p.n, p.on = n, on
		client := Client{Addr: unmap(from), Local: destination(p.oob[:on]), Transport: "udp"}
		q, reply, ok := s.accept(nil, p.msg[:n], client)
		if !ok {
			if len(reply) > 0 {
				l.reply(reply, p, from)
			}
			pool.Put(p)
			continue
		}
		s.count.udp.Add(1)
		if !s.take() {
			pool.Put(p)
			continue
		}
		s.inFlight.Go(func() {
			defer pool.Put(p)
			defer s.release()
			if reply := s.answer(q, client); reply != nil {
				l.reply(wire.Truncate(nil, reply, q.Limit()), p, from)
			}
		})
	}
}

// reply sends from the address that was asked: the packet info that came with
// the query goes back with the answer, where the kernel reads it as the source
// (RFC 2181 section 4.1).
func (l *listener) reply(msg []byte, p *packet, to netip.AddrPort) {
	// An answer that cannot be sent is an answer lost on the way.
	_, _, _ = l.udp.WriteMsgUDPAddrPort(msg, source(p.oob[:p.on]), to)
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
