package resolver_test

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/upstream"
)

// A loop ends with the reload that names another server: what the old one asks
// us is no question of ours any more, and the new one's failures are no loop. One
// that is still named stays known.
func TestReloadForgetsTheLoopsOfServersThatWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := netip.MustParseAddr("10.0.0.9")
		var a asked
		var r *resolver.Resolver
		looping := serverOf("10.0.0.9", func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
			back := query(t, a.add(q), 7)
			back.Client = from
			return replied(q, int(r.Resolve(ctx, back).Code()))
		})
		dead := serverOf("10.0.0.10", func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
			<-time.After(time.Second)
			return upstream.Reply{}, context.DeadlineExceeded
		})
		with := func(ex upstream.Exchanger) *resolver.Policy {
			return autoPolicy(resolver.ForeignOnly, nil, upstream.Group([]upstream.Exchanger{ex}, upstream.Fastest))
		}
		r, _ = withPolicy(with(looping))
		r.Resolve(t.Context(), query(t, "www.example.com.", 1))
		r.Resolve(t.Context(), query(t, "ftp.example.com.", 1))
		before := r.Loops()
		if len(before) != 1 {
			t.Fatalf("loops: %+v", before)
		}
		r.Swap(with(looping))
		if after := r.Loops(); len(after) != 1 || after[0] != before[0] {
			t.Errorf("with the same server loops are %+v, were %+v", after, before)
		}
		r.Swap(with(dead))
		if loops := r.Loops(); len(loops) != 0 {
			t.Errorf("with another server: %+v", loops)
		}
		go r.Resolve(t.Context(), query(t, "mail.example.com.", 1))
		<-time.After(100 * time.Millisecond)
		own := query(t, "mail.example.com.", 2) // of the old server's own client
		own.Client = from
		for _, e := range r.Resolve(t.Context(), own).EDE {
			if strings.Contains(e.Text, "loop") {
				t.Errorf("whom we do not ask any more is told %q", e.Text)
			}
		}
		<-time.After(15 * time.Second)
	})
}

// A panic in a test of a server costs the test, as one in an exchange costs the
// answer.
func TestPanicInTheTestOfAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tests atomic.Int32
		server := serverOf("10.0.0.9", func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
			var m dns.Msg
			if err := m.Unpack(q.Msg); err != nil {
				t.Error(err)
			}
			if m.Question[0].Name != "www.example.com." {
				tests.Add(1)
				panic("a bug")
			}
			<-time.After(time.Second)
			return replied(q, dns.RcodeNameError)
		})
		r, _ := withPolicy(autoPolicy(resolver.ForeignOnly, nil, upstream.Group([]upstream.Exchanger{server}, upstream.Fastest)))
		go r.Resolve(t.Context(), query(t, "www.example.com.", 1))
		<-time.After(700 * time.Millisecond)
		if d := r.Resolve(t.Context(), query(t, "www.example.com.", 2)); d.RCode != "NXDOMAIN" {
			t.Errorf("the answer is %s", d.RCode)
		}
		<-time.After(15 * time.Second)
		if n := tests.Load(); n != 1 {
			t.Errorf("%d tests", n)
		}
	})
}
