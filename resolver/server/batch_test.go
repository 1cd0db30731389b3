package server

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/resolver/cache"
	"smartdns/resolver/wire"
)

// Ten packets that wait cost one system call to take and one to answer, v4 and
// v6, with and without packet info.
func TestABatchIsTwoSystemCalls(t *testing.T) {
	netnstest.Require(t)
	for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		network := "udp4"
		if at[0] == '[' {
			network = "udp6"
		}
		pc, err := net.ListenPacket(network, at)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		conn := pc.(*net.UDPConn)
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		local := conn.LocalAddr().(*net.UDPAddr)
		wildcard := local.IP.IsUnspecified()
		if wildcard {
			local.IP = net.IPv4(127, 0, 0, 1)
			if network == "udp6" {
				local.IP = net.IPv6loopback
			}
			level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
			if network == "udp6" {
				level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
			}
			if err := control(func(fd int) error { return unix.SetsockoptInt(fd, level, option, 1) })("", "", raw); err != nil {
				t.Fatal(err)
			}
		}
		client, err := net.DialUDP(network, nil, local)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		const packets = 10
		for i := range packets {
			if _, err := client.Write([]byte{byte(i), 'q'}); err != nil {
				t.Fatal(err)
			}
		}
		b := newBatch(wildcard)
		err = raw.Control(func(fd uintptr) {
			if errno := b.receive(fd); errno != 0 || b.received != packets {
				t.Fatalf("%s: took %d packets: %v", at, b.received, errno)
			}
			for i := range packets {
				msg, whole := b.query(i)
				if !whole || len(msg) != 2 || b.client(i) != client.LocalAddr().(*net.UDPAddr).AddrPort() {
					t.Errorf("%s: packet %d: %q from %s", at, i, msg, b.client(i))
				}
				b.answer(i, append(b.room(i), msg[0], 'a'))
			}
			if calls, lost := b.send(fd); calls != 1 || lost != 0 {
				t.Errorf("%s: %d system calls sent the answers, %d were lost", at, calls, lost)
			}
			if errno := b.receive(fd); errno != unix.EAGAIN || b.received != 0 {
				t.Errorf("%s: then took %d packets: %v", at, b.received, errno)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range packets {
			var buf [9]byte
			n, err := client.Read(buf[:])
			if err != nil || n != 2 || buf[0] != byte(i) || buf[1] != 'a' {
				t.Errorf("%s: answer %d: %q, %v", at, i, buf[:n], err)
			}
		}
	}
}

// A link that takes nothing costs the answers of a batch, not the socket.
func TestAStuckLinkDoesNotStopAWorker(t *testing.T) {
	netnstest.Require(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	b := newBatch(false)
	const rounds = 2000 // more than a socket holds
	var lost uint64
	for n := 0; n < rounds && lost == 0; n++ {
		for i := range batchSize {
			b.in[i].Name, b.in[i].Namelen = nil, 0
			b.answer(i, append(b.room(i), 'a'))
		}
		_, lost = b.send(uintptr(pair[0]))
	}
	if lost == 0 || lost > batchSize || b.ready != 0 {
		t.Errorf("%d answers lost, %d still wait", lost, b.ready)
	}
}

func TestAHitOfTheFastLaneDoesNotAllocate(t *testing.T) {
	netnstest.Require(t)
	// Every part that a hit goes through, but the system calls.
	s := New(nil, DefaultLimits(), nil)
	w := &worker{s: s, sealed: s.lane.Sealed, batch: newBatch(false)}
	msg := []byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 'w', 'w', 'w', 2, 'c', 'n', 0, 0, 1, 0, 1}
	copy(w.batch.queries[0][:], msg)
	w.batch.in[0].n = uint32(len(msg))
	if !sealForTest(s, msg) {
		t.Fatal("not sealed")
	}
	s.SetAccess(func(netip.AddrPort, netip.Addr) (cache.View, bool) { return 0, true })
	const closed = ^uintptr(0)
	hit := func() {
		w.batch.received = 1
		w.answer(closed)
	}
	for what, from := range map[string]unix.RawSockaddrInet6{
		"a v4 client":         {Family: unix.AF_INET},
		"a link-local client": {Family: unix.AF_INET6, Addr: [16]byte{0xfe, 0x80, 15: 5}, Scope_id: 1},
	} {
		w.batch.from[0] = from
		before := w.count.sealed.Load()
		if n := testing.AllocsPerRun(1000, hit); n != 0 {
			t.Errorf("%s: %v allocations a hit", what, n)
		}
		if st := w.count.sealed.Load() - before; st < 1000 {
			t.Errorf("%s: %d hits", what, st)
		}
	}
}

// sealForTest seals an answer without records to a query.
func sealForTest(s *Server, query []byte) bool {
	reply := append([]byte(nil), query...)
	reply[2] |= 0x80
	return s.lane.Sealed.Put(cache.Seal{Msg: wire.AppendOPT(reply, false, -1, ""), Life: time.Hour})
}
