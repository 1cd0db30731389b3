package resolver_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"smartdns/geo"
	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
)

// A verdict is judged again by what is answered now: the answer of yesterday,
// which the cache could still give, confirms nothing.
func TestStaleAnswersJudgeNothing(t *testing.T) {
	for _, c := range []struct {
		about string
		later func(q upstream.Query) (upstream.Reply, error)
		knows int
	}{
		{"it moved home", func(q upstream.Query) (upstream.Reply, error) { return replied(q, 0, "x.org. 60 IN A 39.156.1.1") }, 0},
		{"nobody answers", func(upstream.Query) (upstream.Reply, error) { return upstream.Reply{}, errors.New("no reply") }, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			now := func(q upstream.Query) (upstream.Reply, error) { return replied(q, 0, "x.org. 60 IN A 93.184.216.34") }
			server := serverOf("foreign", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
				time.Sleep(50 * time.Millisecond)
				if q.Msg[len(q.Msg)-11-3] == byte(dns.TypeAAAA) {
					return replied(q, 0)
				}
				return now(q)
			})
			p := autoPolicy(resolver.ForeignFirst, server, server)
			p.Keep.Stale = 24 * time.Hour
			r, _ := withPolicy(p)
			ask := func(qtype uint16) { r.Resolve(t.Context(), resolver.Ask("x.org.", qtype, netip.Addr{})) }
			for range 14 {
				ask(dns.TypeA)
				time.Sleep(12*time.Hour + time.Minute)
			}
			now = c.later
			ask(dns.TypeAAAA) // finds the verdict old
			time.Sleep(time.Minute)
			all := r.Learned().All()
			if len(all) != c.knows || len(all) == 1 && all[0].Confirmed != 0 {
				t.Errorf("%s: the verdicts are %+v", c.about, all)
			}
		})
	}
}

// Answers that contradict a pin change nothing, so that all that is sealed
// stays: clients could empty the fast lane with one such name.
func TestContradictedPinsKeepTheFastLane(t *testing.T) {
	server := serverOf("foreign", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
		m := new(dns.Msg)
		if err := m.Unpack(q.Msg); err != nil {
			return upstream.Reply{}, err
		}
		return replied(q, 0, m.Question[0].Name+" 60 IN A 39.156.1.1")
	})
	p := autoPolicy(resolver.ForeignFirst, server, server)
	sealed := cache.NewSealed(0, &cache.Generation{})
	r := resolver.New(resolver.Config{
		Policy: p, Cache: cache.New(0), Sealed: sealed, Learned: resolver.NewLearned(1 << 20), Paths: resolver.Paths{Marker: &resolvertest.Marker{}},
	})
	if err := r.Learned().Pin("pinned.org.", geo.Abroad); err != nil {
		t.Fatal(err)
	}
	before := sealed.Generation().Now()
	for range 3 {
		for _, name := range []dnsname.FQDN{"other.org.", "pinned.org."} {
			r.Resolve(t.Context(), resolver.Ask(name, dns.TypeA, netip.Addr{}))
		}
	}
	if now := sealed.Generation().Now(); now != before {
		t.Errorf("the generation went from %d to %d", before, now)
	}
	if !r.Sealed(resolver.Ask("other.org.", dns.TypeA, netip.Addr{})) {
		t.Error("the other name is not sealed")
	}
}

// One name whose verdict turns with each answer does not empty the fast lane:
// only what was decided by it is resolved again.
func TestATurningVerdictUnsealsItsOwnNameAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		home := false
		answer := func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
			m := new(dns.Msg)
			if err := m.Unpack(q.Msg); err != nil {
				return upstream.Reply{}, err
			}
			switch name := m.Question[0].Name; {
			case name == "turns.org." && home:
				return replied(q, 0, name+" 10 IN A 39.156.1.1")
			case name == "turns.org.":
				return replied(q, 0, name+" 10 IN A 93.184.216.34")
			default:
				return replied(q, 0, name+" 3600 IN A 93.184.216.35")
			}
		}
		p := autoPolicy(resolver.ForeignFirst, serverOf("domestic", answer), serverOf("foreign", answer))
		sealed := cache.NewSealed(0, &cache.Generation{})
		r := resolver.New(resolver.Config{
			Policy: p, Cache: cache.New(0), Sealed: sealed, Learned: resolver.NewLearned(1 << 20), Paths: resolver.Paths{Marker: &resolvertest.Marker{}},
		})
		ask := func(name dnsname.FQDN) *resolver.Query { return resolver.Ask(name, dns.TypeA, netip.Addr{}) }
		r.Resolve(t.Context(), ask("other.org."))
		r.Resolve(t.Context(), ask("turns.org."))
		turns := r.Counters().Auto.Contradicted
		for round := range 6 {
			if !r.Sealed(ask("turns.org.")) || !r.Sealed(ask("other.org.")) {
				t.Fatalf("round %d: not sealed", round)
			}
			home = !home
			time.Sleep(11 * time.Second)
			r.Resolve(t.Context(), ask("turns.org.")) // contradicts the verdict
			if r.Sealed(ask("turns.org.")) {
				t.Errorf("round %d: the name is sealed by a verdict that is no more", round)
			}
			if !r.Sealed(ask("other.org.")) {
				t.Fatalf("round %d: the other name is unsealed", round)
			}
			time.Sleep(11 * time.Second)
			r.Resolve(t.Context(), ask("turns.org."))
		}
		if n := r.Counters().Auto.Contradicted - turns; n < 6 {
			t.Errorf("the verdict turned %d times", n)
		}
	})
}

// Whoever sealed by a verdict has to hear when it turns.
func TestLearnTellsAVerdictThatTurned(t *testing.T) {
	l := resolver.NewLearned(1 << 20)
	for i, c := range []struct {
		region geo.Region
		turned bool
	}{{geo.Home, false}, {geo.Home, false}, {geo.Abroad, true}, {geo.Abroad, false}, {geo.Home, true}} {
		if got := l.Learn("x.org.", c.region, "test"); got != c.turned {
			t.Errorf("judgement %d (%s) turned it: %v", i, c.region, got)
		}
	}
}
