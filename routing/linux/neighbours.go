package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// Neighbours is the kernel's neighbour table: which client has which MAC. It
// follows the kernel's events; nobody asks the kernel about a single client.
type Neighbours struct {
	table atomic.Pointer[map[station]routing.MAC]

	f   *os.File
	raw syscall.RawConn
	wg  sync.WaitGroup

	mu   sync.Mutex // guards following, and who writes table
	buf  []byte     // of one packet
	lost bool       // events were lost: the whole table has to be read again
}

// station is an address, and for a link-local v6 one the index of the link that
// it is behind: behind another it may be somebody else's.
type station struct {
	addr netip.Addr
	link int
}

func stationAt(addr netip.Addr, link int) station {
	if !addr.Is6() || !addr.IsLinkLocalUnicast() {
		link = 0
	}
	return station{addr, link}
}

const (
	neighbourBuffer = 64 << 10
	ndmLen          = 12 // struct ndmsg (rtnetlink(7))
	validStates     = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT
)

// WatchNeighbours reads the table and follows it until Close.
func WatchNeighbours() (*Neighbours, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watching the neighbours: %w", err)
	}
	n := &Neighbours{f: os.NewFile(uintptr(fd), "neighbour events"), buf: make([]byte, neighbourBuffer)}
	n.table.Store(&map[station]routing.MAC{})
	if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_NEIGH - 1)}); err == nil {
		if n.raw, err = n.f.SyscallConn(); err == nil {
			err = request(fd)
			n.drain(fd)
		}
	}
	if err != nil {
		n.f.Close()
		return nil, fmt.Errorf("watching the neighbours: %w", err)
	}
	n.wg.Go(n.run)
	return n, nil
}

// MAC returns the MAC of a client, zero when the kernel knows none: one behind
// another router, or this host. Of a link-local one, link is the index of the
// link that it is behind; of others it does not matter. It is safe for concurrent use and does not
// allocate. An event that came before the client's query is seen: the kernel
// learns a neighbour before it takes a packet from it.
func (n *Neighbours) MAC(a netip.Addr, link int) routing.MAC {
	if n == nil {
		return routing.MAC{}
	}
	s := stationAt(a, link)
	if mac, ok := (*n.table.Load())[s]; ok {
		return mac
	}
	if a.IsLoopback() {
		return routing.MAC{}
	}
	_ = n.raw.Control(func(fd uintptr) { n.drain(int(fd)) })
	return (*n.table.Load())[s]
}

// Close ends the watch.
func (n *Neighbours) Close() error {
	if n == nil {
		return nil
	}
	err := n.f.Close()
	n.wg.Wait()
	return err
}

// run takes events as they come.
func (n *Neighbours) run() {
	for n.raw.Read(func(fd uintptr) bool { return n.drain(int(fd)) }) == nil {
	}
}

// request asks the kernel for the whole table; what it answers comes among the
// events.
func request(fd int) error {
	const length = unix.SizeofNlMsghdr + ndmLen
	req := make([]byte, length)
	h := (*unix.NlMsghdr)(unsafe.Pointer(&req[0]))
	h.Len, h.Type, h.Flags = length, unix.RTM_GETNEIGH, unix.NLM_F_REQUEST|unix.NLM_F_DUMP
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("asking for the neighbours: %w", err)
	}
	return nil
}

// drain takes the events that are there, without waiting, and reports whether
// there was one.
func (n *Neighbours) drain(fd int) (some bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := edit{now: *n.table.Load()}
	for {
		size, _, err := unix.Recvfrom(fd, n.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			n.lost = true
		case err == nil:
			next.apply(n.buf[:size])
		case n.lost && request(fd) == nil:
			// What was lost may be that somebody else has an address now.
			n.lost, next = false, edit{now: map[station]routing.MAC{}, own: true}
		default:
			if next.own {
				n.table.Store(&next.now)
			}
			return some
		}
		some = true
	}
}

// edit is the table with changes; it is copied before the first one.
type edit struct {
	now map[station]routing.MAC
	own bool
}

func (e *edit) set(a station, mac routing.MAC) {
	if old := e.now[a]; old == mac {
		return
	}
	if !e.own {
		e.now, e.own = maps.Clone(e.now), true
	}
	if mac == (routing.MAC{}) {
		delete(e.now, a)
	} else {
		e.now[a] = mac
	}
}

// apply enters the messages of one packet.
func (e *edit) apply(b []byte) {
	for len(b) >= unix.SizeofNlMsghdr {
		h := (*unix.NlMsghdr)(unsafe.Pointer(&b[0]))
		length := int(h.Len)
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return
		}
		if h.Type == unix.RTM_NEWNEIGH || h.Type == unix.RTM_DELNEIGH {
			e.enter(h.Type == unix.RTM_NEWNEIGH, b[unix.SizeofNlMsghdr:length])
		}
		b = b[min(len(b), (length+3)&^3):]
	}
}

// enter enters one neighbour.
func (e *edit) enter(is bool, b []byte) {
	if len(b) < ndmLen || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return // the forwarding table of a bridge
	}
	state := binary.NativeEndian.Uint16(b[8:])
	var addr netip.Addr
	var mac routing.MAC
	for attrs := b[ndmLen:]; len(attrs) >= 4; {
		length, kind := int(binary.NativeEndian.Uint16(attrs)), binary.NativeEndian.Uint16(attrs[2:])
		if length < 4 || length > len(attrs) {
			return
		}
		switch value := attrs[4:length]; kind {
		case unix.NDA_DST:
			addr, _ = netip.AddrFromSlice(value)
		case unix.NDA_LLADDR:
			if len(value) == len(mac) {
				mac = routing.MAC(value)
			}
		}
		attrs = attrs[min(len(attrs), (length+3)&^3):]
	}
	if !addr.IsValid() || addr.IsMulticast() {
		return
	}
	if !is || state&validStates == 0 {
		mac = routing.MAC{}
	}
	e.set(stationAt(addr.Unmap(), int(int32(binary.NativeEndian.Uint32(b[4:])))), mac)
}
