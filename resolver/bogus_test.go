package resolver_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
)

type addrSet map[netip.Addr]bool

func (s addrSet) Contains(a netip.Addr) bool { return s[a] }

// Addresses that mean NXDOMAIN are never marked, alone or among others, whoever
// answers with them, and however often (SECURITY S-16).
func TestBogusAddressesAreNeverMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bogus := addrSet{}
		for i := range 165 {
			region := 39 + 54*(i%2) // at home and abroad
			bogus[netip.AddrFrom4([4]byte{byte(region), 156, 200, byte(i)})] = true
		}
		all := make([]netip.Addr, 0, len(bogus))
		for a := range bogus {
			all = append(all, a)
		}
		server := func(side string) *resolvertest.Exchanger {
			return serverOf(side, func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
				var m dns.Msg
				if err := m.Unpack(q.Msg); err != nil {
					return upstream.Reply{}, err
				}
				name, n := m.Question[0].Name, 0
				fmt.Sscanf(name, "n%d.", &n)
				return replied(q, 0, fmt.Sprintf("%s 60 IN A %s", name, all[n]), fmt.Sprintf("%s 60 IN A 39.156.66.10", name))
			})
		}
		p := autoPolicy(resolver.ForeignFirst, server(resolver.Domestic), server(resolver.Foreign))
		p.Poison.Bogus = bogus
		marker := &resolvertest.Marker{}
		r := resolver.New(resolver.Config{Policy: p, Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20), Paths: resolver.Paths{Marker: marker}})
		for n := range all {
			for again := range 2 {
				if d := r.Resolve(t.Context(), query(t, fmt.Sprintf("n%d.example.com.", n), 1)); d.Code() != dns.RcodeNameError {
					t.Errorf("%s, asked %d times: %s", all[n], again+1, d.RCode)
				}
			}
		}
		if marks := marker.Take(); len(marks) != 0 {
			t.Errorf("marked: %v", marks)
		}
	})
}
