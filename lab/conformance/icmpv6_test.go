package conformance_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

const authority6 = "[::1]:5301"

// Forged ICMPv6 errors fail nothing either, nor do those that say that packets
// are too big: neither with a wrong port of ours in them, nor with the right one
// (SECURITY S-19).
func TestForgedICMPv6Errors(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_ICMPV6)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	server := netip.MustParseAddrPort(authority6)
	forge := func(kind, code byte, mtu, port uint16) {
		// What we would have sent: from port to authority6.
		inner := make([]byte, 40+8+32)
		inner[0], inner[6], inner[7] = 0x60, syscall.IPPROTO_UDP, 64
		be.PutUint16(inner[4:], 8+32)
		inner[23], inner[39] = 1, 1 // from ::1 to ::1
		be.PutUint16(inner[40:], port)
		be.PutUint16(inner[42:], server.Port())
		be.PutUint16(inner[44:], 8+32)
		b := append([]byte{kind, code, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, inner...) // the kernel adds the checksum
		if err := syscall.Sendto(fd, b, 0, &syscall.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}); err != nil {
			t.Error(err)
		}
	}
	c, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	ids := map[string]map[uint16]bool{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			var m dns.Msg
			if m.Unpack(b[:n]) != nil {
				continue
			}
			name := strings.ToLower(m.Question[0].Name)
			mu.Lock()
			if ids[name] == nil {
				ids[name] = map[uint16]bool{}
			}
			ids[name][m.Id] = true
			mu.Unlock()
			port := from.Port()
			if strings.HasPrefix(name, "wrong") {
				port ^= 1
			}
			for code := range byte(7) {
				forge(1, code, 0, port) // unreachable
			}
			forge(2, 0, 68, port) // too big
			forge(2, 0, 1280, port)
			forge(3, 0, 0, port) // took too long
			forge(4, 0, 0, port) // malformed
			c.WriteToUDPAddrPort(answer(b[:n], truth), from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-ended })
	run(t, strings.ReplaceAll(forward, authority, authority6))
	for i := range 20 {
		for _, guess := range []string{"wrong", "right"} {
			name := fmt.Sprintf("%s%d.icmp6.example.net.", guess, i)
			if got := lookup(t, name); got != truth {
				t.Errorf("%s: %s", name, got)
			}
			mu.Lock()
			if n := len(ids[name]); n != 1 {
				t.Errorf("%s went out under %d IDs", name, n)
			}
			mu.Unlock()
		}
	}
}
