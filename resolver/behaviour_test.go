package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// replied returns the reply to q with the given records.
func replied(q upstream.Query, rcode int, records ...string) (upstream.Reply, error) {
	m := new(dns.Msg)
	if err := m.Unpack(q.Msg); err != nil {
		return upstream.Reply{}, err
	}
	r := new(dns.Msg).SetReply(m)
	r.Rcode = rcode
	for _, text := range records {
		r.Answer = append(r.Answer, must(dns.NewRR(text)))
	}
	r.SetEdns0(1232, false)
	msg, err := r.Pack()
	return upstream.Reply{Msg: msg}, err
}

type exchange = func(context.Context, upstream.Query) (upstream.Reply, error)

// autoPolicy returns a policy that asks auto about everything.
func autoPolicy(mode resolver.Mode, domestic, foreign upstream.Exchanger) *resolver.Policy {
	return &resolver.Policy{
		Names: must(policy.NewNames(nil)), Geo: resolvertest.Geo{netip.MustParsePrefix("39.156.0.0/16")},
		Addresses: must(policy.NewAddresses([]policy.AddressSpec{
			{Rule: policy.AddressRule{Via: routing.Direct}, Private: true, Home: true},
			{Rule: policy.AddressRule{Via: "wg0"}, All: true},
		})),
		Auto:   resolver.Auto{Mode: mode, Mixed: resolver.MixedAll},
		Poison: resolver.Poison{Hold: 400 * time.Millisecond},
		Sides: map[string]resolver.Side{
			resolver.Domestic: {Exchanger: domestic, Path: routing.Direct, Spoofable: true},
			resolver.Foreign:  {Exchanger: foreign, Path: "wg0", Trusted: true},
		},
	}
}

func withPolicy(p *resolver.Policy) (*resolver.Resolver, *resolvertest.Marker) {
	marker := &resolvertest.Marker{}
	return resolver.New(resolver.Config{
		Policy: p, Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20), Paths: resolver.Paths{Marker: marker},
	}), marker
}

func serverOf(name string, f exchange) *resolvertest.Exchanger {
	return &resolvertest.Exchanger{Name: name, OnExchange: f}
}

// One lost packet is no lost tunnel: the domestic side hears of a name only
// when every foreign server is down by its own record.
func TestForeignNamesStayForeignWhileAServerIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := func(context.Context, upstream.Query) (upstream.Reply, error) {
			return upstream.Reply{}, errors.New("no reply")
		}
		var asked []string
		domestic := serverOf("domestic", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
			m := new(dns.Msg)
			if err := m.Unpack(q.Msg); err != nil {
				return upstream.Reply{}, err
			}
			asked = append(asked, m.Question[0].Name)
			return replied(q, 0, m.Question[0].Name+" 60 IN A 39.156.1.1")
		})
		foreign := upstream.Group([]upstream.Exchanger{serverOf("a", lost), serverOf("b", lost)}, upstream.Fastest)
		r, _ := withPolicy(autoPolicy(resolver.ForeignFirst, domestic, foreign))
		for i, want := range []string{"SERVFAIL", "NOERROR"} { // down after two failures
			if d := r.Resolve(t.Context(), resolver.Ask(dnsname.FQDN(fmt.Sprintf("n%d.x.org.", i)), dns.TypeA, netip.Addr{})); d.RCode != want {
				t.Errorf("query %d: %s, want %s", i, d.RCode, want)
			}
		}
		if !slices.Equal(asked, []string{"n1.x.org."}) {
			t.Errorf("the domestic side was asked for %q", asked)
		}
		time.Sleep(time.Minute)
	})
}

// A side that is redefined starts with an empty cache: what was answered at
// home may be forged.
func TestCacheBelongsToTheSideAsItWas(t *testing.T) {
	answer := "203.98.7.65"
	server := serverOf("udp://8.8.8.8", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
		return replied(q, 0, "www.x.org. 3600 IN A "+answer)
	})
	through := func(path routing.Path) *resolver.Policy {
		p := autoPolicy(resolver.ForeignOnly, server, server)
		p.Sides[resolver.Foreign] = resolver.Side{Exchanger: server, Path: path}
		return p
	}
	r, _ := withPolicy(through(routing.Direct))
	ask := func() string {
		return r.Resolve(t.Context(), resolver.Ask("www.x.org.", dns.TypeA, netip.Addr{})).Addresses[0].Addr.String()
	}
	ask()
	answer = "93.184.216.34"
	r.Swap(through("wg0"))
	if got := ask(); got != answer {
		t.Errorf("on the new path: %s, want %s", got, answer)
	}
	answer = "93.184.216.35"
	r.Swap(through("wg0"))
	if got := ask(); got != "93.184.216.34" {
		t.Errorf("after a reload that changes nothing: %s, want what is cached", got)
	}
}

// An address that cannot be tied to the path its name is pinned to is not
// answered, unless it goes there by itself.
func TestPinnedOrNotAnswered(t *testing.T) {
	for _, c := range []struct {
		about, addr string
		byDefault   routing.Path
		want        int
	}{
		{"NAT64", "64:ff9b::5db8:d822", routing.Direct, 0},
		{"6to4", "2002:5db8:d822::1", routing.Direct, 0},
		{"never marked", "2606::53", routing.Direct, 0},
		{"by itself", "64:ff9b::5db8:d822", "wg0", 1},
		{"any other", "2606::1", routing.Direct, 1},
	} {
		server := serverOf("foreign", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
			return replied(q, 0, "x.org. 60 IN AAAA "+c.addr)
		})
		p := autoPolicy(resolver.ForeignFirst, server, server)
		p.Names = must(policy.NewNames([]policy.NameRule{{
			Rule: policy.Rule{Side: resolver.Foreign, Via: "wg0"}, Entries: []policy.Entry{{Name: "x.org."}},
		}}))
		p.Addresses = must(policy.NewAddresses([]policy.AddressSpec{{Rule: policy.AddressRule{Via: c.byDefault}, All: true}}))
		r := resolver.New(resolver.Config{
			Policy: p, Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20),
			Paths: resolver.Paths{Marker: &resolvertest.Marker{}, Never: func(a netip.Addr) string {
				if a == netip.MustParseAddr("2606::53") {
					return "an upstream"
				}
				return ""
			}},
		})
		q := resolver.Ask("x.org.", dns.TypeAAAA, netip.Addr{})
		d := r.Resolve(t.Context(), q)
		m := new(dns.Msg)
		if err := m.Unpack(d.Reply(nil, q)); err != nil {
			t.Fatal(err)
		}
		if len(m.Answer) != c.want {
			t.Errorf("%s: %d addresses, want %d: %+v", c.about, len(m.Answer), c.want, d.Addresses)
		}
	}
}

// Exchanges that nobody waits for any more are bounded as well.
func TestExchangesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		home := serverOf("domestic", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
			m := new(dns.Msg)
			if err := m.Unpack(q.Msg); err != nil {
				return upstream.Reply{}, err
			}
			return replied(q, 0, m.Question[0].Name+" 60 IN A 39.156.1.1")
		})
		silent := serverOf("foreign", func(ctx context.Context, _ upstream.Query) (upstream.Reply, error) {
			<-ctx.Done()
			return upstream.Reply{}, ctx.Err()
		})
		r, _ := withPolicy(autoPolicy(resolver.Race, home, silent))
		before := runtime.NumGoroutine()
		for i := range 6000 {
			r.Resolve(t.Context(), resolver.Ask(dnsname.FQDN(fmt.Sprintf("n.x%d.org.", i)), dns.TypeA, netip.MustParseAddr("192.168.1.2")))
		}
		if n, most := runtime.NumGoroutine()-before, resolver.DefaultLimits().InFlight; n > most {
			t.Errorf("%d exchanges under way, want at most %d", n, most)
		}
		if r.Counters().Overloaded == 0 {
			t.Error("nothing was refused")
		}
		time.Sleep(6 * time.Second)
	})
}

// One server of the domestic side knows EDNS, the other does not: each is
// measured by what it does itself.
func TestMissingOPTIsOddOfItsServerOnly(t *testing.T) {
	var mu sync.Mutex
	odd := map[string]bool{}
	server := "old"
	domestic := serverOf("domestic", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
		m := new(dns.Msg)
		if err := m.Unpack(q.Msg); err != nil {
			return upstream.Reply{}, err
		}
		r := new(dns.Msg).SetReply(m)
		r.Answer = []dns.RR{must(dns.NewRR(m.Question[0].Name + " 60 IN A 39.156.1.1"))}
		if server == "new" && m.Question[0].Name == "first.x.cn." {
			r.SetEdns0(1232, false)
		}
		msg, err := r.Pack()
		if err != nil {
			return upstream.Reply{}, err
		}
		mu.Lock()
		defer mu.Unlock()
		odd[server+" "+m.Question[0].Name] = q.Suspect(server, msg)
		return upstream.Reply{Msg: msg, Tries: []upstream.Try{{Server: server}}}, nil
	})
	foreign := serverOf("foreign", func(context.Context, upstream.Query) (upstream.Reply, error) {
		return upstream.Reply{}, errors.New("tunnel is down")
	})
	p := autoPolicy(resolver.ForeignFirst, domestic, foreign)
	p.Names = must(policy.NewNames([]policy.NameRule{{Rule: policy.Rule{Side: resolver.Domestic}, Entries: []policy.Entry{{Name: "x.cn."}}}}))
	r, _ := withPolicy(p)
	for _, server = range []string{"new", "old"} {
		for _, name := range []dnsname.FQDN{"first.x.cn.", "second.x.cn."} {
			r.Flush()
			r.Resolve(t.Context(), resolver.Ask(name, dns.TypeA, netip.Addr{}))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for what, want := range map[string]bool{
		"new first.x.cn.": false, "new second.x.cn.": true, "old first.x.cn.": false, "old second.x.cn.": false,
	} {
		if odd[what] != want {
			t.Errorf("%s: odd %v, want %v", what, odd[what], want)
		}
	}
}

// A panic of a server in a group costs its queries, not the process.
func TestPanicWithinAGroup(t *testing.T) {
	boom := func(context.Context, upstream.Query) (upstream.Reply, error) { panic("bug") }
	g := upstream.Group([]upstream.Exchanger{serverOf("a", boom), serverOf("b", boom)}, upstream.Fastest)
	r, _ := withPolicy(autoPolicy(resolver.ForeignOnly, g, g))
	if d := r.Resolve(t.Context(), resolver.Ask("www.x.org.", dns.TypeA, netip.Addr{})); d.RCode != "SERVFAIL" {
		t.Errorf("%s", d.RCode)
	}
}

// An answer of which nothing may be given is a negative one that clients can
// cache (RFC 2308 section 3).
func TestFilteredAnswerHasASOA(t *testing.T) {
	server := serverOf("foreign", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
		return replied(q, 0, "x.org. 60 IN CNAME y.org.", "y.org. 60 IN AAAA 2606::1")
	})
	r := resolver.New(resolver.Config{
		Policy: autoPolicy(resolver.ForeignOnly, server, server), Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20),
		Paths: resolver.Paths{Marker: &resolvertest.Marker{}, CanV6: func(routing.Path) bool { return false }},
	})
	q := resolver.Ask("x.org.", dns.TypeAAAA, netip.Addr{})
	m := new(dns.Msg)
	if err := m.Unpack(r.Resolve(t.Context(), q).Reply(nil, q)); err != nil {
		t.Fatal(err)
	}
	if len(m.Answer) != 1 || len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA || m.Ns[0].Header().Name != "y.org." {
		t.Errorf("%v", m)
	}
}

// An answer that just fits the length prefix of TCP is whole, though then
// without an OPT, or without the reason in it.
func TestNoTruncationOverTCP(t *testing.T) {
	for _, size := range []int{60000, 65350, 65520, 65530, 65535} {
		server := serverOf("foreign", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
			m := new(dns.Msg)
			if err := m.Unpack(q.Msg); err != nil {
				return upstream.Reply{}, err
			}
			r := new(dns.Msg).SetReply(m)
			r.Answer = []dns.RR{&dns.NULL{Hdr: dns.RR_Header{Name: "x.org.", Rrtype: dns.TypeNULL, Class: 1, Ttl: 60}, Data: ""}}
			r.Compress = true
			msg, err := r.Pack()
			if err != nil {
				return upstream.Reply{}, err
			}
			data := make([]byte, size-len(msg))
			r.Answer[0].(*dns.NULL).Data = string(data)
			msg, err = r.Pack()
			return upstream.Reply{Msg: msg}, err
		})
		r, _ := withPolicy(autoPolicy(resolver.ForeignOnly, server, server))
		q := resolver.Ask("x.org.", dns.TypeNULL, netip.Addr{})
		q.Transport = "tcp"
		reply := r.Resolve(t.Context(), q).Reply(nil, q)
		if len(reply) < size || len(reply) > 65535 || reply[2]&2 != 0 {
			t.Errorf("an answer of %d octets became a message of %d, TC %v", size, len(reply), reply[2]&2 != 0)
		}
	}
}
