package resolver_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver/policy"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

// What an answer costs the collector: its name, and of a hit what the cache
// gives; of a miss what others may keep or wait for.
func TestAllocationsOfAnAnswer(t *testing.T) {
	packed := func(name string) wire.Query {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		q, action, _ := wire.ParseQuery(b)
		if action != wire.Accept {
			t.Fatalf("%s is not accepted", name)
		}
		return q
	}
	const names = 100
	var queries [names]wire.Query
	var replies [names]upstream.Reply
	asked := 0
	l := newLane(t, func(context.Context, string, upstream.Query) (upstream.Reply, error) {
		asked++
		return replies[asked-1], nil
	})
	for i := range queries {
		name := fmt.Sprintf("n%d.example.org.", i)
		queries[i] = packed(name)
		msg := new(dns.Msg)
		if err := msg.Unpack(queries[i].Msg); err != nil {
			t.Fatal(err)
		}
		rr, err := dns.NewRR(name + " 300 IN A 93.184.216.34")
		if err != nil {
			t.Fatal(err)
		}
		msg.Response, msg.Compress, msg.Answer = true, true, []dns.RR{rr}
		if replies[i].Msg, err = msg.Pack(); err != nil {
			t.Fatal(err)
		}
	}
	// As a listener's: a later one is the resolver's to shorten, by one of its own.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	dst := make([]byte, 0, wire.MaxUDP)
	ask := func(i int) {
		if reply := l.Answer(ctx, dst, queries[i], policy.Client{}, "udp"); len(reply) < wire.HeaderLen || reply[7] != 1 {
			t.Fatalf("%x", reply)
		}
	}
	// The least of many, since pools may be emptied at any time.
	miss, hit := math.Inf(1), math.Inf(1)
	for next := 0; next < names; {
		miss = min(miss, testing.AllocsPerRun(1, func() { ask(next); next++ })) // which runs it twice
	}
	for range names {
		hit = min(hit, testing.AllocsPerRun(1, func() { ask(0) }))
	}
	if asked != names {
		t.Fatalf("%d questions went out, want %d", asked, names)
	}
	if miss > 7 || hit > 6 {
		t.Errorf("a miss allocates %v times, a hit that is not sealed %v times; want at most 7 and 6", miss, hit)
	}
}
