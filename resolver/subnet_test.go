package resolver_test

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
)

// subnetOf is the client subnet of a packed query.
func subnetOf(t *testing.T, msg []byte) string {
	m := new(dns.Msg)
	if err := m.Unpack(msg); err != nil {
		t.Fatal(err)
	}
	for _, o := range m.IsEdns0().Option {
		if s, ok := o.(*dns.EDNS0_SUBNET); ok {
			return s.String()
		}
	}
	return ""
}

// What a query carries of its client is what the side says; clients of
// different subnets never share an answer, and the fast lane has none for them.
func TestClientSubnet(t *testing.T) {
	for _, c := range []struct {
		name   string
		subnet resolver.Subnet
		want   []string // carried, for the clients below in this order
		sealed bool
	}{
		{"off", resolver.Subnet{}, []string{""}, true},
		{"prefix", resolver.Subnet{Prefix: netip.MustParsePrefix("114.240.0.0/24")}, []string{"114.240.0.0/24/0"}, true},
		{"client", resolver.Subnet{Client: true}, []string{"93.184.216.0/24/0", "93.184.217.0/24/0", "[2606:2800:220::]/56/0", ""}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var carried []string
			server := serverOf("foreign", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
				carried = append(carried, subnetOf(t, q.Msg))
				return replied(q, 0, "www.x.org. 300 IN A 93.184.216.34")
			})
			p := autoPolicy(resolver.ForeignOnly, server, server)
			side := p.Sides[resolver.Foreign]
			side.Subnet = c.subnet
			p.Sides[resolver.Foreign] = side
			r := resolver.New(resolver.Config{
				Policy: p, Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20),
				Sealed: cache.NewSealed(1<<20, &cache.Generation{}), Paths: resolver.Paths{Marker: &resolvertest.Marker{}},
			})
			var sealed time.Duration
			for range 2 {
				for _, client := range []string{"93.184.216.34", "93.184.216.99", "93.184.217.1", "2606:2800:220:1::1", "192.168.8.20"} {
					d := r.Resolve(t.Context(), resolver.Ask("www.x.org.", dns.TypeA, netip.MustParseAddr(client)))
					if d.RCode != "NOERROR" {
						t.Fatal(d.RCode, d.EDE)
					}
					sealed = max(sealed, d.Sealed)
				}
			}
			if !slices.Equal(carried, c.want) {
				t.Errorf("carried %q, want %q", carried, c.want)
			}
			if (sealed > 0) != c.sealed {
				t.Errorf("sealed for %s", sealed)
			}
		})
	}
}

// Answers for a client subnet are listed, flushed and kept over a restart as
// those of their side.
func TestAnswersForASubnetAreTheirSides(t *testing.T) {
	asked := 0
	server := serverOf("foreign", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
		asked++
		return replied(q, 0, "www.x.org. 300 IN A 93.184.216.34")
	})
	p := autoPolicy(resolver.ForeignOnly, server, server)
	side := p.Sides[resolver.Foreign]
	side.Subnet = resolver.Subnet{Prefix: netip.MustParsePrefix("114.240.0.0/24")}
	p.Sides[resolver.Foreign] = side
	before, _ := withPolicy(p)
	ask := func(r *resolver.Resolver) {
		r.Resolve(t.Context(), resolver.Ask("www.x.org.", dns.TypeA, netip.Addr{}))
	}
	ask(before)
	var saved bytes.Buffer
	if err := before.SaveCache(&saved); err != nil {
		t.Fatal(err)
	}
	r, _ := withPolicy(p)
	if n, _, err := r.LoadCache(&saved); n != 1 || err != nil {
		t.Fatalf("%d answers after a restart, %v", n, err)
	}
	if ask(r); asked != 1 {
		t.Error("it is asked for again after a restart")
	}
	foreign := resolver.Selection{Side: resolver.Foreign}
	if page, _, err := r.ListCache(foreign, "", 10); len(page) != 1 || page[0].Side != resolver.Foreign || err != nil {
		t.Errorf("the list has %+v, %v", page, err)
	}
	if n := r.FlushCache(foreign); n != 1 {
		t.Errorf("%d answers flushed", n)
	}
}

// An address that the user just called bogus is not answered, though the cache
// has it.
func TestNewBogusAddressesHoldForTheCache(t *testing.T) {
	server := serverOf("foreign", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
		return replied(q, 0, "www.x.org. 300 IN A 93.184.216.34")
	})
	p := autoPolicy(resolver.ForeignOnly, server, server)
	r, _ := withPolicy(p)
	for _, want := range []string{"NOERROR", "NXDOMAIN"} {
		if d := r.Resolve(t.Context(), resolver.Ask("www.x.org.", dns.TypeA, netip.Addr{})); d.RCode != want || len(d.Addresses) != 0 != (want == "NOERROR") {
			t.Errorf("%s with %v, want %s", d.RCode, d.Addresses, want)
		}
		next := *p
		next.Poison.Bogus = resolvertest.Addrs{netip.MustParseAddr("93.184.216.34")}
		r.Swap(&next)
	}
}
