package linux

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// batchBytes is how much of a batch is sent at once: the kernel answers each
// message, and its answers must find room.
const batchBytes = 32 << 10

// routesAhead returns how many steps at the beginning of steps are about
// routes.
func routesAhead(steps []routing.Step) int {
	for i, s := range steps {
		switch s.(type) {
		case routing.ReplaceRoute, routing.DelRoute:
		default:
			return i
		}
	}
	return len(steps)
}

// batch makes many steps about routes with few system calls, in their order,
// and returns the error of each.
func (k *Kernel) batch(steps []routing.Step) []error {
	errs := make([]error, len(steps))
	fail := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fail(fmt.Errorf("opening netlink: %w", err))
	}
	defer unix.Close(fd)
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
		// Its answers then have room: they are without the message.
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	); err != nil {
		return fail(fmt.Errorf("opening netlink: %w", err))
	}
	b := batch{fd: fd, errs: errs, at: map[uint32]int{}, steps: steps}
	links := map[string]int{}
	for i, s := range steps {
		req, err := requestFor(s, func(name string) (int, error) {
			if index, ok := links[name]; ok {
				return index, nil
			}
			index, err := k.indexOf(name)
			if err == nil {
				links[name] = index
			}
			return index, err
		})
		if err != nil {
			b.done(i, err)
			continue
		}
		b.buf = append(b.buf, req.Serialize()...)
		b.at[req.Seq] = i
		if len(b.buf) >= batchBytes {
			b.flush()
		}
	}
	b.flush()
	return errs
}

// requestFor is the message of a step about a route.
func requestFor(step routing.Step, indexOf func(string) (int, error)) (*nl.NetlinkRequest, error) {
	if s, ok := step.(routing.DelRoute); ok {
		return routeRequest(unix.RTM_DELROUTE, 0, s.Route, indexOf)
	}
	return routeRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, step.(routing.ReplaceRoute).Route, indexOf)
}

// batch is what is to be sent, and whose answers are awaited.
type batch struct {
	fd    int
	buf   []byte
	steps []routing.Step
	errs  []error
	at    map[uint32]int // steps by the sequence number of their message
}

// done takes the outcome of a step; a route that is not there need not be
// deleted.
func (b *batch) done(i int, err error) {
	if _, ok := b.steps[i].(routing.DelRoute); ok {
		err = except(err, unix.ESRCH, unix.ENODEV)
	}
	b.errs[i] = err
}

// flush sends what there is and reads an answer to each message of it.
func (b *batch) flush() {
	if len(b.buf) == 0 {
		return
	}
	err := unix.Sendto(b.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	b.buf = b.buf[:0]
	answer := make([]byte, 64<<10)
	for err == nil && len(b.at) > 0 {
		var n int
		n, _, err = unix.Recvfrom(b.fd, answer, 0)
		if errors.Is(err, unix.EINTR) {
			err = nil
			continue
		}
		if err == nil {
			err = b.read(answer[:n])
		}
	}
	for seq, i := range b.at { // without an answer
		b.errs[i] = fmt.Errorf("asking the kernel: %w", err)
		delete(b.at, seq)
	}
}

// read takes the kernel's answers.
func (b *batch) read(data []byte) error {
	for len(data) >= unix.NLMSG_HDRLEN {
		length := int(nl.NativeEndian().Uint32(data))
		if length < unix.NLMSG_HDRLEN || length > len(data) {
			return errors.New("an answer of netlink is cut off")
		}
		kind, seq := nl.NativeEndian().Uint16(data[4:]), nl.NativeEndian().Uint32(data[8:])
		if i, ours := b.at[seq]; ours && kind == unix.NLMSG_ERROR && length >= unix.NLMSG_HDRLEN+4 {
			delete(b.at, seq)
			var err error
			if code := int32(nl.NativeEndian().Uint32(data[unix.NLMSG_HDRLEN:])); code != 0 {
				err = unix.Errno(-code)
			}
			b.done(i, err)
		}
		data = data[min(len(data), (length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return nil
}
