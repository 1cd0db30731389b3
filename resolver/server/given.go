package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Socket is open and bound already, and of TCP it listens: by the program whose
// place this one took, or by a service manager.
type Socket struct {
	Network string // udp or tcp
	Addr    netip.AddrPort
	File    *os.File
}

func (s Socket) String() string { return s.Network + " " + s.Addr.String() }

// Give gives sockets to s, which closes them: Listen and ListenSecure take them
// instead of opening their own, with all that waits in them. Of several for one
// address and network, UDP takes all.
func (s *Server) Give(all []Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = append(s.given, all...)
}

// CloseUnwanted closes the given sockets that nobody has taken, and returns what
// they were.
func (s *Server) CloseUnwanted() []Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.given
	s.given = nil
	for _, g := range left {
		g.File.Close()
	}
	return left
}

// Sockets returns those that take queries, over all transports. They belong to
// s, and are there until it closes them.
func (s *Server) Sockets() []syscall.Conn {
	s.secure.mu.Lock()
	defer s.secure.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []syscall.Conn
	for _, l := range s.listeners {
		for _, w := range l.workers {
			all = append(all, w.conn)
		}
		all = append(all, l.gate.TCPListener)
	}
	for _, l := range s.secure.open {
		all = append(all, l.gate.TCPListener)
	}
	return all
}

// givenFor counts the given sockets. Its caller holds mu.
func (s *Server) givenFor(network string, addr netip.AddrPort) (n int) {
	for _, g := range s.given {
		if g.Network == network && g.Addr == addr {
			n++
		}
	}
	return n
}

// take returns a given socket as open makes a net.UDPConn or net.TCPListener of
// it; ok is false where there is none. Its caller holds mu.
func take[C interface {
	syscall.Conn
	Close() error
}](s *Server, network string, addr netip.AddrPort, open func(*os.File) (C, error)) (c C, ok bool, err error) {
	for i, g := range s.given {
		if g.Network != network || g.Addr != addr {
			continue
		}
		s.given = append(s.given[:i:i], s.given[i+1:]...)
		defer g.File.Close() // open has made a copy
		if c, err = open(g.File); err != nil {
			return c, true, err
		}
		raw, err := c.SyscallConn()
		if err == nil {
			err = control(func(fd int) error { return prepareBound(fd, network+family(addr), addr.Addr()) })("", "", raw)
		}
		if err != nil {
			c.Close()
		}
		return c, true, err
	}
	return c, false, nil
}

// listenUDP takes a given socket, or opens one: alone at its address, or beside
// others.
func (s *Server) listenUDP(addr netip.AddrPort, at string, options func(fd int) error) (*net.UDPConn, error) {
	c, ok, err := take(s, "udp", addr, func(f *os.File) (*net.UDPConn, error) {
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return nil, err
		}
		u, ok := pc.(*net.UDPConn)
		if !ok {
			pc.Close()
			return nil, fmt.Errorf("%T is no UDP socket", pc)
		}
		return u, nil
	})
	if ok {
		return c, err
	}
	lc := net.ListenConfig{Control: control(options)}
	pc, err := lc.ListenPacket(context.Background(), "udp"+family(addr), at)
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// listenTCP is listenUDP for TCP.
func (s *Server) listenTCP(addr netip.AddrPort, at string) (*net.TCPListener, error) {
	c, ok, err := take(s, "tcp", addr, func(f *os.File) (*net.TCPListener, error) {
		l, err := net.FileListener(f)
		if err != nil {
			return nil, err
		}
		t, ok := l.(*net.TCPListener)
		if !ok {
			l.Close()
			return nil, fmt.Errorf("%T is no TCP socket", l)
		}
		return t, nil
	})
	if ok {
		return c, err
	}
	network := "tcp" + family(addr)
	lc := net.ListenConfig{Control: control(func(fd int) error { return prepare(fd, network, addr.Addr()) })}
	l, err := lc.Listen(context.Background(), network, at)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// prepareBound is prepare for a socket that is bound already: that it is of IPv6
// alone can only be asked then.
func prepareBound(fd int, network string, addr netip.Addr) error {
	if addr.Is6() {
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		switch {
		case err != nil:
			return err
		case only == 0 && addr.IsUnspecified():
			return errors.New("the socket that was given to us takes IPv4 as well (BindIPv6Only=ipv6-only keeps a systemd socket from it)")
		}
	}
	return prepareFor(fd, network, addr)
}

// Pause stops taking queries, and leaves the sockets open: what comes meanwhile
// waits in them. It returns when the answers over UDP that were being made are
// out, or after limit. Connections stay.
func (s *Server) Pause(limit time.Duration) {
	over := make(chan struct{})
	if !s.paused.CompareAndSwap(nil, &over) {
		return
	}
	s.secure.mu.Lock()
	s.mu.Lock()
	for g := range s.gates {
		_ = g.SetDeadline(time.Unix(1, 0))
	}
	for _, l := range s.listeners {
		l.stopReading()
	}
	s.mu.Unlock()
	s.secure.mu.Unlock()
	answered := make(chan struct{})
	go func() {
		s.inFlight.udp.Wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(limit):
	}
}

// Resume takes up again what Pause stopped.
func (s *Server) Resume() {
	over := s.paused.Swap(nil)
	if over == nil {
		return
	}
	s.secure.mu.Lock()
	defer s.secure.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		l.startReading()
	}
	for g := range s.gates {
		_ = g.SetDeadline(time.Time{})
	}
	close(*over)
}

// gates returns the listeners of connections. Its caller holds mu and secure.mu.
func (s *Server) gates(yield func(*gate) bool) {
	for _, l := range s.listeners {
		if !yield(l.gate) {
			return
		}
	}
	for _, l := range s.secure.open {
		if !yield(l.gate) {
			return
		}
	}
}

// untilResumed waits while s is paused, and is not closed.
func (s *Server) untilResumed() {
	over := s.paused.Load()
	if over == nil {
		return
	}
	select {
	case <-*over:
	case <-s.ctx.Done():
	}
}
