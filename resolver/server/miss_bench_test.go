package server_test

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/policy"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/server"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
	"smartdns/routing"
)

// BenchmarkMiss is a query that nobody has asked before, over real sockets from
// client to client, with 64 under way at a time; the client's and the upstream's
// work is in it. Fresh: each question leaves from a port of its own. Shared:
// inside a tunnel, where nobody can forge a reply.
func BenchmarkMiss(b *testing.B) {
	b.Run("fresh", func(b *testing.B) { benchmarkMiss(b, true) })
	b.Run("shared", func(b *testing.B) { benchmarkMiss(b, false) })
}

func benchmarkMiss(b *testing.B, spoofable bool) {
	at := benchStack(b, spoofable)
	client, err := net.Dial("udp", at.String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	room := make(chan struct{}, 64)
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, wire.MaxUDP)
		for range b.N {
			client.SetReadDeadline(time.Now().Add(20 * time.Second))
			n, err := client.Read(buf)
			if err == nil && (n < wire.HeaderLen || buf[3]&15 != 0 || buf[7] != 1) {
				err = fmt.Errorf("answer %x", buf[:n])
			}
			if err != nil {
				done <- err
				return
			}
			<-room
		}
		done <- nil
	}()
	const digits = wire.HeaderLen + 8 // where the last of them stands
	msg := wire.AppendQuery(nil, []byte("\x0800000000\x04test\x00"), wire.TypeA, false, false, nil)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		select {
		case room <- struct{}{}:
		case err := <-done:
			b.Fatal(err)
		}
		binary.BigEndian.PutUint16(msg, uint16(i))
		for digit, n := digits, i; n > 0; digit, n = digit-1, n/10 {
			msg[digit] = byte('0' + n%10)
		}
		if _, err := client.Write(msg); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// benchStack is a listener in front of a resolver in front of one server that
// has an address for every name.
func benchStack(b *testing.B, spoofable bool) netip.AddrPort {
	b.Helper()
	far, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { far.Close() })
	go answerAll(far)
	var dialer net.Dialer
	ex, err := upstream.New(upstream.Config{
		Scheme: "udp", Where: upstream.At(far.LocalAddr().(*net.UDPAddr).AddrPort()), Spoofable: spoofable, Dial: dialer.DialContext,
	})
	if err != nil {
		b.Fatal(err)
	}
	names, err := policy.NewNames([]policy.NameRule{{Rule: policy.Rule{Side: "bench"}, Entries: []policy.Entry{{Kind: policy.All}}}})
	if err != nil {
		b.Fatal(err)
	}
	addresses, err := policy.NewAddresses([]policy.AddressSpec{{Rule: policy.AddressRule{Via: routing.Direct}, All: true}})
	if err != nil {
		b.Fatal(err)
	}
	sealed := cache.NewSealed(16<<20, &cache.Generation{})
	limits := resolver.DefaultLimits()
	limits.PerZone = 1000
	r := resolver.New(resolver.Config{
		Policy: &resolver.Policy{
			Names: names, Addresses: addresses, Geo: resolvertest.Geo{},
			Sides: map[string]resolver.Side{"bench": {Exchanger: upstream.Group([]upstream.Exchanger{ex}, upstream.Fastest), Path: routing.Direct, Spoofable: spoofable}},
		},
		Cache: cache.New(16 << 20), Sealed: sealed, Learned: resolver.NewLearned(1 << 20), Limits: limits,
	})
	s := server.New(resolverHandler{r}, server.DefaultLimits(), slog.New(slog.DiscardHandler))
	s.SetLane(server.Lane{Sealed: sealed})
	s.Allow([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	b.Cleanup(s.Close)
	if err := s.Listen([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5399")}); err != nil {
		b.Fatal(err)
	}
	return s.Addrs()[0]
}

// answerAll answers every query with the same address.
func answerAll(c *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		q := wire.Question(buf[:n])
		reply := append(buf[:0], buf[:wire.HeaderLen+len(q)]...)
		reply[2] |= 0x80
		reply[7], reply[11] = 1, 0
		reply = append(reply, 0xc0, wire.HeaderLen, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 192, 0, 9, 1)
		c.WriteToUDPAddrPort(reply, from)
	}
}
