package nft_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"smartdns/lab/netnstest"
	"smartdns/nft"
	"smartdns/routing"
)

// marking makes marks at full speed while f runs.
func marking(t *testing.T, table *nft.Table, f func()) (all []routing.Mark) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(w+1)<<24+uint32(i%50000))))
				m := []routing.Mark{{Addr: a, Path: "wg0", Life: time.Hour}}
				if _, err := table.Marker().Mark(context.Background(), 0, m); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				all = append(all, m...)
				mu.Unlock()
			}
		})
	}
	f()
	close(stop)
	wg.Wait()
	return all
}

// soon waits for something that happens by itself, for as long as a machine with
// much else to do may take.
func soon(t testing.TB, what string, happened func() bool) {
	t.Helper()
	const limit = 20 * time.Second
	for end := time.Now().Add(limit); !happened(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s: not within %v", what, limit)
			return
		}
	}
}

// What others take away comes back without any answer: with the table, where
// the table was gone, else by itself.
func TestMarksThatOthersTookComeBack(t *testing.T) {
	for what, edit := range map[string]string{
		"flush ruleset":     "flush ruleset",
		"delete the table":  "delete table inet smartdns",
		"flush the sets":    "flush set inet smartdns wg0_4; flush set inet smartdns wg0_6; flush set inet smartdns direct_4",
		"delete an element": "delete element inet smartdns wg0_4 { " + foreign4 + " }",
	} {
		t.Run(what, func(t *testing.T) {
			inTable(t, nft.Shared, defaultDirectGateway(), func(table *nft.Table) {
				ctx := context.Background()
				long := 5 * time.Hour
				if _, err := table.Marker().Mark(ctx, 0, append(to("wg0", long, foreign4, foreign6, "8.8.4.4"), to(routing.Direct, time.Hour, home4)...)); err != nil {
					t.Error(err)
				}
				if _, err := table.Marker().Forget(ctx, addr("8.8.4.4")); err != nil {
					t.Error(err)
				}
				for range 3 {
					load(t, edit)
					<-table.Lost()
					set(t, table, defaultDirectGateway())
					if what == "flush ruleset" || what == "delete the table" {
						wantLeft(t, table, foreign4, "wg0", long) // it came with the table
					}
					for _, m := range append(to("wg0", long, foreign4, foreign6), to(routing.Direct, time.Hour, home4)...) {
						soon(t, m.Addr.String()+" is back", func() bool { return left(t, table, m.Addr.String(), m.Path) > m.Life-10*time.Second })
					}
				}
				if left(t, table, "8.8.4.4", "wg0") > 0 {
					t.Error("a forgotten mark came back")
				}
				if steps := set(t, table, defaultDirectGateway()); len(steps) != 0 {
					t.Errorf("and then: %v", steps)
				}
			})
		})
	}
}

// What we deleted ourselves does not come back.
func TestMarksOfADeletedTableAreGone(t *testing.T) {
	inTable(t, nft.Shared, gateway(), func(table *nft.Table) {
		if _, err := table.Marker().Mark(context.Background(), 0, to("wg0", time.Hour, foreign4)); err != nil {
			t.Error(err)
		}
		if _, err := table.Delete(context.Background()); err != nil {
			t.Error(err)
		}
		set(t, table, gateway())
		if left(t, table, foreign4, "wg0") > 0 {
			t.Error("a mark came back")
		}
	})
}

// A mark that an admin made for longer keeps its life when ours meets it.
func TestMarksOfAnAdminAreNotShortened(t *testing.T) {
	inTable(t, nft.Shared, gateway(), func(table *nft.Table) {
		for i := range 50 {
			a := netip.AddrFrom4([4]byte{9, 9, 9, byte(i)}).String()
			nftOut(t, "add", "element", "inet", "smartdns", "wg0_4", "{ "+a+" timeout 3h }")
			if _, err := table.Marker().Mark(context.Background(), 0, to("wg0", time.Hour, a)); err != nil {
				t.Error(err)
			}
			wantLeft(t, table, a, "wg0", 3*time.Hour)
		}
	})
}

func TestPacketsOfAFlowBegunWhileTheTableWasGone(t *testing.T) {
	w := newWorld(t)
	w.serve(w.gw, 22)
	table := w.set(nft.Shared, defaultDirectGateway())
	mark(t, table, "wg0", foreign4)
	netnstest.Do(t, w.gw, func() { // somebody else's table keeps conntrack on
		load(t, "flush ruleset; table inet other { chain c { type filter hook output priority 0; ct state new accept; }; }")
	})
	<-table.Lost()
	w.gapFlows(w.gw, "198.18.0.2", func() { w.become(table, defaultDirectGateway()) })
}

func TestPacketsOfAFlowBegunWhileItsMarkWasGone(t *testing.T) {
	for _, c := range []struct{ from, source, others string }{
		{"host", "198.18.0.2", ""},
		{"LAN", "192.168.8.20", ""},
		{"LAN", "198.18.0.2", "table inet other { chain c { type nat hook postrouting priority 100; oifname wan0 masquerade; }; }"},
	} {
		t.Run(c.from+" as "+c.source, func(t *testing.T) {
			w := newWorld(t)
			w.serve(w.gw, 22)
			netnstest.Do(t, w.gw, func() { load(t, c.others) })
			table := w.set(nft.Shared, defaultDirectGateway())
			mark(t, table, "wg0", foreign4)
			release := nft.Hold(table)
			netnstest.Do(t, w.gw, func() { load(t, "flush set inet smartdns wg0_4") })
			<-table.Lost()
			from := w.gw
			if c.from == "LAN" {
				from = w.lan
			}
			w.gapFlows(from, c.source, release)
		})
	}
}

// What a client begins while the table is gone goes into the tunnel by the third
// lock, and nobody answers its address there. It ends with the next packet.
func TestPacketsOfAConnectionBegunIntoTheTunnelWithoutTheTable(t *testing.T) {
	w := newWorld(t)
	table := w.set(nft.Shared, gateway())
	w.want("before", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
	netnstest.Do(t, w.gw, func() { // somebody else's table keeps conntrack on
		load(t, "flush ruleset; table inet other { chain c { type filter hook forward priority 0; ct state new accept; }; }")
	})
	<-table.Lost()
	w.run(w.net, "ip route del 192.168.8.0/24") // a provider knows no address of ours
	end := make(chan error, 1)
	go func() {
		c, err := w.dial(w.lan, "tcp", foreign4+":80", 0)
		if err == nil {
			c.Close()
		}
		end <- err
	}()
	soon(t, "the first segment has been forwarded", func() (known bool) {
		netnstest.Do(t, w.gw, func() {
			out, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
			if err != nil {
				t.Error(err)
			}
			known = strings.Contains(string(out), "dst="+foreign4+" ") && strings.Contains(string(out), "SYN_SENT")
		})
		return known
	})
	w.become(table, gateway())
	if err := <-end; err == nil || short(err) != "refused" {
		t.Errorf("begun without the table: %v, want a reset", err)
	}
	w.want("a new one", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
}

// gapFlows opens flows that go direct, since what decides otherwise is gone, and
// looks what becomes of them when heal has brought it back.
func (w *world) gapFlows(from netns.NsHandle, source string, heal func()) {
	w.t.Helper()
	udp, err := w.dial(from, "udp", foreign4+":80", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer udp.Close()
	w.want("udp in the gap", w.hear(udp, "udp"), source)
	tcp, err := w.dial(from, "tcp", foreign4+":80", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer tcp.Close()
	w.want("tcp in the gap", w.hear(tcp, "tcp"), source)
	inbound, err := w.dial(w.net, "tcp", "198.18.0.2:22", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer inbound.Close()
	w.hear(inbound, "tcp")
	heal()
	leak := w.sniff(foreign4)
	soon(w.t, "nothing more on the uplink", func() bool {
		before := leak()
		w.hear(udp, "udp")
		return leak() == before
	})
	before := leak()
	w.hear(udp, "udp")
	if err := echo(tcp); err == nil || short(err) != "refused" {
		w.t.Errorf("a connection of the gap: %v, want a reset", err)
	}
	w.want("a new one", w.ask(from, "tcp", foreign4+":80"), tunnel4)
	if n := leak() - before; n != 0 {
		w.t.Errorf("%d frames on the uplink", n)
	}
	if err := echo(inbound); err != nil {
		w.t.Errorf("a connection from outside: %v", err)
	}
}

// detoured sets a table whose tunnel is down, and opens a connection that is
// direct until the tunnel is up again, which it is in up.
func (w *world) detoured() (table *nft.Table, up nft.Ruleset, during net.Conn) {
	w.t.Helper()
	up, down := gateway(), gateway()
	up.Tunnels[0].StandIn, down.Tunnels[0].StandIn, down.Tunnels[0].Up = routing.Direct, routing.Direct, false
	table = w.set(nft.Owned, down)
	during, err := w.dial(w.lan, "tcp", foreign4+":80", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { during.Close() })
	w.want("down", w.hear(during, "tcp"), "192.168.8.20")
	return table, up, during
}

// The transaction is made, and what follows it fails: what the kernel has is
// known, and the rest is done by the next Set.
func TestSetFinishesWhatFailedAfterItsTransaction(t *testing.T) {
	w := newWorld(t)
	table, up, during := w.detoured()
	regain := nft.LoseConntrack(table)
	netnstest.Do(t, w.gw, func() {
		if steps, err := table.Set(t.Context(), up); err == nil || len(steps) == 0 {
			t.Errorf("without conntrack: %d steps, %v", len(steps), err)
		}
	})
	if err := echo(during); err != nil {
		t.Errorf("nobody has ended it yet: %v", err)
	}
	regain()
	netnstest.Do(t, w.gw, func() {
		if steps, err := table.Diff(t.Context(), up); err != nil || len(steps) != 1 {
			t.Errorf("what is left: %v, %v", steps, err)
		}
	})
	w.become(table, up)
	if err := echo(during); err == nil || short(err) != "refused" {
		t.Errorf("a revocable flow after the tunnel is back: %v, want a reset", err)
	}
}

// The kernel has the table, and not all that it accepted: that is said, what
// follows the transaction is done, and the next Set has nothing to do again.
func TestSetSaysWhatTheKernelDidNotKeep(t *testing.T) {
	w := newWorld(t)
	table, up, during := w.detoured()
	netnstest.Do(t, w.gw, func() {
		steps, err := nft.SetUnprovable(table, up)
		if err == nil || !strings.Contains(err.Error(), "set lan_ifs has 1 of 2 elements in the kernel") || len(steps) == 0 {
			t.Errorf("%d steps, %v", len(steps), err)
		}
	})
	if err := echo(during); err == nil || short(err) != "refused" {
		t.Errorf("a revocable flow after the tunnel is back: %v, want a reset", err)
	}
	w.want("up", w.ask(w.lan, "tcp", foreign4+":80"), tunnel4)
	netnstest.Do(t, w.gw, func() {
		if steps, err := table.Diff(t.Context(), up); err != nil || len(steps) != 0 {
			t.Errorf("what is left: %v, %v", steps, err)
		}
	})
}

// A transaction that is longer than the socket's buffer goes through: a table
// that is made anew brings all of its marks along.
func TestSetOfAnyLength(t *testing.T) {
	inTable(t, nft.Shared, gateway(), func(table *nft.Table) {
		if err := nft.Narrow(table); err != nil {
			t.Error(err)
		}
		long := gateway()
		for i := range 4000 {
			long.Addresses.Home = append(long.Addresses.Home, netip.PrefixFrom(netip.AddrFrom4([4]byte{39, byte(i >> 8), byte(i), 0}), 25))
		}
		if steps := set(t, table, long); len(steps) == 0 {
			t.Error("nothing changed")
		}
	})
}

func TestSetAmongMarksAtFullSpeed(t *testing.T) {
	netnstest.Require(t)
	big := gateway()
	big.Addresses.Home = homePrefixes(t)
	big.SetSize = 0
	bigger := big
	bigger.SetSize = 2 * nft.DefaultSetSize
	inTable(t, nft.Owned, big, func(table *nft.Table) {
		all := marking(t, table, func() {
			for i := range 6 {
				r := []nft.Ruleset{bigger, big}[i%2]
				r.Tunnels = append([]nft.Tunnel(nil), r.Tunnels...)
				r.Tunnels[0].Up = i%3 == 0
				if _, err := table.Set(context.Background(), r); err != nil {
					t.Error(err)
				}
			}
		})
		there := map[netip.Addr]bool{}
		marks, err := table.Marks(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, m := range marks {
			there[m.Addr] = true
		}
		missing := 0
		for _, m := range all {
			if there[m.Addr] {
				continue
			}
			// A list may lack what moved while the kernel resized the set.
			if _, ok, err := table.Element(context.Background(), m.Addr, m.Path); !ok || err != nil {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("%d of %d acknowledged marks are missing", missing, len(all))
		}
		t.Logf("%d marks", len(all))
	})
}
