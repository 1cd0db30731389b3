package server

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"smartdns/resolver/wire"
)

// batchSize is how many packets one system call takes or sends at most.
const batchSize = 32

// mmsghdr is struct mmsghdr (recvmmsg(2)).
type mmsghdr struct {
	unix.Msghdr
	n uint32 // octets received or sent
}

// batch is the room for the packets of one recvmmsg and for the answers that
// one sendmmsg sends. Everything lies where the kernel reads and writes it.
type batch struct {
	in, out         [batchSize]mmsghdr
	inVec, outVec   [batchSize]unix.Iovec
	from            [batchSize]unix.RawSockaddrInet6 // or RawSockaddrInet4, which is smaller
	info            [batchSize][oobLen]byte
	queries         [batchSize][maxUDPQuery + 1]byte
	answers         [batchSize][wire.MaxUDP]byte
	wantInfo        bool
	received, ready int
}

// newBatch returns a batch for a socket; wantInfo says that it is bound to a
// wildcard, so that each packet says to which address it was sent.
func newBatch(wantInfo bool) *batch {
	b := &batch{wantInfo: wantInfo}
	for i := range batchSize {
		b.inVec[i].Base = &b.queries[i][0]
		b.inVec[i].SetLen(len(b.queries[i]))
		b.in[i].Name = (*byte)(unsafe.Pointer(&b.from[i]))
		b.in[i].Iov = &b.inVec[i]
		b.in[i].SetIovlen(1)
		if wantInfo {
			b.in[i].Control = &b.info[i][0]
		}
		b.out[i].Iov = &b.outVec[i]
		b.out[i].SetIovlen(1)
		b.arm(i)
	}
	return b
}

// arm gives the kernel back what it may write to.
func (b *batch) arm(i int) {
	b.in[i].Namelen = uint32(unsafe.Sizeof(b.from[i]))
	if b.wantInfo {
		b.in[i].SetControllen(oobLen)
	}
}

// receive takes what waits, without waiting, and without telling the scheduler
// of a system call that never takes long.
func (b *batch) receive(fd uintptr) unix.Errno {
	for i := range b.received {
		b.arm(i)
	}
	b.received, b.ready = 0, 0
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in)), batchSize, unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			b.received = int(n)
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// query returns packet i; ok is false when the kernel has cut it.
func (b *batch) query(i int) (msg []byte, ok bool) {
	return b.queries[i][:b.in[i].n], b.in[i].Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) == 0 && b.in[i].n <= maxUDPQuery
}

// client returns who sent packet i, without the zone.
func (b *batch) client(i int) netip.AddrPort {
	a := &b.from[i]
	port := *(*[2]byte)(unsafe.Pointer(&a.Port))
	p := uint16(port[0])<<8 | uint16(port[1])
	if a.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), p)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), p)
}

// scope returns the link that the sender of packet i is behind where its address
// means nothing without, else 0.
func (b *batch) scope(i int) uint32 {
	if a := &b.from[i]; a.Family == unix.AF_INET6 {
		return a.Scope_id
	}
	return 0
}

// oob returns the control messages of packet i.
func (b *batch) oob(i int) []byte {
	if !b.wantInfo {
		return nil
	}
	return b.info[i][:b.in[i].Controllen]
}

// room returns where the answer to packet i is written.
func (b *batch) room(i int) []byte { return b.answers[i][:0] }

// answer makes msg, which lies in room, the answer to packet i.
func (b *batch) answer(i int, msg []byte) {
	o := &b.out[b.ready]
	b.outVec[b.ready].Base = &msg[0]
	b.outVec[b.ready].SetLen(len(msg))
	o.Name, o.Namelen = b.in[i].Name, b.in[i].Namelen
	if b.wantInfo {
		oob := source(b.oob(i))
		o.Control = &b.info[i][0]
		o.SetControllen(len(oob))
	}
	b.ready++
}

// send sends the answers. One that the kernel does not take is an answer lost
// on the way, and so is what is left when the link takes nothing for too long.
// It returns how many system calls that took, and how many answers were lost.
func (b *batch) send(fd uintptr) (calls, lost uint64) {
	for sent := 0; sent < b.ready; {
		calls++
		n, errno := sendmmsg(fd, b.out[sent:b.ready])
		switch {
		case errno == 0:
			sent += n
		case errno == unix.EINTR, errno == unix.EAGAIN && writable(fd):
		case errno == unix.EAGAIN:
			lost += uint64(b.ready - sent)
			sent = b.ready
		default:
			lost++
			sent++
		}
	}
	b.ready = 0
	return calls, lost
}

// sendmmsg sends some of all, without waiting and without telling the
// scheduler.
func sendmmsg(fd uintptr, all []mmsghdr) (sent int, errno unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&all[0])), uintptr(len(all)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// writable waits until the kernel has room for an answer, and reports false
// when that took so long that the link must be stuck: meanwhile nobody reads
// this socket.
func writable(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 100)
	return n > 0 || err == unix.EINTR
}
