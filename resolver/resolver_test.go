package resolver_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"smartdns/geo"
	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
	"smartdns/routing"
)

// newResolver returns a resolver that asks foreign about everything but
// baidu.com, which it asks domestic about.
func newResolver(t testing.TB, ask func(context.Context, string, upstream.Query) (upstream.Reply, error)) (*resolver.Resolver, *resolvertest.Marker) {
	t.Helper()
	names, err := policy.NewNames([]policy.NameRule{
		{Rule: policy.Rule{Side: resolver.Domestic}, Entries: []policy.Entry{{Name: "baidu.com."}}},
		{Rule: policy.Rule{Index: 1, Side: resolver.Foreign}, Entries: []policy.Entry{{Kind: policy.All}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := policy.NewAddresses([]policy.AddressSpec{
		{Rule: policy.AddressRule{Via: routing.Direct}, Private: true, Home: true},
		{Rule: policy.AddressRule{Via: "wg0"}, All: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	side := func(name string) *resolvertest.Exchanger {
		return &resolvertest.Exchanger{Name: name, OnExchange: func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
			return ask(ctx, name, q)
		}}
	}
	marker := &resolvertest.Marker{}
	return resolver.New(resolver.Config{
		Policy: &resolver.Policy{
			Names: names, Addresses: addresses, Geo: resolvertest.Geo{netip.MustParsePrefix("39.156.0.0/16")},
			Auto: resolver.Auto{Mode: resolver.ForeignFirst, Mixed: resolver.MixedAll},
			Sides: map[string]resolver.Side{
				resolver.Domestic: {Exchanger: side(resolver.Domestic), Path: routing.Direct, Spoofable: true},
				resolver.Foreign:  {Exchanger: side(resolver.Foreign), Path: "wg0", Trusted: true},
			},
		},
		Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20), Paths: resolver.Paths{Marker: marker},
	}), marker
}

// echo answers every A question with one address.
func echo(addr string) func(context.Context, string, upstream.Query) (upstream.Reply, error) {
	return func(_ context.Context, _ string, q upstream.Query) (upstream.Reply, error) {
		m := new(dns.Msg)
		if err := m.Unpack(q.Msg); err != nil {
			return upstream.Reply{}, err
		}
		r := new(dns.Msg)
		r.SetReply(m)
		r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: 1, Ttl: 60}, A: netip.MustParseAddr(addr).AsSlice()}}
		msg, err := r.Pack()
		return upstream.Reply{Msg: msg}, err
	}
}

// query returns the Query of a packed one, as a listener makes it.
func query(t testing.TB, name string, id uint16) *resolver.Query {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.Id = id
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	parsed, action, _ := wire.ParseQuery(b)
	if action != wire.Accept {
		t.Fatalf("%s is not accepted", name)
	}
	q, err := resolver.NewQuery(parsed, netip.MustParseAddr("192.168.8.20"), "udp")
	if err != nil {
		t.Fatal(err)
	}
	clear(b) // the buffer is the listener's again
	return q
}

// Of two clients that spell a name in two ways at the same moment, each gets
// its own ID and spelling back (SECURITY P-07).
func TestEachClientGetsItsOwnCase(t *testing.T) {
	const rounds = 1000
	r, _ := newResolver(t, echo("93.184.216.34"))
	for round := range rounds {
		var wg sync.WaitGroup
		for i, form := range []string{"n%d.example.test.", "N%d.eXaMpLe.TeSt."} {
			wg.Go(func() {
				name, id := fmt.Sprintf(form, round), uint16(2*round+i)
				q := query(t, name, id)
				m := new(dns.Msg)
				if err := m.Unpack(r.Resolve(t.Context(), q).Reply(nil, q)); err != nil {
					t.Error(err)
					return
				}
				if m.Id != id || m.Question[0].Name != name || len(m.Answer) != 1 || m.Answer[0].Header().Name != name {
					t.Errorf("asked %s with ID %d, got %v", name, id, m)
				}
			})
		}
		wg.Wait()
	}
}

// A client that asks more than upstreams answer holds 200 slots and no more, so
// that others are served, and nobody gets 10,000 held answers at once
// (SECURITY ).
func TestOneClientCannotTakeEverySlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newResolver(t, func(ctx context.Context, side string, q upstream.Query) (upstream.Reply, error) {
			<-ctx.Done()
			return upstream.Reply{}, ctx.Err()
		})
		ask := func(client string, i int) *resolver.Decision {
			return r.Resolve(t.Context(), resolver.Ask(dnsname.FQDN(fmt.Sprintf("n.example%d.org.", i)), dns.TypeA, netip.MustParseAddr(client)))
		}
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() { ask("192.168.8.20", i) })
		}
		synctest.Wait()
		begun := time.Now()
		if d := ask("192.168.8.20", 200); d.OK() || time.Since(begun) != 0 || len(d.EDE) == 0 {
			t.Errorf("query 201 took %s: %s %v", time.Since(begun), d.RCode, d.EDE)
		}
		if n := r.Counters().Overloaded; n != 1 {
			t.Errorf("%d queries refused, want 1", n)
		}
		if ask("192.168.8.21", 300); time.Since(begun) != 5*time.Second {
			t.Errorf("another client's query ended after %s, want 5s", time.Since(begun))
		}
		wg.Wait()
	})
}

// Many clients that ask for names made up in one slow zone hold 200 questions,
// and names of other zones are asked as if they were not there (SECURITY R-12).
func TestOneZoneCannotTakeEverySlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inZone, most atomic.Int32
		answer := echo("93.184.216.34")
		r, _ := newResolver(t, func(ctx context.Context, side string, q upstream.Query) (upstream.Reply, error) {
			if strings.Contains(string(q.Msg), "\x06victim\x04test") {
				most.Store(max(most.Load(), inZone.Add(1)))
				defer inZone.Add(-1)
				time.Sleep(2 * time.Second)
			}
			return answer(ctx, side, q)
		})
		ask := func(client byte, name string) *resolver.Decision {
			return r.Resolve(t.Context(), resolver.Ask(dnsname.FQDN(name), dns.TypeA, netip.AddrFrom4([4]byte{192, 168, 8, client})))
		}
		var wg sync.WaitGroup
		for i := range 10_000 { // 5,000 a second for 2 s
			wg.Go(func() { ask(byte(i), fmt.Sprintf("rnd%d.victim.test.", i)) })
			if i%25 == 0 {
				begun := time.Now()
				if d := ask(byte(i), fmt.Sprintf("www.n%d.test.", i)); !d.OK() || time.Since(begun) != 0 {
					t.Fatalf("a normal query took %s: %s %v", time.Since(begun), d.RCode, d.EDE)
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		wg.Wait()
		if n := most.Load(); n != 200 {
			t.Errorf("%d questions about the zone were under way, want 200", n)
		}
		if d := ask(1, "last.victim.test."); !d.OK() {
			t.Errorf("afterwards: %s", d.RCode)
		}
	})
}

// A client that asks a hundred times a second for what nobody answers costs
// the upstreams three questions in 5 s at most (RFC 9520).
// (SECURITY P-15)
func TestFailuresAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		r, _ := newResolver(t, func(context.Context, string, upstream.Query) (upstream.Reply, error) {
			asked.Add(1)
			return upstream.Reply{}, errors.New("refused")
		})
		for range 1000 {
			r.Resolve(t.Context(), resolver.Ask("www.example.org.", dns.TypeA, netip.Addr{}))
			time.Sleep(10 * time.Millisecond)
		}
		if n := asked.Load(); n > 6 {
			t.Errorf("%d questions in 10 s, want at most 6", n)
		}
	})
}

// shortMarker gives marks a shorter life than was asked for, as a living mark
// that the kernel does not renew has.
type shortMarker time.Duration

func (m shortMarker) Mark(context.Context, routing.Owner, []routing.Mark) (time.Time, error) {
	return time.Now().Add(time.Duration(m)), nil
}

func TestTTLEndsBeforeTheMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &resolver.Policy{
			Names: must(policy.NewNames(nil)), Geo: resolvertest.Geo{},
			Addresses: must(policy.NewAddresses([]policy.AddressSpec{{Rule: policy.AddressRule{Via: "wg0"}, All: true}})),
			Auto:      resolver.Auto{Mode: resolver.ForeignOnly},
			Sides: map[string]resolver.Side{resolver.Foreign: {Path: "wg0", Exchanger: &resolvertest.Exchanger{
				OnExchange: func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
					return echo("93.184.216.34")(ctx, "", q)
				},
			}}},
		}
		r := resolver.New(resolver.Config{
			Policy: p, Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20), Paths: resolver.Paths{Marker: shortMarker(640 * time.Second)},
		})
		for range 2 { // fresh, then from the cache: the cap is the answer's, not the entry's
			q := resolver.Ask("www.example.org.", dns.TypeA, netip.Addr{})
			m, d := new(dns.Msg), r.Resolve(t.Context(), q)
			if err := m.Unpack(d.Reply(nil, q)); err != nil {
				t.Fatal(err)
			}
			if ttl, told := m.Answer[0].Header().Ttl, d.Addresses[0].TTL; ttl != 40 || told != 40 {
				t.Errorf("TTL %d with a mark of 640 s, told as %d, want 40", ttl, told)
			}
		}
	})
}

// A panic below an exchange costs its queries, not the process (SECURITY C-05).
func TestPanicOfAnExchange(t *testing.T) {
	r, _ := newResolver(t, func(context.Context, string, upstream.Query) (upstream.Reply, error) { panic("bug") })
	if d := r.Resolve(t.Context(), resolver.Ask("www.example.org.", dns.TypeA, netip.Addr{})); d.RCode != "SERVFAIL" {
		t.Errorf("%s", d.RCode)
	}
}

// Poison that came in by a listed name changes no verdict of another name
// (SECURITY N-09).
func TestMarksNeverFeedClassification(t *testing.T) {
	r, _ := newResolver(t, echo("93.184.216.34"))
	r.Resolve(t.Context(), resolver.Ask("x.baidu.com.", dns.TypeA, netip.Addr{}))
	for i := range 100 {
		d := r.Resolve(t.Context(), resolver.Ask(dnsname.FQDN(fmt.Sprintf("n%d.example.org.", i)), dns.TypeA, netip.Addr{}))
		if len(d.Addresses) != 1 || d.Addresses[0].Region != "abroad" || d.Addresses[0].Path != "wg0" {
			t.Fatalf("n%d: %+v", i, d.Addresses)
		}
	}
}

func TestWithoutATunnelNothingIsMarked(t *testing.T) {
	r := resolver.New(resolver.Config{
		Policy: &resolver.Policy{
			Names: must(policy.NewNames(nil)), Geo: resolvertest.Geo{},
			Addresses: must(policy.NewAddresses([]policy.AddressSpec{{Rule: policy.AddressRule{Via: routing.Direct}, All: true}})),
			Auto:      resolver.Auto{Mode: resolver.ForeignOnly},
			Sides: map[string]resolver.Side{resolver.Foreign: {Path: routing.Direct, Exchanger: &resolvertest.Exchanger{
				OnExchange: func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
					return echo("93.184.216.34")(ctx, "", q)
				},
			}}},
		},
		Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20),
	})
	d := r.Resolve(t.Context(), resolver.Ask("www.example.org.", dns.TypeA, netip.Addr{}))
	if !d.OK() || len(d.Addresses) != 1 || d.Addresses[0].Marked || d.Addresses[0].Note != "there is no tunnel" {
		t.Errorf("%s %+v", d.RCode, d.Addresses)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// FuzzReply feeds whatever an upstream could send. Resolve must not panic, its
// answer must be one that others can read, and hold no address that is not
// marked, or said to need none.
func FuzzReply(f *testing.F) {
	add := func(qtype uint16, records ...string) {
		m := new(dns.Msg)
		m.SetQuestion("www.baidu.com.", qtype)
		m.Response = true
		m.SetEdns0(1232, false)
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, qtype)
	}
	add(dns.TypeA, "www.baidu.com. 60 IN A 39.156.1.1", "www.baidu.com. 60 IN A 93.184.1.1")
	add(dns.TypeA, "www.baidu.com. 60 IN CNAME b.example.", "b.example. 60 IN A 10.0.0.1")
	add(dns.TypeAAAA, "www.baidu.com. 60 IN AAAA 2606::1", "www.baidu.com. 60 IN AAAA ::ffff:1.2.3.4")
	add(dns.TypeAAAA, "www.baidu.com. 60 IN AAAA 64:ff9b::5db8:d822", "www.baidu.com. 60 IN AAAA 2002:5db8:d822::1")
	add(dns.TypeHTTPS, `www.baidu.com. 60 IN HTTPS 1 . alpn="h2" ipv4hint="39.156.1.1" ipv6hint="2606::1"`)
	add(dns.TypeMX, "www.baidu.com. 60 IN MX 1 m.www.baidu.com.")
	add(dns.TypeNS, "www.baidu.com. 60 IN NS a.")
	f.Fuzz(func(t *testing.T, reply []byte, qtype uint16) {
		// An Exchanger returns only what CheckReply accepts; then what we make
		// of it must be accepted as well. The rest holds for anything.
		sound := wire.CheckReply(reply) == nil
		r, marker := newResolver(t, func(_ context.Context, _ string, q upstream.Query) (upstream.Reply, error) {
			msg := slices.Clone(reply)
			if q.Suspect != nil {
				q.Suspect("", msg)
			}
			return upstream.Reply{Msg: msg}, nil
		})
		q := resolver.Ask("www.baidu.com.", qtype, netip.Addr{})
		q.Flags.DO = len(reply)%2 == 0
		for range 2 { // fresh, then from the cache
			d := r.Resolve(t.Context(), q)
			answer := d.Reply(nil, q)
			if err := wire.CheckReply(answer); sound && err != nil {
				t.Fatalf("our own reply: %v", err)
			}
			checkAnswer(t, d, answer, marker.Take())
		}
		checkPinned(t, reply, qtype)
	})
}

// checkPinned resolves a name that is pinned to a tunnel where everything else
// is direct: what is not marked must not be answered, unless it is special.
func checkPinned(t *testing.T, reply []byte, qtype uint16) {
	t.Helper()
	server := serverOf("foreign", func(context.Context, upstream.Query) (upstream.Reply, error) {
		return upstream.Reply{Msg: slices.Clone(reply)}, nil
	})
	p := autoPolicy(resolver.ForeignOnly, server, server)
	p.Addresses = must(policy.NewAddresses([]policy.AddressSpec{{Rule: policy.AddressRule{Via: routing.Direct}, All: true}}))
	p.Names = must(policy.NewNames([]policy.NameRule{{
		Rule: policy.Rule{Side: resolver.Foreign, Via: "wg0"}, Entries: []policy.Entry{{Kind: policy.All}},
	}}))
	r, _ := withPolicy(p)
	d := r.Resolve(t.Context(), resolver.Ask("www.baidu.com.", qtype, netip.Addr{}))
	for _, a := range d.Addresses {
		if kind, _ := geo.Special(a.Addr); d.OK() && kind == geo.NotSpecial && a.Dropped == "" && (!a.Marked || a.Path != "wg0") {
			t.Fatalf("%s is answered and not tied to wg0: %+v", a.Addr, a)
		}
	}
}

func checkAnswer(t *testing.T, d *resolver.Decision, reply []byte, marks []routing.Mark) {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(reply); err != nil {
		return // data of a type that miekg/dns knows better than those who sent it
	}
	for _, a := range answered(m) {
		marked := slices.ContainsFunc(marks, func(k routing.Mark) bool { return k.Addr == a })
		excused := slices.ContainsFunc(d.Addresses, func(x resolver.Address) bool { return x.Addr == a && x.Dropped == "" && x.Note != "" })
		if !marked && !excused {
			t.Fatalf("%s is answered and not marked: %+v", a, d.Addresses)
		}
	}
}

// answered returns every address of a message, read by other code than ours.
func answered(m *dns.Msg) (all []netip.Addr) {
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		switch rr := rr.(type) {
		case *dns.A:
			all = append(all, netip.AddrFrom4([4]byte(rr.A.To4())))
		case *dns.AAAA:
			all = append(all, netip.AddrFrom16([16]byte(rr.AAAA.To16())))
		case *dns.HTTPS:
			all = append(all, hints(rr.Value)...)
		case *dns.SVCB:
			all = append(all, hints(rr.Value)...)
		}
	}
	return all
}

func hints(values []dns.SVCBKeyValue) (all []netip.Addr) {
	for _, v := range values {
		if v.Key() != dns.SVCB_IPV4HINT && v.Key() != dns.SVCB_IPV6HINT {
			continue
		}
		for text := range strings.SplitSeq(v.String(), ",") {
			if a, err := netip.ParseAddr(text); err == nil {
				all = append(all, a)
			}
		}
	}
	return all
}

// FuzzQuery feeds whatever a listener could accept.
func FuzzQuery(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("www.Example.org.", dns.TypeHTTPS)
	m.SetEdns0(1232, true)
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, msg []byte) {
		parsed, action, _ := wire.ParseQuery(msg)
		if action != wire.Accept {
			return
		}
		q, err := resolver.NewQuery(parsed, netip.Addr{}, "udp")
		if err != nil {
			t.Fatalf("an accepted query: %v", err)
		}
		r, _ := newResolver(t, echo("93.184.216.34"))
		reply := r.Resolve(t.Context(), q).Reply(nil, q)
		if len(reply) > q.Size || binary.BigEndian.Uint16(reply) != parsed.ID() {
			t.Fatalf("%d octets with ID %d, want at most %d with %d", len(reply), binary.BigEndian.Uint16(reply), q.Size, parsed.ID())
		}
		if err := wire.CheckReply(reply); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkCachedAnswer(b *testing.B) {
	r, _ := newResolver(b, echo("93.184.216.34"))
	q := query(b, "www.example.org.", 1)
	b.ReportAllocs()
	for b.Loop() {
		r.Resolve(b.Context(), q).Reply(nil, q)
	}
}
