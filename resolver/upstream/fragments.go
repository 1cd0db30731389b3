package upstream

import (
	"errors"
	"net"

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
	raw, err := c.SyscallConn()
	if err != nil {
		return conn
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if v4 {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVFRAGSIZE, 1)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVFRAGSIZE, 1)
		}
	})
	if err != nil || failed != nil {
		return conn
	}
	return &whole{UDPConn: c}
}

func (w *whole) Read(b []byte) (int, error) {
	n, control, _, _, err := w.ReadMsgUDPAddrPort(b, w.control[:])
	if err == nil && control > 0 { // the one message asked for: the size of the largest fragment
		return 0, errFragments
	}
	return n, err
}
