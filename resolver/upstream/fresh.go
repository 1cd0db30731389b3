package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxFresh   = 256 // sockets that wait for a query, to one server
	drainLimit = 64  // late replies to a socket's last query
)

// freshSockets gives each query a port of its own, chosen by the kernel at
// random. A socket that is done with gives its port back and waits for the next
// query, for which the kernel chooses another: that has all that a new socket
// has, at half its price.
type freshSockets struct {
	dial      Dial
	spoofable bool
	idle      time.Duration

	mu       sync.Mutex // guards following
	waiting  []*freshSocket
	least    int  // that waited since the last sweep
	sweeping bool // a sweep is due
	drained  bool // none waits any more
}

// freshSocket is one of them. It carries what Dial gave it: a mark stays with a
// socket, whatever it is connected to. Its system calls never wait, so that the
// scheduler need not know of them, and it has their arguments and results.
type freshSocket struct {
	net.Conn
	raw  syscall.RawConn
	home *freshSockets
	to   netip.AddrPort

	renew, quit, send func(fd uintptr)      // connects it, disconnects it, sends what out says
	receive           func(fd uintptr) bool // reads into in, and reports false when nothing is there
	in, out           datagramCall
}

// datagramCall is one sendmsg or recvmsg.
type datagramCall struct {
	unix.Msghdr
	vec     unix.Iovec
	control [64]byte
	n       int
	errno   unix.Errno
}

// take returns a socket that is connected to addr, with a port of its own.
func (k *freshSockets) take(ctx context.Context, addr netip.AddrPort) (socket, error) {
	for s := k.next(); s != nil; s = k.next() {
		if s.to == addr && s.raw.Control(s.renew) == nil && s.out.errno == 0 {
			return s, nil
		}
		s.Conn.Close()
	}
	conn, err := k.dial(ctx, "udp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("opening a socket: %w", plain(err))
	}
	v4 := addr.Addr().Unmap().Is4()
	ignoreForgedMTU(conn, v4)
	if s := k.own(conn, addr); s != nil {
		return s, nil
	}
	if k.spoofable {
		conn = refuseFragments(conn, v4)
	}
	return conn, nil
}

// own returns what makes conn a socket that can be used again, nil when it
// cannot: the kernel forgets the device that one was bound to when it is
// disconnected.
func (k *freshSockets) own(conn net.Conn, addr netip.AddrPort) *freshSocket {
	u, ok := conn.(*net.UDPConn)
	if !ok || addr.Addr().Zone() != "" {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil
	}
	s := &freshSocket{Conn: conn, raw: raw, home: k, to: addr}
	device := 1
	_ = raw.Control(func(fd uintptr) { device, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX) })
	if device != 0 {
		return nil
	}
	peer, size := sockaddr(addr)
	s.renew = func(fd uintptr) {
		s.out.errno = unix.EBUSY
		if drain(fd) {
			s.out.errno = connectFD(fd, &peer, size)
		}
	}
	none := unix.RawSockaddrInet6{Family: unix.AF_UNSPEC}
	s.quit = func(fd uintptr) { s.out.errno = connectFD(fd, &none, unix.SizeofSockaddrInet4) }
	s.send = func(fd uintptr) { s.out.do(fd, unix.SYS_SENDMSG) }
	s.receive = func(fd uintptr) bool { return s.in.do(fd, unix.SYS_RECVMSG) != unix.EAGAIN }
	if k.spoofable && reportFragments(raw, addr.Addr().Unmap().Is4()) {
		s.in.Control = &s.in.control[0]
	}
	return s
}

// do makes the call, with whatever is set before it.
func (c *datagramCall) do(fd, call uintptr) unix.Errno {
	c.Iov = &c.vec
	c.SetIovlen(1)
	c.SetControllen(0)
	if c.Control != nil {
		c.SetControllen(len(c.control))
	}
	n, _, errno := unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(&c.Msghdr)), unix.MSG_DONTWAIT)
	c.n, c.errno = int(n), errno
	return errno
}

// of makes b what is sent, or where a datagram goes. An empty b is not allowed.
func (c *datagramCall) of(b []byte) {
	c.vec.Base = &b[0]
	c.vec.SetLen(len(b))
}

// Read returns errFragments for a datagram that came in fragments.
func (s *freshSocket) Read(b []byte) (int, error) {
	s.in.of(b)
	switch err := s.raw.Read(s.receive); {
	case err != nil:
		return 0, err
	case s.in.errno != 0:
		return 0, s.in.errno
	case s.in.Control != nil && s.in.Controllen > 0:
		return 0, errFragments
	}
	return s.in.n, nil
}

func (s *freshSocket) Write(b []byte) (int, error) {
	s.out.of(b)
	if err := s.raw.Control(s.send); err != nil {
		return 0, err
	}
	if s.out.errno == unix.EAGAIN {
		return s.Conn.Write(b) // waits for room
	}
	if s.out.errno != 0 {
		return 0, s.out.errno
	}
	return s.out.n, nil
}

// Close gives the port back and lets the next query have the socket.
func (s *freshSocket) Close() error {
	if s.raw.Control(s.quit) != nil || s.out.errno != 0 || !s.home.put(s) {
		return s.Conn.Close()
	}
	return nil
}

func (k *freshSockets) next() *freshSocket {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.waiting) - 1
	if n < 0 {
		return nil
	}
	s := k.waiting[n]
	k.waiting[n] = nil
	k.waiting = k.waiting[:n]
	k.least = min(k.least, n)
	return s
}

// put reports whether there was room for s.
func (k *freshSockets) put(s *freshSocket) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.drained || len(k.waiting) >= maxFresh {
		return false
	}
	k.waiting = append(k.waiting, s)
	if !k.sweeping {
		k.sweeping = true
		time.AfterFunc(k.idle, k.sweep)
	}
	return true
}

// sweep closes those that nobody needed for a while: they lie lowest.
func (k *freshSockets) sweep() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.waiting[:k.least] {
		s.Conn.Close()
	}
	left := copy(k.waiting, k.waiting[k.least:])
	clear(k.waiting[left:])
	k.waiting = k.waiting[:left]
	k.least = left
	if k.sweeping = left > 0; k.sweeping {
		time.AfterFunc(k.idle, k.sweep)
	}
}

// drain throws away what came for the socket's last query, and reports whether
// that was all.
func drain(fd uintptr) bool {
	var b [1]byte
	for range drainLimit {
		_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		if errno == unix.EAGAIN {
			return true
		}
	}
	return false
}

// connectFD is connect(2), which never blocks on a datagram socket.
func connectFD(fd uintptr, to *unix.RawSockaddrInet6, size uintptr) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(to)), size)
	return errno
}

// sockaddr returns addr as the kernel reads it.
func sockaddr(addr netip.AddrPort) (sa unix.RawSockaddrInet6, size uintptr) {
	port := func(p *uint16) { *(*[2]byte)(unsafe.Pointer(p)) = [2]byte{byte(addr.Port() >> 8), byte(addr.Port())} }
	if a := addr.Addr().Unmap(); a.Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
		v4.Family, v4.Addr = unix.AF_INET, a.As4()
		port(&v4.Port)
		return sa, unix.SizeofSockaddrInet4
	}
	sa.Family, sa.Addr = unix.AF_INET6, addr.Addr().As16()
	port(&sa.Port)
	return sa, unix.SizeofSockaddrInet6
}
