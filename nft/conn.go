package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"

	"golang.org/x/sys/unix"
)

// Errors of the kernel that callers tell apart.
var (
	// ErrUnsupported: the kernel has no nf_tables, or not what we need of it.
	ErrUnsupported = errors.New("this kernel has no nf_tables with family inet (try: modprobe nf_tables nft_ct nft_fib_inet nft_reject_inet)")
	// ErrForeign: the table belongs to another running program.
	ErrForeign = errors.New("table inet " + TableName + " belongs to another running program")
	// ErrFull: a set has no room for more elements.
	ErrFull = errors.New("the set is full")

	// ErrQuota: one owner has MarksPerOwner addresses marked.
	ErrQuota = fmt.Errorf("%d addresses below one domain are marked, and no more can be", MarksPerOwner)
	// ErrClosed: the Table was closed.
	ErrClosed = errors.New("the nft table is closed")

	errInterrupted = errors.New("the ruleset changed while it was read")
)

// A conn is a netlink socket of our own. Netlink answers within the system
// call that asks, so every answer waits in the receive buffer when send
// returns: no poller, no goroutine.
type conn struct {
	mu   sync.Mutex // guards the rest
	fd   int
	port uint32
	seq  uint32
	buf  []byte
}

// dial opens a socket in the network namespace of the calling thread.
func dial(protocol int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("binding a netlink socket: %w", err)
	}
	c := &conn{fd: fd, buf: make([]byte, 64<<10)}
	if sa, err := unix.Getsockname(fd); err == nil {
		if nl, ok := sa.(*unix.SockaddrNetlink); ok {
			c.port = nl.Pid
		}
	}
	// An error comes back with its message, which can be long; we know what
	// we sent. A kernel that does not know the option sends more, no less.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return c, nil
}

// room makes the socket take a whole ruleset in one message and its answer.
func (c *conn) room(send, receive int) {
	c.buffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, send)
	c.buffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receive)
}

// buffer sets the size of one, as far as the kernel lets us: what does not fit
// is an error of its own.
func (c *conn) buffer(force, plain, size int) {
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, plain, size)
	}
}

func (c *conn) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// A refusal is the kernel's answer to one message.
type refusal struct {
	message uint32 // which one, from 0
	errno   unix.Errno
}

func (e refusal) Error() string { return e.errno.Error() }
func (e refusal) Unwrap() error { return e.errno }

// transact sends the transaction that build writes, and returns when the
// kernel has taken all of it or, with an error, none of it.
func (c *conn) transact(m *messages, build func(*messages)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.start(m); err != nil {
		return err
	}
	m.batchBegin()
	build(m)
	if m.n == 1 {
		return nil
	}
	m.batchEnd()
	return c.exchange(m, m.first+m.n-2)
}

// request sends one message that asks for an acknowledgement.
func (c *conn) request(m *messages, build func(*messages)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.start(m); err != nil {
		return err
	}
	build(m)
	return c.exchange(m, m.first)
}

func (c *conn) start(m *messages) error {
	if c.fd < 0 {
		return ErrClosed
	}
	m.reset(c.seq)
	return nil
}

func (c *conn) send(m *messages) error {
	c.seq += m.n
	for grown := false; ; {
		_, err := unix.Write(c.fd, m.buf)
		switch {
		case err == unix.EMSGSIZE && !grown:
			grown = true
			c.buffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, len(m.buf))
		case err != unix.EINTR:
			return err
		}
	}
}

// exchange sends m and reads everything that comes back. The acknowledgement
// of message last means success.
func (c *conn) exchange(m *messages, last uint32) error {
	if err := c.send(m); err != nil {
		return err
	}
	var refused error
	done := false
	err := c.drain(func(typ, flags uint16, seq uint32, body []byte) error {
		if typ != unix.NLMSG_ERROR || len(body) < 4 || seq-m.first >= m.n {
			return nil
		}
		errno := -int32(binary.NativeEndian.Uint32(body))
		if errno == 0 {
			done = done || seq == last
		} else if refused == nil {
			refused = refusal{seq - m.first, unix.Errno(errno)}
		}
		return nil
	})
	switch {
	case refused != nil:
		return refused
	case err != nil:
		return err
	case !done:
		return errors.New("the kernel did not answer")
	}
	return nil
}

// dump asks with the message that build writes, and calls each for the body of
// every message of the answer. The body is valid during the call only.
func (c *conn) dump(m *messages, build func(*messages), each func(typ uint16, body []byte) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.start(m); err != nil {
		return err
	}
	build(m)
	if err := c.send(m); err != nil {
		return err
	}
	var result error
	interrupted := false
	err := c.drain(func(typ, flags uint16, seq uint32, body []byte) error {
		if seq != m.first {
			return nil
		}
		interrupted = interrupted || flags&unix.NLM_F_DUMP_INTR != 0
		switch typ {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(body) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
					result = unix.Errno(errno)
				}
			}
			return nil
		}
		if result == nil {
			result = each(typ, body)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case result == nil && interrupted:
		return errInterrupted
	}
	return result
}

// drain reads until nothing waits.
func (c *conn) drain(each func(typ, flags uint16, seq uint32, body []byte) error) error {
	for {
		n, err := unix.Read(c.fd, c.buf)
		switch err {
		case nil:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return nil
		default:
			return err
		}
		if err := walk(c.buf[:n], func(typ, flags uint16, seq, _ uint32, body []byte) error {
			return each(typ, flags, seq, body)
		}); err != nil {
			return err
		}
	}
}

// walk calls f for every netlink message in b.
func walk(b []byte, f func(typ, flags uint16, seq, port uint32, body []byte) error) error {
	for len(b) >= headerLen {
		n := int(binary.NativeEndian.Uint32(b))
		if n < headerLen || n > len(b) {
			return errors.New("a netlink message is cut")
		}
		e := binary.NativeEndian
		if err := f(e.Uint16(b[4:]), e.Uint16(b[6:]), e.Uint32(b[8:]), e.Uint32(b[12:]), b[headerLen:n]); err != nil {
			return err
		}
		b = b[min(len(b), (n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return nil
}

// explain says in one sentence what an error of the kernel means here.
func explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: %w: CAP_NET_ADMIN is missing, or the table belongs to another running program", doing, os.ErrPermission)
	case errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%s: %w", doing, ErrFull)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%s: %w", doing, ErrUnsupported)
	case errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("%s: %w: the ruleset is larger than a socket's send buffer may be (net.core.wmem_max)", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// stepOf returns which of the steps, whose first messages are given, the
// refused message belongs to.
func stepOf(firsts []uint32, e refusal) int {
	return sort.Search(len(firsts), func(i int) bool { return firsts[i] > e.message }) - 1
}
