package resolver_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/upstream"
)

// asked is what a server was asked, in order.
type asked struct {
	mu    sync.Mutex
	names []string
}

func (a *asked) add(q upstream.Query) string {
	var m dns.Msg
	if m.Unpack(q.Msg) != nil {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = append(a.names, m.Question[0].Name)
	return m.Question[0].Name
}

// tests returns the questions that were no client's.
func (a *asked) tests(of string) (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.names {
		if strings.HasSuffix(n, of) && len(n) == len(of)+32 {
			all = append(all, n)
		}
	}
	return all
}

// A server that is slow is no loop, however many ask the same meanwhile: it is
// tested with a name that nobody can guess, one packet every 10 s at most, and
// neither that name with other digits nor its own, too late, proves anything
// (SECURITY R-17, S-22).
func TestSlowServerIsNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a asked
		slow := serverOf("slow", func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
			if a.add(q) == "" {
				t.Error("a malformed query")
			}
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
			return upstream.Reply{}, context.DeadlineExceeded
		})
		p := autoPolicy(resolver.ForeignOnly, nil, upstream.Group([]upstream.Exchanger{slow}, upstream.Fastest))
		r, _ := withPolicy(p)
		var waiting sync.WaitGroup
		for range 100 {
			waiting.Go(func() { r.Resolve(t.Context(), query(t, "www.example.com.", 1)) })
			<-time.After(100 * time.Millisecond)
		}
		waiting.Wait()
		tests := a.tests(".www.example.com.")
		if len(tests) == 0 || len(tests) > 2 || len(tests) == 2 && tests[0] == tests[1] {
			t.Fatalf("tests in 15 s: %q", tests)
		}
		forged := []byte(tests[len(tests)-1])
		forged[5] ^= 1
		r.Resolve(t.Context(), query(t, string(forged), 2))
		<-time.After(15 * time.Second)
		r.Resolve(t.Context(), query(t, tests[0], 3))
		if loops := r.Loops(); len(loops) != 0 {
			t.Errorf("loops: %+v", loops)
		}
		<-time.After(15 * time.Second)
	})
}

// What comes back to us is a loop: the server is named, what it asks while we
// ask it is refused at once, and it is forgotten when it was not seen for long
// (SECURITY R-17).
func TestForwardingLoopIsFoundAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a asked
		var r *resolver.Resolver
		looping := true
		server := serverOf("10.0.0.9", func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
			name := a.add(q)
			if !looping {
				return replied(q, dns.RcodeNameError)
			}
			back := query(t, name, 7)
			back.Client = netip.MustParseAddr("10.0.0.9")
			back.Flags.DO = true // as a validator has it
			m := r.Resolve(ctx, back)
			return replied(q, int(m.Code()))
		})
		r, _ = withPolicy(autoPolicy(resolver.ForeignOnly, nil, upstream.Group([]upstream.Exchanger{server}, upstream.Fastest)))
		var last *resolver.Decision
		again := func(name string) time.Duration {
			begun := time.Now()
			last = r.Resolve(t.Context(), query(t, name, 1))
			return time.Since(begun)
		}
		again("www.example.com.")
		again("ftp.example.com.")
		loops := r.Loops()
		if len(loops) != 1 || loops[0].Server != "10.0.0.9" || loops[0].Side != resolver.Foreign || loops[0].From != netip.MustParseAddr("10.0.0.9") {
			t.Fatalf("loops: %+v", loops)
		}
		if took := again("mail.example.com."); took > time.Second {
			t.Errorf("a query took %s when the loop was known", took)
		}
		if len(last.EDE) == 0 || !strings.Contains(last.EDE[0].Text, "a forwarding loop") {
			t.Errorf("the client is told %+v", last.EDE)
		}
		looping = false
		<-time.After(3 * time.Minute)
		if loops := r.Loops(); len(loops) != 0 {
			t.Errorf("loops that nobody saw for long: %+v", loops)
		}
		r.Resolve(t.Context(), query(t, "again.example.com.", 4))
	})
}
