package upstream

import (
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seatRoom is how many replies to one query wait to be read.
const seatRoom = 4

// seat is one query's part of a shared socket: it reads the replies under its
// own ID.
type seat struct {
	*sharedSocket
	id    uint16
	in    chan datagram
	moved chan struct{} // the deadline is another
	timer *time.Timer

	out   []byte           // what send sends
	send  func(fd uintptr) // sets errno
	errno unix.Errno

	mu       sync.Mutex // guards the deadline
	deadline time.Time
}

// datagram is a reply, or why none may come.
type datagram struct {
	room *room
	n    int
	err  error
}

func newSeat() *seat {
	t := &seat{in: make(chan datagram, seatRoom), moved: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	t.timer.Stop()
	t.send = func(fd uintptr) {
		_, _, t.errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&t.out[0])), uintptr(len(t.out)), unix.MSG_DONTWAIT, 0, 0)
	}
	return t
}

// give reports whether there was room for d.
func (t *seat) give(d datagram) bool {
	select {
	case t.in <- d:
		return true
	default:
		return false
	}
}

func (t *seat) Read(b []byte) (int, error) {
	for {
		select {
		case d := <-t.in:
			return t.took(d, b)
		default:
		}
		select {
		case <-t.moved: // to what is read now
		default:
		}
		t.mu.Lock()
		deadline := t.deadline
		t.mu.Unlock()
		left := time.Until(deadline)
		if left <= 0 {
			return 0, os.ErrDeadlineExceeded
		}
		t.timer.Reset(left)
		select {
		case d := <-t.in:
			t.timer.Stop()
			return t.took(d, b)
		case <-t.moved:
		case <-t.timer.C:
		}
	}
}

func (t *seat) took(d datagram, b []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	defer t.home.rooms.Put(d.room)
	return copy(b, d.room[:d.n]), nil
}

func (t *seat) Write(b []byte) (int, error) {
	t.out = b
	err := t.raw.Control(t.send)
	t.out = nil
	switch {
	case err != nil:
		return 0, err
	case t.errno == unix.EAGAIN:
		return t.Conn.Write(b) // waits for room
	case t.errno != 0:
		return 0, t.errno
	}
	return len(b), nil
}

// SetReadDeadline sets when Read gives up, also for one that waits already. The
// zero time is long past.
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
	delete(s.seats, t.id)
	s.closeIfDone()
	s.mu.Unlock()
	for {
		select {
		case d := <-t.in:
			if d.room != nil {
				s.home.rooms.Put(d.room)
			}
		default:
			s.home.free.Put(t)
			return nil
		}
	}
}
