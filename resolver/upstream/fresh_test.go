package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/resolver/upstream"
)

// Each query has a port of its own, although few sockets are opened, and what
// came late for the last query of a socket is not the next one's.
func TestFreshPortsOnFewSockets(t *testing.T) {
	netnstest.Require(t)
	for _, server := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(server, func(t *testing.T) {
			pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(server)))
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			ports := map[uint16]bool{}
			over := make(chan struct{})
			go func() {
				defer close(over)
				for buf := make([]byte, 2048); ; {
					n, from, err := pc.ReadFromUDPAddrPort(buf)
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err != nil {
						continue // an ICMP error: the second reply came too late
					}
					ports[from.Port()] = true
					q := bytes.Clone(buf[:n])
					client{pc, from}.send(reply(q, right))
					client{pc, from}.send(reply(q, other))
				}
			}()
			var dials atomic.Int32
			ex := newServer(t, upstream.Config{
				Scheme: "udp", Where: upstream.At(pc.LocalAddr().(*net.UDPAddr).AddrPort()), Spoofable: true,
				Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
					dials.Add(1)
					return dial(ctx, network, address)
				},
			})
			const n = 300
			for range n {
				if r := want(t, ex, query(asked), right); len(r.Tries) != 1 || r.Tries[0].Note != "" {
					t.Fatalf("tries %+v", r.Tries)
				}
			}
			pc.Close()
			<-over
			if dials.Load() > 1 || len(ports) < n*9/10 {
				t.Errorf("%d sockets were opened, and %d queries came from %d ports", dials.Load(), n, len(ports))
			}
		})
	}
}

// A socket that lost what Dial gave it, when it was disconnected, is no way to
// send another query on the same path.
func TestSocketBoundToDeviceIsUsedOnce(t *testing.T) {
	netnstest.Require(t)
	var dials atomic.Int32
	f := serve(t, truthUDP, truthTCP)
	ex := newServer(t, upstream.Config{
		Scheme: "udp", Where: upstream.At(f.addr), Spoofable: true,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
				e := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "lo") })
				return errors.Join(e, err)
			}}
			return d.DialContext(ctx, network, address)
		},
	})
	for range 10 {
		want(t, ex, query(asked), right)
	}
	if dials.Load() != 10 {
		t.Errorf("%d sockets for 10 queries", dials.Load())
	}
}

// A mark stays with a socket that is used again, and the socket is closed when
// nobody has used it for a while.
func TestFreshSocketKeepsItsMarkUntilItIsClosed(t *testing.T) {
	netnstest.Require(t)
	opened := make(chan *net.UDPConn, 10)
	f := serve(t, truthUDP, truthTCP)
	times := quick
	times.Idle = 50 * time.Millisecond
	ex := newServer(t, upstream.Config{
		Scheme: "udp", Where: upstream.At(f.addr), Spoofable: true, Timeouts: times,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
				e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, 0x77) })
				return errors.Join(e, err)
			}}
			c, err := d.DialContext(ctx, network, address)
			if err == nil {
				opened <- c.(*net.UDPConn)
			}
			return c, err
		},
	})
	for range 3 {
		want(t, ex, query(asked), right)
	}
	c := <-opened
	if raw, err := c.SyscallConn(); err == nil {
		mark := 0
		// Closed already, on a slow machine, it has none.
		if e := raw.Control(func(fd uintptr) { mark, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK) }); e == nil && mark != 0x77 {
			t.Errorf("mark %#x, %v", mark, err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("an idle socket: %v, want it closed", err)
	}
}
