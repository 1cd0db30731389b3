package upstream_test

import (
	"math"
	"net"
	"testing"

	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

// An exchange allocates what its caller keeps: the reply, and the tries.
func TestAllocationsOfAnExchange(t *testing.T) {
	far, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() { // without an allocation of its own
		defer close(over)
		for buf := make([]byte, 2048); ; {
			n, from, err := far.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			reply := buf[:wire.HeaderLen+len(wire.Question(buf[:n]))]
			reply[2] |= 0x80
			reply[11] = 0
			far.WriteToUDPAddrPort(reply, from)
		}
	}()
	t.Cleanup(func() { far.Close(); <-over })
	for what, spoofable := range map[string]bool{"fresh": true, "shared": false} {
		ex, q, ctx := newServer(t, upstream.Config{
			Scheme: "udp", Where: upstream.At(far.LocalAddr().(*net.UDPAddr).AddrPort()), Spoofable: spoofable,
		}), query(asked), testContext(t)
		least := math.Inf(1) // of many, since pools may be emptied at any time
		for range 100 {
			least = min(least, testing.AllocsPerRun(1, func() {
				if _, err := ex.Exchange(ctx, q); err != nil {
					t.Fatal(err)
				}
			}))
		}
		if least > 3 {
			t.Errorf("%s: %v allocations, want 2, or 3 under the race detector", what, least)
		}
	}
}
