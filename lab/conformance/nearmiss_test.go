package conformance_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Somebody who sends a reply of a wrong ID for each query makes us ask over TCP
// too; where the server has none, all of a thousand queries are answered all the
// same, over UDP (SECURITY S-04).
func TestWrongIDForEveryQueryDeniesNothing(t *testing.T) {
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(authority)))
	if err != nil {
		t.Fatal(err)
	}
	var forging atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if forging.Load() {
				udp.WriteToUDPAddrPort(patched(b[:n], func(b []byte) { b[1] ^= 0xff }), from)
			}
			udp.WriteToUDPAddrPort(answer(b[:n], truth), from)
		}
	}()
	t.Cleanup(func() { udp.Close(); <-ended })
	run(t, forward)
	load := func(kind string) (worst time.Duration) {
		const clients, each = 10, 100
		var asking sync.WaitGroup
		var mu sync.Mutex
		var took []time.Duration
		for i := range clients {
			c := overUDP(t, fmt.Sprintf("127.0.8.%d", 1+i))
			asking.Go(func() {
				for n := range each {
					begun := time.Now()
					err := c.WriteMsg(new(dns.Msg).SetQuestion(fmt.Sprintf("%s%d-%d.example.net.", kind, i, n), dns.TypeA))
					if err != nil {
						t.Error(err)
						return
					}
					m, err := c.ReadMsg()
					if err != nil || len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != truth {
						t.Errorf("%s query %d of client %d: %v, %v", kind, n, i, m, err)
						return
					}
					mu.Lock()
					took = append(took, time.Since(begun))
					mu.Unlock()
				}
			})
		}
		asking.Wait()
		slices.Sort(took)
		if len(took) == 0 {
			return 0
		}
		return took[len(took)*99/100]
	}
	idle := load("idle")
	forging.Store(true)
	t.Logf("p99 %s, with a forger %s", idle, load("forged"))
}
