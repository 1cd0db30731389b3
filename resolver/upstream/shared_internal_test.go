package upstream

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A socket that is closed under its lock does not wait for a reader that waits
// for the lock with a reply in its hands.
func TestClosingUnderTheLockWaitsForNoReply(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	addr := netip.MustParseAddrPort(server.LocalAddr().String())
	k := newShared(&Config{Dial: (&net.Dialer{}).DialContext, Timeouts: Timeouts{Idle: time.Minute}})
	q, err := k.seat(context.Background(), addr)
	if err != nil || q == nil {
		t.Fatal(q, err)
	}
	s := q.sharedSocket
	s.mu.Lock()
	if _, err := server.WriteTo(make([]byte, 20), s.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	taken := false
	for until := time.Now().Add(20 * time.Second); !taken && time.Now().Before(until); {
		if err := s.raw.Control(func(fd uintptr) {
			_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			taken = err == unix.EAGAIN
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !taken {
		t.Fatal("nobody reads")
	}
	var closed sync.WaitGroup
	closed.Go(func() { s.Conn.Close() })
	over := make(chan struct{})
	go func() { closed.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(20 * time.Second):
		t.Error("closing waits for the reader, and the reader for the lock")
	}
	s.mu.Unlock()
}
