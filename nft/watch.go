package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Watch notices that somebody else changed our table. It is for one
// goroutine at a time.
//
// The kernel queues an event before the change's own system call returns, so
// whoever asks after that sees it.
type Watch struct {
	file *os.File // nil = nobody else can change the table
	raw  syscall.RawConn
	buf  []byte
	seen bool   // somebody did since the last question
	name string // of the table
	once func(fd uintptr) bool
}

// newWatch opens a socket that hears of every change to nftables but those
// made through the socket with that port.
func newWatch(port uint32) (*Watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening an nftables event socket: %w", err)
	}
	w := &Watch{file: os.NewFile(uintptr(fd), "nftables events"), buf: make([]byte, 64<<10), name: TableName}
	if err := errors.Join(ignore(fd, port), unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES)); err != nil {
		w.file.Close()
		return nil, fmt.Errorf("listening to nftables events: %w", err)
	}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, err
	}
	w.once = func(fd uintptr) bool {
		w.drain(int(fd))
		return true
	}
	return w, nil
}

// ignore makes the kernel drop what the socket with that port caused: marking
// at full speed would overflow us. All messages of one datagram are of one
// transaction.
func ignore(fd int, port uint32) error {
	const portOffset = 12 // of nlmsg_pid
	be := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port))
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: portOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: be},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// Foreign reports, without waiting, whether somebody else changed our table
// since the last call. When events were lost it says yes.
func (w *Watch) Foreign() bool {
	if w.file == nil {
		return false
	}
	w.seen = false
	err := w.raw.Read(w.once)
	return w.seen || err != nil
}

// wait returns when somebody else changed our table, or with an error when w
// was closed.
func (w *Watch) wait() error {
	w.seen = false
	return w.raw.Read(func(fd uintptr) bool {
		w.drain(int(fd))
		return w.seen
	})
}

// Close releases the socket.
func (w *Watch) Close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}

func (w *Watch) drain(fd int) {
	for {
		n, err := unix.Read(fd, w.buf)
		switch err {
		case nil:
			w.seen = about(w.buf[:n], w.name) || w.seen
		case unix.EINTR:
		case unix.EAGAIN:
			return
		default: // ENOBUFS: events were lost
			w.seen = true
			if err != unix.ENOBUFS {
				return
			}
		}
	}
}

// about reports whether one of the events is about the table called name. In
// every kind of event, attribute 1 is the table's name.
func about(b []byte, name string) bool {
	const table = unix.NFTA_TABLE_NAME
	found := false
	err := walk(b, func(typ, _ uint16, _, _ uint32, body []byte) error {
		if typ>>8 == unix.NFNL_SUBSYS_NFTABLES && len(body) >= genLen && body[0] == unix.NFPROTO_INET {
			found = found || bytes.Equal(find(body[genLen:], table), []byte(name+"\x00"))
		}
		return nil
	})
	return found || err != nil
}
