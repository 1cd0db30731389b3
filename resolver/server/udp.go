package server

import (
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"smartdns/resolver/cache"
	"smartdns/resolver/wire"
)

// maxUDPQuery is the longest query we read; a longer one is cut by the kernel
// and fails to parse. No honest query is longer (SECURITY 6.2).
const maxUDPQuery = wire.MaxUDP

// oobLen has room for the packet info of either family.
const oobLen = 64

// udpState is what the workers of all listeners share.
type udpState struct {
	packets sync.Pool // of *packet
	zones   zones
	gone    udpCounts // of listeners that are closed; guarded by the Server's mu
}

// worker reads one of a listener's UDP sockets, of which there is one for each
// CPU.
type worker struct {
	s      *Server
	addr   netip.AddrPort
	conn   *net.UDPConn
	raw    syscall.RawConn
	sealed *cache.Sealed
	watch  Watch // nil: nothing to watch
	batch  *batch
	out    outbox
	count  workerCounts
}

// drainRounds bounds how much of what waits is answered when a socket is
// closed: about what a receive buffer holds.
const drainRounds = 64

// run answers until the socket's read deadline has passed. Only when nothing
// waits is the scheduler told: a goroutine that is woken for each packet would
// cost as much as the packet.
func (w *worker) run() {
	round := w.round
	for w.raw.Read(round) == nil {
	}
}

// round answers a batch, and reports whether there was one.
func (w *worker) round(fd uintptr) (some bool) {
	switch w.batch.receive(fd) {
	case unix.EAGAIN:
		return false
	case 0:
		w.answer(fd)
	default:
		w.s.count.dropped.Add(1) // an ICMP error of an earlier answer
	}
	return true
}

// drain answers what still waits in a socket that nobody reads any more.
func (w *worker) drain() {
	_ = w.raw.Control(func(fd uintptr) {
		for n := 0; n < drainRounds && w.round(fd); n++ {
		}
	})
}

// answer answers the received packets: sealed answers at once and together, all
// others by the handler.
func (w *worker) answer(fd uintptr) {
	w.count.receives.Add(1)
	b, lane := w.batch, w.sealed
	if w.watch != nil && w.watch.Foreign() {
		lane.Generation().Advance()
	}
	now := lane.Now()
	var sealed uint64
	resolved := false
	for i := range b.received {
		msg, whole := b.query(i)
		if !whole {
			w.s.count.dropped.Add(1)
			continue
		}
		client := Client{Addr: w.client(i), Listener: w.addr, Transport: UDP}
		q, reply, ok := w.s.accept(b.room(i), msg, &client)
		if !ok {
			if len(reply) > 0 {
				b.answer(i, reply)
			}
			continue
		}
		if reply, ok := lane.Answer(b.room(i), q, client.View, q.Limit(), now); ok { // the fast lane, or Resolve
			sealed++
			b.answer(i, reply)
			continue
		}
		resolved = true
		w.count.resolved.Add(1)
		w.handOver(q, i, client)
	}
	w.count.sealed.Add(sealed) // before the answers leave: whoever has one finds it counted
	if b.ready > 0 {
		calls, lost := b.send(fd)
		w.count.sends.Add(calls)
		w.s.count.dropped.Add(lost)
	}
	if resolved && b.received == batchSize {
		runtime.Gosched() // more waits already, and with one CPU nobody else would run
	}
}

// client returns who sent packet i.
func (w *worker) client(i int) netip.AddrPort {
	from := w.batch.client(i)
	if link := w.batch.scope(i); link != 0 {
		return netip.AddrPortFrom(from.Addr().WithZone(w.s.udp.zones.name(link)), from.Port())
	}
	return from
}

// packet is a query on its way through the handler. It is used again, with its
// buffers.
type packet struct {
	msg     [maxUDPQuery]byte
	oob     [oobLen]byte
	on      int
	from    unix.RawSockaddrInet6 // or RawSockaddrInet4, as it came
	fromLen uint32

	worker *worker
	query  wire.Query
	client Client
	reply  []byte
	room   [wire.MaxUDP]byte // for the reply
	work   func()            // answers it
}

func newPackets() sync.Pool {
	return sync.Pool{New: func() any {
		p := new(packet)
		p.work = p.answer
		return p
	}}
}

// handOver has the handler answer packet i in a goroutine of its own.
func (w *worker) handOver(q wire.Query, i int, from Client) {
	if !w.s.take() {
		return
	}
	p := w.s.udp.packets.Get().(*packet)
	p.worker, p.query = w, q.In(p.msg[:copy(p.msg[:], q.Msg)])
	p.on = copy(p.oob[:], w.batch.oob(i))
	if from.Local = w.addr.Addr(); from.Local.IsUnspecified() {
		from.Local = destination(p.oob[:p.on])
	}
	p.client = from
	p.from, p.fromLen = w.batch.from[i], w.batch.in[i].Namelen
	w.s.inFlight.udp.Add(1)
	w.s.inFlight.crew.Go(p.work)
}

func (p *packet) answer() {
	w := p.worker
	defer w.s.inFlight.udp.Done()
	reply := w.s.answer(p.room[:0], p.query, p.client)
	w.s.release()
	if len(reply) == 0 {
		w.s.udp.packets.Put(p)
		return
	}
	p.reply = wire.Truncate(nil, reply, p.query.Limit())
	w.out.put(p)
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
