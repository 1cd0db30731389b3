package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// listener is one address: a UDP and a TCP socket, and the goroutines that
// read them.
type listener struct {
	addr netip.AddrPort
	udp  *net.UDPConn
	tcp  *net.TCPListener

	readers sync.WaitGroup
	mu      sync.Mutex // guards following
	closed  bool
	conns   map[net.Conn]struct{}
}

func (s *Server) open(addr netip.AddrPort) (*listener, error) {
	lc := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = prepare(int(fd), network) }); e != nil {
			return e
		}
		return err
	}}
	// Named by family: "udp" would open a v6 socket for 0.0.0.0.
	family := "4"
	if addr.Addr().Is6() {
		family = "6"
	}
	pc, err := lc.ListenPacket(context.Background(), "udp"+family, addr.String())
	if err != nil {
		return nil, listenError(addr, "udp", err)
	}
	tl, err := lc.Listen(context.Background(), "tcp"+family, pc.LocalAddr().String())
	if err != nil {
		pc.Close()
		return nil, listenError(addr, "tcp", err)
	}
	l := &listener{addr: addr, udp: pc.(*net.UDPConn), tcp: tl.(*net.TCPListener), conns: map[net.Conn]struct{}{}}
	l.readers.Go(func() { s.serveUDP(l) })
	l.readers.Go(func() { s.serveTCP(l) })
	return l, nil
}

// prepare sets the options that must be there before the first packet. A
// v4 socket is asked for the v4 form only, a v6 one for v6 only, so that "::"
// and "0.0.0.0" can both be listened on.
func prepare(fd int, network string) error {
	var errs []error
	switch network {
	case "udp4":
		errs = append(errs,
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1),
			// Answers are never cut into fragments that somebody could
			// replace; DF is left off so that a small path still works.
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT))
	case "udp6":
		errs = append(errs,
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT))
	case "tcp6":
		errs = append(errs, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
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

func (l *listener) close() {
	l.mu.Lock()
	l.closed = true
	l.udp.Close()
	l.tcp.Close()
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.readers.Wait()
}

// track remembers c until untrack; it reports false when the listener is
// closed already.
func (l *listener) track(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *listener) untrack(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}
