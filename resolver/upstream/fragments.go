package upstream

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

var errFragments = errors.New("the reply came in fragments")

// whole is a UDP socket that takes no datagram which came in fragments: only
// the first one has the ports and the ID, and the others can be replaced by
// whoever guesses 16 bits of the IP header. Read returns errFragments for one.
type whole struct {
	*net.UDPConn
	control [64]byte
}

// refuseFragments returns conn so that it reads whole datagrams only; conn
// itself where the kernel does not say how a datagram came.
func refuseFragments(conn net.Conn, v4 bool) net.Conn {
	c, ok := conn.(*net.UDPConn)
	if !ok {
		return conn
	}
	if raw, err := c.SyscallConn(); err != nil || !reportFragments(raw, v4) {
		return conn
	}
	return &whole{UDPConn: c}
}

// reportFragments has the kernel say with each datagram whether it came in
// fragments, by a control message with the size of the largest, and reports
// whether it can.
func reportFragments(raw syscall.RawConn, v4 bool) bool {
	level, option := unix.IPPROTO_IP, unix.IP_RECVFRAGSIZE
	if !v4 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVFRAGSIZE
	}
	failed := error(unix.EINVAL)
	err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, 1) })
	return err == nil && failed == nil
}

func (w *whole) Read(b []byte) (int, error) {
	n, control, _, _, err := w.ReadMsgUDPAddrPort(b, w.control[:])
	if err == nil && control > 0 {
		return 0, errFragments
	}
	return n, err
}
