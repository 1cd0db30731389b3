package server

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Answers that come while one is being sent are sent together after it, each to
// who asked, and one that cannot be sent costs no other.
func TestOutboxSendsEachAnswerToItsClient(t *testing.T) {
	from, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	_ = from.SetWriteBuffer(1 << 20)
	raw, err := from.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	pool := newPackets()
	o := &outbox{raw: raw, done: &pool}
	packetTo := func(to *net.UDPConn, text string) *packet {
		p := &packet{reply: []byte(text), fromLen: unix.SizeofSockaddrInet4}
		at := to.LocalAddr().(*net.UDPAddr).AddrPort()
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&p.from))
		v4.Family, v4.Addr = unix.AF_INET, at.Addr().Unmap().As4()
		*(*[2]byte)(unsafe.Pointer(&v4.Port)) = [2]byte{byte(at.Port() >> 8), byte(at.Port())}
		return p
	}
	const n = 3*batchSize + 5
	var clients [n]*net.UDPConn
	for i := range clients {
		if clients[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		defer clients[i].Close()
	}
	bad := &packet{reply: []byte("?")} // to an address of no family
	o.sending = true
	var all sync.WaitGroup
	for i := 1; i < n; i++ {
		if i == n/2 {
			o.put(bad)
		}
		all.Go(func() { o.put(packetTo(clients[i], string(rune('a'+i)))) })
	}
	all.Wait()
	_ = clients[1].SetReadDeadline(time.Unix(1, 0))
	if _, err := clients[1].Read(make([]byte, 9)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an answer left before its turn: %v", err)
	}
	o.sending = false
	o.put(packetTo(clients[0], "a"))
	for i, c := range clients {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 9)
		m, err := c.Read(b)
		if want := string(rune('a' + i)); err != nil || string(b[:m]) != want {
			t.Fatalf("client %d: %q, %v, want %q", i, b[:m], err, want)
		}
	}
	if o.sending || len(o.ready) > 0 {
		t.Error("the outbox never ends")
	}
}
