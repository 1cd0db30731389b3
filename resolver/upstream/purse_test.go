package upstream_test

import (
	"context"
	"testing"
	"time"

	"smartdns/resolver/upstream"
)

func TestOneClientQueryCannotCostAnyNumberOfPackets(t *testing.T) {
	const questions = 12
	var silent []*fake
	var group []upstream.Exchanger
	for range 3 {
		f := serve(t, func(client, []byte) {}, func(*conn) {})
		silent = append(silent, f)
		group = append(group, newServer(t, upstream.Config{
			Scheme: "udp", Where: upstream.At(f.addr), Timeouts: upstream.Timeouts{Try: 5 * time.Millisecond, Total: 80 * time.Millisecond},
		}))
	}
	purse := new(upstream.Purse)
	g := upstream.Group(group, upstream.InOrder)
	for range questions {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		q := query("\x03www\x07example\x03org\x00")
		q.Purse = purse
		if _, err := g.Exchange(ctx, q); err == nil {
			t.Fatal("somebody answered")
		}
		cancel()
	}
	sent := int32(0)
	for _, s := range silent {
		sent += s.queriesUDP.Load()
	}
	// One for each question, and six for all that went wrong.
	if want := int32(questions + 6); sent > want || sent < questions || !purse.Empty() {
		t.Errorf("%d questions sent %d packets, want at most %d; purse empty: %v", questions, sent, want, purse.Empty())
	}
}
