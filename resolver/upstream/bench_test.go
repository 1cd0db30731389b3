package upstream_test

import (
	"testing"

	"smartdns/resolver/upstream"
)

// BenchmarkExchange is a whole exchange over loopback, the fake server's work
// included.
func BenchmarkExchange(b *testing.B) {
	f := serve(b, truthUDP, truthTCP)
	for _, c := range []struct {
		name   string
		config upstream.Config
	}{
		{"udp", upstream.Config{Scheme: "udp", Where: upstream.At(f.addr), Spoofable: true}},
		{"udp, inside a tunnel", upstream.Config{Scheme: "udp", Where: upstream.At(f.addr)}},
		{"tcp", upstream.Config{Scheme: "tcp", Where: upstream.At(f.addr)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			ex, q, ctx := newServer(b, c.config), query(asked), testContext(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ex.Exchange(ctx, q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
