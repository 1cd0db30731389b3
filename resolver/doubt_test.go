package resolver_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/policy"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
)

// Whoever asks past a doubt in the cache does not share an exchange that ends
// with that doubt: it would be an answer without records.
func TestADoubtIsAskedAboutPastTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down bool                  // the foreign side
		opinion := make(chan struct{}) // it may answer
		var later []func()             // exchanges that have not begun
		hold := false                  // those that follow are
		foreign := serverOf("foreign", func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
			<-opinion
			if down {
				return upstream.Reply{}, errors.New("no reply")
			}
			return replied(q, 0, "x.org. 60 IN A 39.156.1.1")
		})
		domestic := serverOf("domestic", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
			return replied(q, 0, "x.org. 60 IN A 93.184.216.34")
		})
		p := autoPolicy(resolver.ForeignFirst, domestic, foreign)
		p.Names = must(policy.NewNames([]policy.NameRule{{Rule: policy.Rule{Side: resolver.Domestic}, Entries: []policy.Entry{{Kind: policy.All}}}}))
		r := resolver.New(resolver.Config{
			Policy: p, Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20), Paths: resolver.Paths{Marker: &resolvertest.Marker{}},
			Go: func(f func()) {
				if hold {
					later = append(later, f)
					return
				}
				go f()
			},
		})
		ask := func() <-chan *resolver.Decision {
			done := make(chan *resolver.Decision, 1)
			go func() { done <- r.Resolve(t.Context(), resolver.Ask("x.org.", dns.TypeA, netip.Addr{})) }()
			synctest.Wait()
			return done
		}
		first := ask() // has an odd answer, and waits for an opinion
		hold = true
		second := ask() // begins an exchange that looks at the cache when it runs
		if len(later) != 1 {
			t.Fatalf("%d exchanges wait, want 1", len(later))
		}
		hold = false
		close(opinion)
		if d := <-first; len(d.Addresses) != 1 || d.Addresses[0].Addr.String() != "39.156.1.1" {
			t.Fatalf("the first got %v", d.Addresses)
		}
		r.FlushCache(resolver.Selection{Side: resolver.Foreign})
		down = true
		third := ask() // knows the doubt, has no opinion, asks again
		go later[0]()
		for name, done := range map[string]<-chan *resolver.Decision{"second": second, "third": third} {
			if d := <-done; d.RCode != "NOERROR" || len(d.Addresses) != 1 {
				t.Errorf("the %s got %s with %v", name, d.RCode, d.Addresses)
			}
		}
	})
}
