package nft_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

// perRound is how many packets each router forwards in a round.
const perRound = 2500

const benchPort = 9000

// router is a world that does nothing but forward.
type router struct {
	*world
	name string
	to   netip.Addr // a server, or any that its network drops packets for
	link string     // by which it is reached
}

// routers are the ways that a packet can take: through a bare router, through
// one that masquerades and does nothing else, and through our gateway with all
// sets loaded, direct and into a tunnel that costs nothing.
func routers(b *testing.B) []router {
	bare, nat, ours := newWorld(b), newWorld(b), newWorld(b)
	for _, w := range []*world{bare, nat} {
		for _, family := range []string{"-4", "-6"} {
			for _, pref := range []int{5101, 5102, 5190, 5191} {
				w.run(w.gw, fmt.Sprintf("ip %s rule del pref %d", family, pref))
			}
		}
	}
	netnstest.Do(b, nat.gw, func() {
		load(b, `table inet nat { chain postrouting { type nat hook postrouting priority srcnat; oifname "wan0" masquerade; }; }`)
	})
	r := gateway()
	r.Addresses.Home = homePrefixes(b)
	r.SetSize = 262_144
	r.Gateway = nft.Gateway{Masquerade4: true, Masquerade6: true, Bypass: nft.Bypass{Reject: true, DoH: prefixes("192.0.2.1/32")}}
	table := ours.set(nft.Owned, r)
	marks := make([]routing.Mark, 16)
	for n := uint32(0); n < 10_000; n += uint32(len(marks)) {
		for i := range marks {
			marks[i] = routing.Mark{Addr: nth(n + uint32(i)), Path: []routing.Path{"wg0", routing.Direct}[i%2], Life: time.Hour}
		}
		if _, err := table.Marker().Mark(context.Background(), 0, marks); err != nil {
			b.Fatal(err)
		}
	}
	home, foreign := addr(home4), addr(foreign4)
	all := []router{{bare, "bare", home, "isp0"}, {nat, "nat", home, "isp0"}, {ours, "direct", home, "isp0"}, {ours, "tunnel", foreign, "far0"}}
	for _, w := range []*world{bare, nat, ours} {
		// The first of each flow passes, and is answered: nothing else.
		netnstest.Do(b, w.net, func() {
			load(b, fmt.Sprintf(`table inet sink { chain c { type filter hook prerouting priority -400; iifname { "isp0", "far0" } udp dport %d @ih,0,8 %#x counter drop; }; }`, benchPort, sink))
		})
		netnstest.Do(b, w.lan, func() {
			load(b, fmt.Sprintf(`table inet sink { chain c { type filter hook prerouting priority -400; udp sport %d @ih,0,8 %#x counter drop; }; }`, benchPort, sink))
		})
	}
	return all
}

// sink is the first octet of what a network or a client drops as it comes in.
const sink = 0x2a

// flow opens an established one from the client to a server, and returns both
// its ends.
func (r router) flow() (client, server *net.UDPConn) {
	r.t.Helper()
	var err error
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.to, benchPort))
	listen := r.socket(r.net, func() (*net.UDPConn, error) { return net.ListenUDP("udp4", at) })
	client = r.socket(r.lan, func() (*net.UDPConn, error) { return net.DialUDP("udp4", nil, at) })
	b := make([]byte, 64)
	var from netip.AddrPort
	for range 3 {
		if _, err = client.Write([]byte("first")); err == nil {
			listen.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, from, err = listen.ReadFromUDPAddrPort(b); err == nil {
				_, err = listen.WriteToUDPAddrPort([]byte("answer"), from)
			}
		}
		if err == nil {
			client.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err = client.Read(b)
		}
		if err != nil {
			r.t.Fatalf("%s: %v", r.name, err)
		}
	}
	masqueraded := from.Addr() != addr("192.168.8.20")
	if masqueraded == (r.name == "bare") || r.name == "tunnel" && from.Addr() != addr("10.9.0.2") {
		r.t.Fatalf("%s: the server sees %s", r.name, from)
	}
	listen.Close()
	server = r.socket(r.net, func() (*net.UDPConn, error) { return net.DialUDP("udp4", at, net.UDPAddrFromAddrPort(from)) })
	return client, server
}

func (r router) socket(ns netns.NsHandle, open func() (*net.UDPConn, error)) *net.UDPConn {
	r.t.Helper()
	var c *net.UDPConn
	var err error
	netnstest.Do(r.t, ns, func() { c, err = open() })
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// dropped is how many packets the sinks of ns have taken.
func (r router) dropped(ns netns.NsHandle) (n int) {
	netnstest.Do(r.t, ns, func() {
		out := nftOut(r.t, "list", "chain", "inet", "sink", "c")
		if _, err := fmt.Sscanf(after(out, "packets "), "%d", &n); err != nil {
			r.t.Error(err, out)
		}
	})
	return n
}

// cost sends packets from c, which the sinks of ns take, and returns the time of
// this thread for each: all of the way up to there is its work, as on a veth the
// kernel forwards in the context of the sender.
func (r router) cost(c *net.UDPConn, to func(i int) net.Addr) time.Duration {
	r.t.Helper()
	const batch = 50
	p := ipv4.NewPacketConn(c)
	var ms [batch]ipv4.Message
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, 64)}
		ms[i].Buffers[0][0] = sink
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var used time.Duration
	for sent := 0; sent < perRound; {
		if to != nil {
			for i := range ms {
				ms[i].Addr = to(sent + i)
			}
		}
		begun := threadTime()
		for left := ms[:]; len(left) > 0; {
			n, err := p.WriteBatch(left, 0)
			if err != nil {
				r.t.Fatal(err)
			}
			left = left[n:]
		}
		used += threadTime() - begun
		sent += batch
	}
	return used / perRound
}

// threadTime is what this thread has used of a CPU.
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// BenchmarkForward measures what a router's rules add to the cost of a packet
// that it forwards, in CPU time: the routers take turns, and the medians of all
// rounds are reported, with the differences to the one that only masquerades, of
// the best rounds too: those that nobody disturbed.
// Wants -benchtime 100x or more.
func BenchmarkForward(b *testing.B) {
	type way struct {
		c  *net.UDPConn
		ns netns.NsHandle
		to func(i int) net.Addr
	}
	compare := func(name string, all []router, open func(r router) way) {
		b.Run(name, func(b *testing.B) {
			ways := make([]way, len(all))
			costs := make([][]time.Duration, len(all))
			for i, r := range all {
				ways[i] = open(r)
			}
			arrived := func() (n int) {
				for i, r := range all {
					if r.name != "tunnel" { // whose router is that of direct
						n += r.dropped(ways[i].ns)
					}
				}
				return n
			}
			before := arrived()
			for b.Loop() {
				for i, r := range all {
					costs[i] = append(costs[i], r.cost(ways[i].c, ways[i].to))
					if ways[i].to != nil {
						r.forgetFlows()
					}
				}
			}
			if n, sent := arrived()-before, b.N*len(all)*perRound; n < sent*99/100 {
				b.Fatalf("%d of %d packets arrived", n, sent)
			}
			median, best := map[string]float64{}, map[string]float64{}
			for i, r := range all {
				slices.Sort(costs[i])
				median[r.name], best[r.name] = float64(costs[i][len(costs[i])/2]), float64(costs[i][0])
				b.ReportMetric(median[r.name], r.name+"-ns/packet")
			}
			for _, ours := range []string{"direct", "tunnel"} {
				b.ReportMetric(median[ours]-median["nat"], ours+"-over-nat-ns")
				b.ReportMetric(best[ours]-best["nat"], ours+"-over-nat-best-ns")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
	all := routers(b)
	clients, servers := map[string]*net.UDPConn{}, map[string]*net.UDPConn{}
	for _, r := range all {
		clients[r.name], servers[r.name] = r.flow()
	}
	compare("established out", all, func(r router) way { return way{clients[r.name], r.net, nil} })
	compare("established in", all, func(r router) way { return way{servers[r.name], r.lan, nil} })
	compare("new", all, func(r router) way {
		c := r.socket(r.lan, func() (*net.UDPConn, error) { return net.ListenUDP("udp4", nil) })
		base := r.to.As4()
		return way{c, r.net, func(i int) net.Addr {
			return &net.UDPAddr{IP: net.IPv4(base[0], base[1], byte(i>>8), byte(i)), Port: benchPort}
		}}
	})
}

// forgetFlows empties the router's table of flows.
func (r router) forgetFlows() {
	netnstest.Do(r.t, r.gw, func() {
		if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
			r.t.Error(err)
		}
	})
}

func after(text, word string) string {
	_, rest, _ := strings.Cut(text, word)
	return rest
}
