package resolver_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/policy"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
)

// A server that answers names that do not exist is found with the first answer
// of its side; from then on what it answers them with means no such name,
// sealed, cached or asked anew, on its side alone, and is not marked. When it
// stops, that is known after a minute (SECURITY F-08).
func TestServerThatAnswersEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const page = "39.156.66.99" // at home, as such pages are
		var sells atomic.Bool
		sells.Store(true)
		var invented atomic.Int32
		server := func(side string) upstream.Exchanger {
			return upstream.Group([]upstream.Exchanger{serverOf(side, func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
				var m dns.Msg
				if err := m.Unpack(q.Msg); err != nil {
					return upstream.Reply{}, err
				}
				name := m.Question[0].Name
				if strings.HasPrefix(name, "www.") {
					return replied(q, 0, name+" 600 IN A 39.156.66.10")
				}
				if len(name) > 32 {
					invented.Add(1)
				}
				if sells.Load() && side == resolver.Domestic || strings.HasPrefix(name, "page.") {
					return replied(q, 0, name+" 600 IN A "+page)
				}
				return replied(q, dns.RcodeNameError)
			})}, upstream.Fastest)
		}
		p := autoPolicy(resolver.ForeignOnly, server(resolver.Domestic), server(resolver.Foreign))
		p.Names = must(policy.NewNames([]policy.NameRule{{Rule: policy.Rule{Side: resolver.Domestic}, Entries: []policy.Entry{{Name: "home.example."}}}}))
		p.Poison.Probe = true
		marker := &resolvertest.Marker{}
		r := resolver.New(resolver.Config{Policy: p, Cache: cache.New(1 << 20), Learned: resolver.NewLearned(1 << 20), Paths: resolver.Paths{Marker: marker}})
		ask := func(name string) string {
			t.Helper()
			d := r.Resolve(t.Context(), query(t, name, dns.TypeA))
			synctest.Wait()
			return d.RCode
		}
		ask("typo.home.example.") // nobody knows yet
		want := []netip.Addr{netip.MustParseAddr(page)}
		if h := r.Hijacks(); len(h) != 1 || h[0].Side != resolver.Domestic || !slices.Equal(h[0].Addrs, want) {
			t.Fatalf("found: %+v", h)
		}
		marker.Take()
		for _, name := range []string{"typo.home.example.", "other.home.example."} {
			if got := ask(name); got != "NXDOMAIN" {
				t.Errorf("%s: %s", name, got)
			}
		}
		if m := marker.Take(); len(m) != 0 {
			t.Errorf("marked: %v", m)
		}
		if got := ask("www.home.example."); got != "NOERROR" {
			t.Errorf("a name that is there: %s", got)
		}
		if got := ask("page.abroad.example."); got != "NOERROR" {
			t.Errorf("of the other side: %s", got)
		}
		if n := invented.Load(); n != 2 {
			t.Errorf("%d questions for names that do not exist", n)
		}
		sells.Store(false)
		time.Sleep(time.Minute)
		ask("www2.home.example.")
		ask("www.www.home.example.")
		if h := r.Hijacks(); len(h) != 0 {
			t.Errorf("it stopped, and there is still %+v", h)
		}
	})
}
