package linux

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/routing"
)

// neighbour adds, or removes, what the kernel would learn by ARP.
func neighbour(t *testing.T, link int, addr string, mac routing.MAC, state int) {
	t.Helper()
	n := &netlink.Neigh{LinkIndex: link, State: state, IP: net.ParseIP(addr), HardwareAddr: mac[:]}
	if state == 0 {
		if err := netlink.NeighDel(n); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := netlink.NeighSet(n); err != nil {
		t.Fatal(err)
	}
}

func lanLink(t *testing.T) int {
	t.Helper()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "lan1"}
	if err := netlink.LinkAdd(v); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName("lan0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

// becomes waits until addr has mac.
func becomes(t *testing.T, n *Neighbours, addr string, mac routing.MAC) {
	t.Helper()
	a := netip.MustParseAddr(addr)
	for end := time.Now().Add(5 * time.Second); n.MAC(a, 0) != mac; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s has %s, want %s", addr, n.MAC(a, 0), mac)
		}
	}
}

func TestNeighboursFollowTheKernel(t *testing.T) {
	netnstest.Require(t)
	netnstest.Do(t, netnstest.New(t), func() {
		link := lanLink(t)
		one, two := routing.MAC{2, 0, 0, 0, 0, 1}, routing.MAC{2, 0, 0, 0, 0, 2}
		neighbour(t, link, "192.168.8.20", one, netlink.NUD_REACHABLE)
		neighbour(t, link, "fd00:8::20", two, netlink.NUD_STALE)
		n, err := WatchNeighbours()
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		for addr, want := range map[string]routing.MAC{"192.168.8.20": one, "fd00:8::20": two, "192.168.8.99": {}, "127.0.0.1": {}} {
			if got := n.MAC(netip.MustParseAddr(addr), 0); got != want {
				t.Errorf("%s has %s, want %s", addr, got, want)
			}
		}
		// The kernel said it before the client could ask: no waiting.
		neighbour(t, link, "192.168.8.21", two, netlink.NUD_STALE)
		if got := n.MAC(netip.MustParseAddr("192.168.8.21"), 0); got != two {
			t.Errorf("a client that came just now has %s, want %s", got, two)
		}
		neighbour(t, link, "192.168.8.20", two, netlink.NUD_REACHABLE)
		becomes(t, n, "192.168.8.20", two)
		neighbour(t, link, "192.168.8.20", two, netlink.NUD_FAILED)
		becomes(t, n, "192.168.8.20", routing.MAC{})
		neighbour(t, link, "192.168.8.21", two, 0)
		becomes(t, n, "192.168.8.21", routing.MAC{})
		if (*Neighbours)(nil).MAC(netip.MustParseAddr("192.168.8.20"), 0) != (routing.MAC{}) {
			t.Error("nobody's neighbours have a MAC")
		}
		// The same link-local address behind two links is two clients.
		far, err := netlink.LinkByName("lan1")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(far); err != nil {
			t.Fatal(err)
		}
		neighbour(t, link, "fe80::20", one, netlink.NUD_STALE)
		neighbour(t, far.Attrs().Index, "fe80::20", two, netlink.NUD_STALE)
		local := netip.MustParseAddr("fe80::20")
		for at, want := range map[int]routing.MAC{link: one, far.Attrs().Index: two, 0: {}} {
			if got := n.MAC(local, at); got != want {
				t.Errorf("behind link %d fe80::20 has %s, want %s", at, got, want)
			}
		}
		a := netip.MustParseAddr("fd00:8::20")
		if allocs := testing.AllocsPerRun(100, func() { n.MAC(a, 0) }); allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
	})
}

func TestNeighboursAreReadAnewWhenEventsWereLost(t *testing.T) {
	netnstest.Require(t)
	netnstest.Do(t, netnstest.New(t), func() {
		link := lanLink(t)
		neighbour(t, link, "192.168.8.1", routing.MAC{2, 1}, netlink.NUD_STALE)
		n, err := WatchNeighbours()
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		n.mu.Lock() // nobody reads
		n.raw.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
				t.Error(err)
			}
		})
		for i := range 200 {
			neighbour(t, link, netip.AddrFrom4([4]byte{192, 168, 9, byte(i)}).String(), routing.MAC{2, 2, byte(i)}, netlink.NUD_STALE)
		}
		neighbour(t, link, "192.168.8.1", routing.MAC{2, 3}, netlink.NUD_STALE)
		n.mu.Unlock()
		becomes(t, n, "192.168.8.1", routing.MAC{2, 3})
		for i := range 200 {
			becomes(t, n, netip.AddrFrom4([4]byte{192, 168, 9, byte(i)}).String(), routing.MAC{2, 2, byte(i)})
		}
	})
}
