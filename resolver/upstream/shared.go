package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"smartdns/resolver/wire"
)

const (
	maxSockets = 4    // shared ones to one server
	busySeats  = 64   // queries on one of them while another may be opened
	maxSeats   = 1024 // on one of them, so that a free ID is found soon
	batchSize  = 16   // replies that one system call takes at most
)

// socket is what an exchange needs of one.
type socket interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
	SetReadDeadline(time.Time) error
	Close() error
}

// sharedSockets keeps connected sockets to a server on a path where nobody can
// forge a reply, so that many queries may share a port.
type sharedSockets struct {
	dial Dial
	idle time.Duration

	mu  sync.Mutex // guards the list
	all []*sharedSocket

	free  sync.Pool // of *seat
	rooms sync.Pool // of *room
}

// sharedSocket is one of them. Its reader ends it when it has been unused for
// long enough.
type sharedSocket struct {
	net.Conn
	raw  syscall.RawConn
	home *sharedSockets
	addr netip.AddrPort

	mu    sync.Mutex // guards following
	seats map[uint16]*seat
	used  bool // since the reader last looked
	ended bool // takes no new queries
}

func newShared(c *Config) *sharedSockets {
	k := &sharedSockets{dial: c.Dial, idle: c.Timeouts.Idle}
	k.free.New = func() any { return newSeat() }
	k.rooms.New = func() any { return new(room) }
	return k
}

// seat returns a place for one query to the server at addr; nil when there is
// none and the query needs a socket of its own.
func (k *sharedSockets) seat(ctx context.Context, addr netip.AddrPort) (*seat, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := k.all[:0]
	var best *sharedSocket
	least := 0
	for _, s := range k.all {
		n, ended := s.load()
		if ended {
			continue
		}
		kept = append(kept, s)
		if s.addr == addr && (best == nil || n < least) {
			best, least = s, n
		}
	}
	clear(k.all[len(kept):])
	k.all = kept
	if best == nil || least >= busySeats && len(kept) < maxSockets {
		if len(kept) >= maxSockets {
			return nil, nil
		}
		conn, err := k.dial(ctx, "udp", addr.String())
		if err != nil {
			return nil, fmt.Errorf("opening a socket: %w", plain(err))
		}
		ignoreForgedMTU(conn, addr.Addr().Unmap().Is4())
		sc, ok := conn.(syscall.Conn)
		if !ok { // no socket of ours
			conn.Close()
			return nil, nil
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("opening a socket: %w", err)
		}
		best = &sharedSocket{Conn: conn, raw: raw, home: k, addr: addr, seats: make(map[uint16]*seat)}
		k.all = append(k.all, best)
		go best.read()
	}
	return best.take(), nil
}

func (s *sharedSocket) load() (seats int, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seats), s.ended
}

// take gives a query a free ID nobody can guess, or nil.
func (s *sharedSocket) take() *seat {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || len(s.seats) >= maxSeats {
		return nil
	}
	id := randomID()
	for s.seats[id] != nil {
		id = randomID()
	}
	t := s.home.free.Get().(*seat)
	t.sharedSocket, t.id = s, id
	s.seats[id] = t
	s.used = true
	return t
}

// retire lets the socket take no new queries: it may be one of a path that is
// no more.
func (s *sharedSocket) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.closeIfDone()
}

// closeIfDone closes an ended socket that nobody waits for. The caller holds
// the lock.
func (s *sharedSocket) closeIfDone() {
	if s.ended && len(s.seats) == 0 {
		s.Conn.Close()
	}
}

// room is where one reply is read to.
type room [wire.MaxUDP + 1]byte

// read hands each reply to the query with its ID, and an error to all, until the
// socket has been unused for long enough.
func (s *sharedSocket) read() {
	defer s.Conn.Close()
	in := batch{rooms: &s.home.rooms}
	var n int
	var errno unix.Errno
	// A socket waits for this function before it closes, which it does under
	// the lock: nothing here may take that.
	receive := func(fd uintptr) bool {
		n, errno = in.receive(fd)
		return errno != unix.EAGAIN
	}
	_ = s.SetReadDeadline(time.Now().Add(s.home.idle))
	for {
		broken := s.raw.Read(receive)
		if broken == nil && (errno == 0 || isICMP(errno)) {
			s.mu.Lock()
			if errno != 0 {
				s.tell(errno)
			}
			for i := range n {
				s.deliver(&in, i)
			}
			s.mu.Unlock()
			continue
		}
		if broken == nil {
			broken = errno
		}
		s.mu.Lock()
		if !os.IsTimeout(broken) || !s.used && len(s.seats) == 0 {
			s.tell(broken)
			s.ended = true
			s.mu.Unlock()
			return
		}
		s.used = false
		_ = s.SetReadDeadline(time.Now().Add(s.home.idle))
		s.mu.Unlock()
	}
}

// deliver gives reply i to whom it is for. The caller holds the lock.
func (s *sharedSocket) deliver(in *batch, i int) {
	reply := in.room[i][:in.calls[i].n]
	if len(reply) < wire.HeaderLen {
		return
	}
	if t := s.seats[wire.ID(reply)]; t != nil && t.give(datagram{room: in.room[i], n: len(reply)}) {
		in.room[i] = nil
	}
}

// tell tells all queries of an error. The caller holds the lock.
func (s *sharedSocket) tell(err error) {
	for _, t := range s.seats {
		t.give(datagram{err: err})
	}
}

// batch is the room for the replies of one recvmmsg.
type batch struct {
	rooms *sync.Pool
	room  [batchSize]*room // nil: given away
	vecs  [batchSize]unix.Iovec
	calls [batchSize]mmsghdr
}

// mmsghdr is struct mmsghdr (recvmmsg(2)).
type mmsghdr struct {
	unix.Msghdr
	n uint32 // octets received
}

// receive takes what waits, without waiting.
func (b *batch) receive(fd uintptr) (int, unix.Errno) {
	for i := range b.room {
		if b.room[i] != nil {
			continue
		}
		b.room[i] = b.rooms.Get().(*room)
		b.vecs[i].Base = &b.room[i][0]
		b.vecs[i].SetLen(len(b.room[i]))
		b.calls[i].Iov = &b.vecs[i]
		b.calls[i].SetIovlen(1)
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.calls)), batchSize, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
