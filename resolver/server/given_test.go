package server_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/resolver/server"
)

// handed returns the sockets of a server as another program gets them.
func handed(t *testing.T, s *server.Server) (all []server.Socket) {
	t.Helper()
	for _, c := range s.Sockets() {
		network, addr := "tcp", netip.AddrPort{}
		switch c := c.(type) {
		case *net.UDPConn:
			network, addr = "udp", c.LocalAddr().(*net.UDPAddr).AddrPort()
		case *net.TCPListener:
			addr = c.Addr().(*net.TCPAddr).AddrPort()
		}
		all = append(all, server.Socket{Network: network, Addr: addr, File: copyOf(t, c)})
	}
	return all
}

func copyOf(t *testing.T, c syscall.Conn) *os.File {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if cerr := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return os.NewFile(uintptr(fd), "copy")
}

// Queries that come while nobody reads are answered by the server that takes the
// sockets: hundreds of one client, over every transport, and by a server that has
// fewer CPUs (SECURITY C-07).
func TestGivenSocketsKeepWhatWaits(t *testing.T) {
	for _, at := range []string{"127.0.0.1:5304", "[::]:5304"} {
		old, addrs := start(t, echoA, server.DefaultLimits(), at)
		old.Pause(5 * time.Second)
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 5304).String()
		if addrs[0].Addr().Is6() {
			to = "[::1]:5304"
		}
		const queries = 500
		var clients []net.Conn
		for _, network := range []string{"udp", "tcp"} {
			c, err := net.Dial(network, to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			clients = append(clients, c)
		}
		// The client's own room must not be what is too small.
		if err := clients[0].(*net.UDPConn).SetReadBuffer(4 << 20); err != nil {
			t.Fatal(err)
		}
		for i := range queries {
			if _, err := clients[0].Write(query(fmt.Sprintf("n%d.example.com", i))); err != nil {
				t.Fatal(err)
			}
		}
		q := query("www.example.com")
		if _, err := clients[1].Write(append([]byte{0, byte(len(q))}, q...)); err != nil {
			t.Fatal(err)
		}

		next := server.New(handler(echoA), server.DefaultLimits(), slog.New(slog.DiscardHandler))
		next.Give(handed(t, old)) // old has gone without a word
		if err := next.Listen(addrs); err != nil {
			t.Fatal(err)
		}
		if left := next.CloseUnwanted(); len(left) != 0 {
			t.Errorf("not taken: %v", left)
		}
		b := make([]byte, 512)
		for _, c := range clients {
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
		}
		for i := range queries {
			if _, err := clients[0].Read(b); err != nil {
				t.Fatalf("%s: %d of %d queries were answered: %v", at, i, queries, err)
			}
		}
		if n, err := clients[1].Read(b); err != nil || n < 2 {
			t.Errorf("%s: over TCP: %v", at, err)
		}
		next.Close()
		old.Close()
	}
}

// Of what was given, the addresses that nobody asks for are closed, and a socket
// for both families is not taken for one of IPv6.
func TestGivenSocketsThatNobodyWants(t *testing.T) {
	netnstest.Require(t)
	old, _ := start(t, echoA, server.DefaultLimits(), "127.0.0.1:5305", "127.0.0.1:5306")
	next := server.New(handler(echoA), server.DefaultLimits(), slog.New(slog.DiscardHandler))
	defer next.Close()
	next.Give(handed(t, old))
	old.Close()
	if err := next.Listen([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5306"), netip.MustParseAddrPort("127.0.0.1:5307")}); err != nil {
		t.Fatal(err)
	}
	for _, s := range next.CloseUnwanted() {
		if s.Addr.Port() != 5305 {
			t.Errorf("%s was not taken", s)
		}
	}
	if holders := server.Holders(5305); len(holders) != 0 {
		t.Errorf("port 5305 is still open: %v", holders)
	}
	for _, to := range []string{"127.0.0.1:5306", "127.0.0.1:5307"} {
		for _, network := range []string{"udp", "tcp"} {
			if m, err := exchange(t, network, "", to, query("www.example.com")); err != nil || len(m.Answer) != 1 {
				t.Errorf("%s %s: %v, %v", network, to, m, err)
			}
		}
	}
	// A service manager's socket has no options of ours yet.
	plain, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero, Port: 5309})
	if err != nil {
		t.Fatal(err)
	}
	next.Give([]server.Socket{{Network: "udp", Addr: netip.MustParseAddrPort("0.0.0.0:5309"), File: copyOf(t, plain)}})
	plain.Close()
	if err := next.Listen([]netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:5309")}); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // by each of its sockets
		if m, err := exchange(t, "udp", "", fmt.Sprintf("127.0.0.%d:5309", i+1), query("www.example.com")); err != nil || len(m.Answer) != 1 {
			t.Errorf("asking at 127.0.0.%d: %v, %v", i+1, m, err)
		}
	}
	lc := net.ListenConfig{}
	both, err := lc.ListenPacket(t.Context(), "udp", ":5308")
	if err != nil {
		t.Fatal(err)
	}
	next.Give([]server.Socket{{Network: "udp", Addr: netip.MustParseAddrPort("[::]:5308"), File: copyOf(t, both.(*net.UDPConn))}})
	both.Close()
	if err := next.Listen([]netip.AddrPort{netip.MustParseAddrPort("[::]:5308")}); err == nil {
		t.Error("a socket for both families was taken for one of IPv6")
	}
}

// After Resume what came since Pause is answered, and the rest as ever; a server
// can be closed meanwhile.
func TestPauseAndResume(t *testing.T) {
	s, _ := start(t, echoA, server.DefaultLimits(), loopback)
	for range 3 {
		s.Pause(5 * time.Second)
		s.Pause(5 * time.Second) // is paused already
		var waiting []net.Conn
		for _, network := range []string{"udp", "tcp"} {
			c, err := net.Dial(network, loopback)
			if err != nil {
				t.Fatal(err)
			}
			q := query("www.example.com")
			if network == "tcp" {
				q = append([]byte{0, byte(len(q))}, q...)
			}
			if _, err := c.Write(q); err != nil {
				t.Fatal(err)
			}
			waiting = append(waiting, c)
		}
		if n := s.Stats(); n.UDP%2 != 0 || n.TCP%2 != 0 {
			t.Errorf("a paused server took queries: %+v", n)
		}
		s.Resume()
		s.Resume()
		for _, c := range waiting {
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Read(make([]byte, 512)); err != nil {
				t.Errorf("after Resume: %v", err)
			}
			c.Close()
		}
		for _, network := range []string{"udp", "tcp"} {
			if m, err := exchange(t, network, "", loopback, query("www.example.com")); err != nil || len(m.Answer) != 1 {
				t.Errorf("%s: %v, %v", network, m, err)
			}
		}
	}
	s.Pause(5 * time.Second)
	s.Close()
	if all := s.Sockets(); slices.Contains(all, nil) || len(all) != 0 {
		t.Errorf("a closed server has sockets: %v", all)
	}
}
