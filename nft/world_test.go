package nft_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/nft"
)

// A world is
//
//	lan 192.168.8.20 ── lan0 gw wan0 ── isp0 net, with every server
//	box 172.20.0.20 ─ box0 ─┘ └ wg0 ─── far0 ┘
//
// where a veth plays the tunnel: what comes by far0 came through it. A server
// answers with the address that it sees: the tunnel's own (10.9.0.2, fd09::2)
// or not.
type world struct {
	t                 testing.TB
	lan, box, gw, net netns.NsHandle
}

// Servers in net. Only what the rules say makes them differ.
const (
	foreign4 = "93.184.216.34"
	foreign6 = "2606:2800::34"
	home4    = "39.156.66.10"
	home6    = "2408:8000::10"
)

func newWorld(t testing.TB) *world {
	t.Helper()
	netnstest.Require(t, "ip", "nft")
	w := &world{t, netnstest.New(t), netnstest.New(t), netnstest.New(t), netnstest.New(t)}
	for _, ns := range []netns.NsHandle{w.lan, w.box, w.gw, w.net} {
		w.run(ns, "sysctl -qw net.ipv6.conf.default.dad_transmits=0 net.ipv6.conf.default.accept_dad=0")
	}
	for _, v := range []struct {
		gw, name string
		ns       netns.NsHandle
	}{{"lan0", "eth0", w.lan}, {"box0", "eth0", w.box}, {"wan0", "isp0", w.net}, {"wg0", "far0", w.net}} {
		w.run(w.gw, fmt.Sprintf("ip link add %s type veth peer name %s netns /proc/%d/fd/%d", v.gw, v.name, os.Getpid(), int(v.ns)))
	}
	w.run(w.gw, `
		ip addr add 192.168.8.1/24 dev lan0
		ip addr add fd08::1/64 dev lan0 nodad
		ip addr add 172.20.0.1/24 dev box0
		ip addr add 198.18.0.2/24 dev wan0
		ip addr add 2409:1::2/64 dev wan0 nodad
		ip addr add 10.9.0.2/32 dev wg0
		ip addr add fd09::2/128 dev wg0 nodad
		ip link set wg0 mtu 1420
		ip link set lan0 up
		ip link set box0 up
		ip link set wan0 up
		ip link set wg0 up
		ip route add default via 198.18.0.1
		ip route add default via 2409:1::1
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.wg0.rp_filter=2`)
	for _, family := range []string{"-4", "-6"} {
		w.run(w.gw, fmt.Sprintf(`
		ip %[1]s rule add pref 5101 fwmark 0x2000000/0x3f000000 lookup 52001
		ip %[1]s rule add pref 5102 fwmark 0x2000000/0x3f000000 unreachable
		ip %[1]s rule add pref 5190 iif lan0 fwmark 0x1000000/0x3f000000 lookup main
		ip %[1]s rule add pref 5191 iif lan0 lookup 52001`, family))
	}
	w.run(w.gw, `
		ip route add default via 10.9.0.1 dev wg0 onlink table 52001
		ip route add default via fd09::1 dev wg0 onlink table 52001`)
	w.run(w.lan, `
		ip addr add 192.168.8.20/24 dev eth0
		ip addr add fd08::20/64 dev eth0 nodad
		ip link set eth0 up
		ip route add default via 192.168.8.1
		ip route add default via fd08::1`)
	w.run(w.box, `
		ip addr add 172.20.0.20/24 dev eth0
		ip link set eth0 up
		ip route add default via 172.20.0.1`)
	w.run(w.net, `
		ip addr add 198.18.0.1/24 dev isp0
		ip addr add 2409:1::1/64 dev isp0 nodad
		ip addr add 10.9.0.1/24 dev far0
		ip addr add fd09::1/64 dev far0 nodad
		ip link set isp0 up
		ip link set far0 up
		ip route add 192.168.8.0/24 via 198.18.0.2
		ip route add 172.20.0.0/24 via 198.18.0.2
		ip route add fd08::/64 via 2409:1::2
		ip addr add `+foreign4+`/32 dev lo
		ip addr add `+foreign6+`/128 dev lo nodad
		ip addr add `+home4+`/32 dev lo
		ip addr add `+home6+`/128 dev lo nodad`)
	w.serve(w.net, 80)
	return w
}

// run runs commands, one a line, in a namespace.
func (w *world) run(ns netns.NsHandle, script string) {
	w.t.Helper()
	netnstest.Do(w.t, ns, func() {
		for l := range strings.Lines(script) {
			words := strings.Fields(l)
			if len(words) == 0 {
				continue
			}
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				w.t.Errorf("%s: %v\n%s", strings.TrimSpace(l), err, out)
			}
		}
	})
}

// serve answers on TCP and UDP, on every IPv4 address that ns has now, with the
// address that it sees. A TCP connection is then echoed.
func (w *world) serve(ns netns.NsHandle, port int) {
	w.t.Helper()
	netnstest.Do(w.t, ns, func() {
		l, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			w.t.Error(err)
			return
		}
		w.t.Cleanup(func() { l.Close() })
		go serveTCP(l)
		addresses, err := net.InterfaceAddrs()
		if err != nil {
			w.t.Error(err)
		}
		for _, a := range addresses {
			ip := netip.MustParsePrefix(a.String()).Addr()
			if !ip.Is4() {
				continue
			}
			c, err := net.ListenPacket("udp4", netip.AddrPortFrom(ip, uint16(port)).String())
			if err != nil {
				w.t.Error(err)
				continue
			}
			w.t.Cleanup(func() { c.Close() })
			go serveUDP(c)
		}
	})
	if w.t.Failed() {
		w.t.FailNow()
	}
}

func serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			fmt.Fprintln(c, peer(c.RemoteAddr()))
			io.Copy(c, c)
		}()
	}
}

func serveUDP(c net.PacketConn) {
	b := make([]byte, 1500)
	for {
		_, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		c.WriteTo([]byte(peer(from)), from)
	}
}

func peer(a net.Addr) string { return netip.MustParseAddrPort(a.String()).Addr().Unmap().String() }

// dial opens a connection from ns, with a packet mark if not 0.
func (w *world) dial(ns netns.NsHandle, network, address string, mark int) (c net.Conn, err error) {
	w.t.Helper()
	d := net.Dialer{Timeout: 2 * time.Second, Control: func(_, _ string, raw syscall.RawConn) error {
		if mark == 0 {
			return nil
		}
		var e error
		return errors.Join(raw.Control(func(fd uintptr) { e = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) }), e)
	}}
	netnstest.Do(w.t, ns, func() { c, err = d.Dial(network, address) })
	return c, err
}

// ask connects and returns the address that the server sees, or the error.
func (w *world) ask(ns netns.NsHandle, network, address string, mark ...int) string {
	w.t.Helper()
	c, err := w.dial(ns, network, address, append(mark, 0)[0])
	if err != nil {
		return short(err)
	}
	defer c.Close()
	return w.hear(c, network)
}

// hear reads the server's first words.
func (w *world) hear(c net.Conn, network string) string {
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if strings.HasPrefix(network, "udp") {
		if _, err := c.Write([]byte("?")); err != nil {
			return short(err)
		}
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		return short(err)
	}
	return strings.TrimSpace(string(b[:n]))
}

// echo sends a line over a TCP connection that was heard, and reads it back.
func echo(c net.Conn) error {
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte("ping\n")); err != nil {
		return err
	}
	b := make([]byte, 100)
	_, err := c.Read(b)
	return err
}

func short(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case os.IsTimeout(err):
		return "silence"
	}
	return err.Error()
}

// set opens the table in gw and brings it to r.
func (w *world) set(mode nft.Mode, r nft.Ruleset) *nft.Table {
	w.t.Helper()
	var table *nft.Table
	netnstest.Do(w.t, w.gw, func() {
		var err error
		if table, err = nft.Open(w.t.Context(), nft.Options{Mode: mode}); err != nil {
			w.t.Error(err)
			return
		}
		if _, err = table.Set(w.t.Context(), r); err != nil {
			w.t.Error(err)
		}
	})
	if table == nil || w.t.Failed() {
		w.t.FailNow()
	}
	w.t.Cleanup(func() { table.Close() })
	return table
}

// become brings the table to another ruleset.
func (w *world) become(table *nft.Table, r nft.Ruleset) {
	w.t.Helper()
	netnstest.Do(w.t, w.gw, func() {
		if _, err := table.Set(w.t.Context(), r); err != nil {
			w.t.Error(err)
		}
	})
}

// sniff counts what reaches net over the uplink for an address from now on.
func (w *world) sniff(address string) (frames func() int) {
	w.t.Helper()
	family := "ip"
	if strings.Contains(address, ":") {
		family = "ip6"
	}
	table := fmt.Sprintf("sniff%d", sniffers.Add(1))
	netnstest.Do(w.t, w.net, func() {
		load(w.t, fmt.Sprintf(`table inet %s {
			counter seen { }
			chain c {
				type filter hook prerouting priority -400
				iifname "isp0" %s daddr %s counter name seen
			}
		}`, table, family, address))
	})
	return func() (n int) {
		netnstest.Do(w.t, w.net, func() { n = packets(w.t, table, "seen") })
		return n
	}
}

var sniffers atomic.Int64

// packets reads a named counter.
func packets(t testing.TB, table, name string) int {
	t.Helper()
	for l := range strings.Lines(nftOut(t, "list", "counter", "inet", table, name)) {
		if words := strings.Fields(l); len(words) > 1 && words[0] == "packets" {
			n, err := strconv.Atoi(words[1])
			if err != nil {
				t.Error(err)
			}
			return n
		}
	}
	t.Errorf("no counter %s in table %s", name, table)
	return 0
}

func (w *world) want(what, got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func readFile(name string) ([]byte, error) { return os.ReadFile(name) }

// maxSegment returns what the kernel sends at most in one segment.
func maxSegment(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
	}
	if err != nil {
		t.Error(err)
	}
	return n
}
