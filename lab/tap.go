package lab

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// tap reads and writes whole frames of one link.
type tap struct{ *os.File }

// openTap opens a tap on a link of ns. With a filter it reads the incoming
// frames that pass; without, nothing: it is only for writing.
func openTap(ns *Namespace, link string, filter []bpf.Instruction) (*tap, error) {
	l, err := ns.nl.LinkByName(link)
	if err != nil {
		return nil, fmt.Errorf("finding %s in %s: %w", link, ns.Name, err)
	}
	var t *tap
	err = ns.Do(func() error {
		// Protocol 0: nothing is queued before the filter is in place.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("opening packet socket: %w", err)
		}
		var proto uint16
		if filter != nil {
			proto = htons(unix.ETH_P_ALL)
			err = prepareReading(fd, filter)
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: l.Attrs().Index})
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("binding packet socket to %s: %w", link, err)
		}
		t = &tap{os.NewFile(uintptr(fd), "packet:"+link)}
		return nil
	})
	return t, err
}

func prepareReading(fd int, filter []bpf.Instruction) error {
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return fmt.Errorf("assembling filter: %w", err)
	}
	prog := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		prog[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: unsafe.SliceData(prog)}); err != nil {
		return fmt.Errorf("attaching filter: %w", err)
	}
	const queue = 64 << 20
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue) != nil {
		// Without the capability on the host: as much as the host allows.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queue); err != nil {
			return fmt.Errorf("sizing the queue: %w", err)
		}
	}
	return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
}

// lost returns how many frames the kernel could not queue since the last call.
func (t *tap) lost() (int, error) {
	c, err := t.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st *unix.TpacketStats
	var serr error
	if err := c.Control(func(fd uintptr) {
		st, serr = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); err != nil {
		return 0, err
	}
	if serr != nil {
		return 0, fmt.Errorf("reading packet statistics: %w", serr)
	}
	return int(st.Drops), nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
