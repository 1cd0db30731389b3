package server

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listener is one address: a UDP socket for each CPU and a TCP socket, and the
// goroutines that read them.
type listener struct {
	addr     netip.AddrPort
	workers  []*worker
	gate     *gate
	readers  sync.WaitGroup // of the UDP sockets
	acceptor sync.WaitGroup
}

func (s *Server) open(addr netip.AddrPort) (*listener, error) {
	l := &listener{addr: addr}
	at := addr.String()
	// Every socket that is given holds queries, also where there are fewer CPUs now.
	for i := range max(runtime.GOMAXPROCS(0), s.givenFor("udp", addr)) {
		w, err := s.openWorker(addr, at, i > 0)
		if err != nil {
			l.closeSockets()
			return nil, err
		}
		l.workers = append(l.workers, w)
		at = w.conn.LocalAddr().String()
	}
	tl, err := s.listenTCP(addr, at)
	if err != nil {
		l.closeSockets()
		return nil, listenError(addr, "tcp", err)
	}
	if l.gate, err = newGate(s, addr, tl, s.lane); err != nil {
		l.closeSockets()
		return nil, listenError(addr, "tcp", err)
	}
	l.startReading()
	l.acceptor.Go(func() { s.serveTCP(l.gate) })
	return l, nil
}

// startReading has the UDP sockets read, until stopReading.
func (l *listener) startReading() {
	for _, w := range l.workers {
		_ = w.conn.SetReadDeadline(time.Time{})
		l.readers.Go(w.run)
	}
}

func (l *listener) stopReading() {
	for _, w := range l.workers {
		_ = w.conn.SetReadDeadline(time.Unix(1, 0)) // wakes it
	}
	l.readers.Wait()
}

// family of an address: "udp" alone would open a v6 socket for 0.0.0.0.
func family(addr netip.AddrPort) string {
	if addr.Addr().Is6() {
		return "6"
	}
	return "4"
}

func control(f func(fd int) error) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
			return e
		}
		return err
	}
}

// openWorker opens one of a listener's UDP sockets. The first is bound alone,
// so that we notice when another program has the address; then it lets the
// others join it.
func (s *Server) openWorker(addr netip.AddrPort, at string, join bool) (*worker, error) {
	network := "udp" + family(addr)
	share := func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
	conn, err := s.listenUDP(addr, at, func(fd int) error {
		if join {
			return errors.Join(prepare(fd, network, addr.Addr()), share(fd))
		}
		return prepare(fd, network, addr.Addr())
	})
	if err != nil {
		return nil, listenError(addr, "udp", err)
	}
	w := &worker{s: s, addr: addr, sealed: s.lane.Sealed, conn: conn, batch: newBatch(addr.Addr().IsUnspecified())}
	if w.raw, err = w.conn.SyscallConn(); err == nil {
		err = control(share)("", "", w.raw)
	}
	w.out.raw, w.out.done = w.raw, &s.udp.packets
	if err == nil {
		w.watch, err = s.lane.watch()
	}
	if err != nil {
		conn.Close()
		return nil, listenError(addr, "udp", err)
	}
	return w, nil
}

// closeSockets closes the UDP sockets, and what the workers watch.
func (l *listener) closeSockets() {
	for _, w := range l.workers {
		w.conn.Close()
		if w.watch != nil {
			_ = w.watch.Close()
		}
	}
}

// prepare sets the options that must be there before the first packet. A
// v4 socket is asked for the v4 form only, a v6 one for v6 only, so that "::"
// and "0.0.0.0" can both be listened on.
func prepare(fd int, network string, addr netip.Addr) error {
	if addr.Is6() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	return prepareFor(fd, network, addr)
}

// udpRoom is for what comes while nobody reads, in bytes: the queries of a second
// at 1,000 a second, all of one client, which the kernel counts with 768 bytes or
// more each, while another program takes our place. The kernel doubles it. An
// empty queue takes no memory.
const udpRoom = 1 << 20

// prepareFor sets those of the options that a bound socket takes as well.
func prepareFor(fd int, network string, addr netip.Addr) error {
	var errs []error
	wildcard := 0 // a socket with an address of its own answers from that
	if addr.IsUnspecified() {
		wildcard = 1
	}
	switch network {
	case "udp4":
		errs = append(errs,
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, wildcard),
			// Answers are never cut into fragments that somebody could
			// replace; DF is left off so that a small path still works.
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT))
	case "udp6":
		errs = append(errs,
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, wildcard),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT))
	}
	if network != "tcp4" && network != "tcp6" && unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpRoom) != nil {
		// Without the right to force it, what net.core.rmem_max allows.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, udpRoom)
	}
	return errors.Join(errs...)
}

func listenError(addr netip.AddrPort, network string, err error) error {
	e := &ListenError{Addr: addr, Err: err}
	if errors.Is(err, unix.EADDRINUSE) {
		e.Holder = holder(network, addr)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		e.Err = op.Err // the address is in the sentence already
	}
	return e
}

// close answers what waits and can be answered at once, and closes the rest.
func (l *listener) close() {
	l.gate.Close()
	l.stopReading()
	for _, w := range l.workers {
		w.drain()
	}
	l.acceptor.Wait()
	l.closeSockets()
}
