package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"smartdns/resolver/wire"
)

const (
	maxSockets = 4    // shared ones to one server
	busySeats  = 64   // queries on one of them while another may be opened
	maxSeats   = 1024 // on one of them, so that a free ID is found soon
	seatRoom   = 4    // replies to one query that wait to be read
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
}

// sharedSocket is one of them. Its reader ends it when it has been unused for
// long enough.
type sharedSocket struct {
	conn net.Conn
	addr netip.AddrPort
	idle time.Duration

	mu    sync.Mutex // guards following
	seats map[uint16]*seat
	ended bool // takes no new queries
}

// seat is one query's part of a shared socket: it reads the replies under its
// own ID.
type seat struct {
	*sharedSocket
	id    uint16
	in    chan datagram
	moved chan struct{} // the deadline is another

	mu       sync.Mutex // guards the deadline
	deadline time.Time
}

type datagram struct {
	msg []byte
	err error
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
		best = &sharedSocket{conn: conn, addr: addr, idle: k.idle, seats: make(map[uint16]*seat)}
		conn.SetReadDeadline(time.Now().Add(k.idle))
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
	t := &seat{sharedSocket: s, id: id, in: make(chan datagram, seatRoom), moved: make(chan struct{}, 1)}
	s.seats[id] = t
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
		s.conn.Close()
	}
}

// read hands each reply to the query with its ID, and an error to all.
func (s *sharedSocket) read() {
	buf := make([]byte, wire.MaxUDP+1)
	for {
		n, err := s.conn.Read(buf)
		s.mu.Lock()
		switch {
		case err == nil && n >= wire.HeaderLen:
			if t := s.seats[wire.ID(buf)]; t != nil {
				t.give(datagram{msg: append([]byte(nil), buf[:n]...)})
			}
		case err == nil:
		case os.IsTimeout(err) && len(s.seats) > 0:
			s.conn.SetReadDeadline(time.Now().Add(s.idle))
		default:
			for _, t := range s.seats {
				t.give(datagram{err: err})
			}
			if !isICMP(err) {
				s.ended = true
				s.mu.Unlock()
				s.conn.Close()
				return
			}
		}
		s.mu.Unlock()
	}
}

func (t *seat) give(d datagram) {
	select {
	case t.in <- d:
	default:
	}
}

func (t *seat) Read(b []byte) (int, error) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		t.mu.Lock()
		deadline := t.deadline
		t.mu.Unlock()
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			timer.Reset(left)
		}
		select {
		case d := <-t.in:
			return copy(b, d.msg), d.err
		case <-t.moved:
		case <-timer.C:
		}
	}
}

func (t *seat) Write(b []byte) (int, error) {
	t.conn.SetReadDeadline(time.Now().Add(t.idle))
	return t.conn.Write(b)
}

func (t *seat) SetReadDeadline(at time.Time) error {
	t.mu.Lock()
	t.deadline = at
	t.mu.Unlock()
	select {
	case t.moved <- struct{}{}:
	default:
	}
	return nil
}

// Close gives the ID back.
func (t *seat) Close() error {
	s := t.sharedSocket
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seats, t.id)
	s.closeIfDone()
	return nil
}
