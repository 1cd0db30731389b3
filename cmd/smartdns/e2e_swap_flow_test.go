package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/lab"
)

// movedPrefixes are those of n1.foreign.test and the like, which a list moves
// home and abroad; AbroadWebV4 and AbroadWebV6 are in neither.
var movedPrefixes = []netip.Prefix{netip.MustParsePrefix("93.184.0.0/17"), netip.MustParsePrefix("2606:2800:220:1:1::/80")}

// The port tells what way a flow has to take, whatever its address: each is
// counted where it may not be.
const (
	directPort = 80
	tunnelPort = 443
)

// While a list moves prefixes between home and abroad, under queries for names
// there, flows to what moves stay on the way that they began on, and those to
// what stays are left alone; once a swap is reported, new flows take the new
// way. Not a packet is on the other, and no query is lost (SECURITY L-10).
func TestFlowsKeepTheirPathWhileListsSwap(t *testing.T) {
	swaps, rate := sized(10, 50), sized(400, 2000)
	w := newWorld(t)
	list := filepath.Join(t.TempDir(), "near.txt")
	write := func(home bool) {
		t.Helper()
		text := "39.156.0.0/16\n2400:da00::/32\n"
		for _, p := range movedPrefixes {
			if home {
				text += p.String() + "\n"
			}
		}
		if err := errors.Join(os.WriteFile(list+".new", []byte(text), 0o644), os.Rename(list+".new", list)); err != nil {
			t.Fatal(err)
		}
	}
	write(false)
	w.config += fmt.Sprintf("\n[list.near]\nfile = %q\nregion = \"CN\"\n\n[geo]\nsources = [\"list:near\"]\n", list)
	w.start()
	w.waitUp()
	w.nft(fmt.Sprintf("table inet watch {\n chain out {\n type filter hook postrouting priority 0;\n oifname wg0 th dport %d counter\n oifname wg0 th dport %d counter\n }\n}\n", directPort, tunnelPort))
	uplink := w.allowed(func(p lab.Packet) bool {
		return p.DstPort == directPort && (p.Proto == unix.IPPROTO_TCP || p.Proto == unix.IPPROTO_UDP) && moves(p.Dst)
	})

	flows := w.steadyFlows()
	flows.open("tunnel", lab.AbroadWebV4, lab.AbroadWebV6, lab.NumberedAddr(2, false, false), lab.NumberedAddr(2, false, true))
	flows.open("direct", lab.HomeWebV4, lab.HomeWebV6)
	asked := w.steadyQueries(rate)
	begun := time.Now()
	for i := range swaps {
		home, want := i%2 == 0, "tunnel"
		if home {
			want = "direct"
		}
		write(home)
		if out, err := w.cli("reload"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		// One address has a mark and flows of before; of the other, nobody has
		// asked yet.
		for _, n := range []int{2, 20_000 + i} {
			for _, v6 := range []bool{false, true} {
				w.newFlow(i, lab.NumberedAddr(n, false, v6), want)
			}
		}
		if i == 0 { // these began while their address was at home
			flows.open("direct", lab.NumberedAddr(2, false, false), lab.NumberedAddr(2, false, true))
		}
		flows.turn()
		w.flowsMarked(fmt.Sprintf("after swap %d", i), flows.count())
		w.noLeaks()
		if t.Failed() {
			break
		}
	}
	took := time.Since(begun)
	n := asked()
	flows.end()
	w.noLeaks()
	out, err := w.run("nft", "list", "table", "inet", "watch")
	found := regexp.MustCompile(`counter packets (\d+)`).FindAllStringSubmatch(out, -1)
	if err != nil || len(found) != 2 || found[0][1] != "0" || found[1][1] == "0" {
		t.Errorf("in the tunnel: %v %s; want no packet of a flow that is direct, and those of the others", err, out)
	}
	if uplink() == 0 {
		t.Error("no packet to a moved address was on the uplink")
	}
	t.Logf("%d queries (%.0f/s), %d rounds of %d flows and %d swaps in %s", n, float64(n)/took.Seconds(), flows.rounds.Load(), flows.count(), swaps, took)
}

func moves(a netip.Addr) bool { return movedPrefixes[0].Contains(a) || movedPrefixes[1].Contains(a) }

// portOf returns the port of the flows that go a way.
func portOf(way string) uint16 {
	if way == "direct" {
		return directPort
	}
	return tunnelPort
}

// newFlow begins flows to an address, from the LAN and from the host, and
// checks the way that each takes.
func (w *world) newFlow(swap int, to netip.Addr, want string) {
	w.t.Helper()
	for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
		at := netip.AddrPortFrom(to, portOf(want))
		tcp, err := from.Visit(w.context(10*time.Second), at)
		if err != nil || way(tcp) != want {
			w.t.Errorf("after swap %d, a connection of %s to %s went %s, %v; want %s", swap, from.Name, at, way(tcp), err, want)
		}
		udp, err := from.Datagram(w.context(10*time.Second), at)
		if err != nil || way(udp) != want {
			w.t.Errorf("after swap %d, a datagram of %s to %s went %s, %v; want %s", swap, from.Name, at, way(udp), err, want)
		}
	}
}

// flowsMarked checks the ct mark of every flow, of which there are least.
func (w *world) flowsMarked(when string, least int) {
	w.t.Helper()
	const field, direct, tunnel = 0x3f000000, 1 << 24, 2 << 24
	n := 0
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		all, err := w.Gateway.Netlink().ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, f := range all {
			want := map[uint16]uint32{directPort: direct, tunnelPort: tunnel}[f.Forward.DstPort]
			if want == 0 {
				continue
			}
			n++
			if f.Mark&field != want {
				w.t.Errorf("%s: the mark of %s is %#x, want %#x", when, f, f.Mark&field, want)
			}
		}
	}
	if n < least {
		w.t.Errorf("%s: the kernel knows %d flows, want at least %d", when, n, least)
	}
}

// steadyFlows are sessions over TCP and sockets of UDP in constant use, each by
// a goroutine of its own that waits for each answer.
type steadyFlows struct {
	w      *world
	stop   context.CancelFunc
	ctx    context.Context
	all    sync.WaitGroup
	flows  []*steadyFlow
	rounds atomic.Int64
}

type steadyFlow struct {
	*keptFlow
	used chan struct{} // of each round; dropped when nobody waits
}

func (w *world) steadyFlows() *steadyFlows {
	s := &steadyFlows{w: w}
	s.ctx, s.stop = context.WithCancel(w.t.Context())
	w.t.Cleanup(s.end)
	return s
}

// count returns how many flows there are, each of a session and a socket.
func (s *steadyFlows) count() int { return 2 * len(s.flows) }

// open begins flows that go a way, from the LAN and from the host.
func (s *steadyFlows) open(want string, addrs ...netip.Addr) {
	s.w.t.Helper()
	for _, f := range s.w.keepAt(portOf(want), addrs...) {
		if got := way(f.session.Seen); got != want {
			s.w.t.Fatalf("%s began %s, want %s", f.name, got, want)
		}
		one := &steadyFlow{f, make(chan struct{})}
		s.flows = append(s.flows, one)
		s.all.Go(func() { s.use(one) })
	}
}

func (s *steadyFlows) use(f *steadyFlow) {
	defer close(f.used)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := f.session.Say(ctx, "still here")
		cancel()
		if err != nil {
			s.w.t.Errorf("the session from %s: %v", f.name, err)
			return
		}
		if peer, err := f.who(); err != nil || peer != f.peer {
			s.w.t.Errorf("the datagrams from %s come from %s, %v; before from %s", f.name, peer, err, f.peer)
			return
		}
		s.rounds.Add(1)
		select {
		case f.used <- struct{}{}:
		default:
		}
	}
}

// turn waits until each flow has been used, and so sent both its packets, since
// the call.
func (s *steadyFlows) turn() {
	for range 2 { // the first may have begun before
		for _, f := range s.flows {
			<-f.used
		}
	}
}

func (s *steadyFlows) end() {
	s.stop()
	s.all.Wait()
}

// steadyQueries asks from the LAN for names whose addresses move, cached and
// fresh, at most so many a second, and fails the test for each that is not
// answered with the name's address. asked ends it and returns how many there were.
func (w *world) steadyQueries(rate int) (asked func() int64) {
	const clients = 8
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	var n atomic.Int64
	for client := range clients {
		all.Go(func() {
			c, err := w.Client.Dial(ctx, "udp", netip.AddrPort{}, netip.AddrPortFrom(gatewayDNS, 53))
			if err != nil {
				w.t.Error(err)
				return
			}
			defer c.Close()
			tick := time.NewTicker(clients * time.Second / time.Duration(rate))
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				number := 1 + i%100
				if i%8 == 0 {
					number = 1000 + client*1000 + i/8%1000
				}
				if err := askNumbered(&dns.Conn{Conn: c}, number, i%2 == 1); err != nil {
					w.t.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	asked = func() int64 {
		cancel()
		all.Wait()
		return n.Load()
	}
	w.t.Cleanup(func() { asked() })
	return asked
}

// askNumbered asks for a name's address, and returns what is wrong with the
// answer.
func askNumbered(c *dns.Conn, number int, v6 bool) error {
	name, typ := fmt.Sprintf("n%05d.foreign.test.", number), dns.TypeA
	if v6 {
		typ = dns.TypeAAAA
	}
	q := new(dns.Msg).SetQuestion(name, typ)
	if err := errors.Join(c.SetDeadline(time.Now().Add(20*time.Second)), c.WriteMsg(q)); err != nil {
		return fmt.Errorf("asking for %s: %w", name, err)
	}
	m, err := c.ReadMsg()
	if err != nil {
		return fmt.Errorf("the query for %s is lost: %w", name, err)
	}
	if a := lab.Addresses(m); m.Id != q.Id || len(a) != 1 || a[0] != lab.NumberedAddr(number, false, v6) {
		return fmt.Errorf("%s: %v, want %s", name, m, lab.NumberedAddr(number, false, v6))
	}
	return nil
}
