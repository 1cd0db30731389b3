package resolver_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/policy"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
	"smartdns/routing"
)

// lane is a resolver and what it seals.
type lane struct {
	*resolver.Resolver
	sealed *cache.Sealed
	marker *resolvertest.Marker
	policy *resolver.Policy
}

// newLane returns a resolver that asks foreign for everything, but answers
// local.test and blocked.test itself.
func newLane(t testing.TB, ask func(context.Context, string, upstream.Query) (upstream.Reply, error)) lane {
	t.Helper()
	names, err := policy.NewNames([]policy.NameRule{
		{Rule: policy.Rule{Action: policy.Local, Answer: policy.Answer{Kind: policy.AnswerAddress, Addrs: []netip.Addr{netip.MustParseAddr("192.168.8.2")}}}, Entries: []policy.Entry{{Name: "local.test."}}},
		{Rule: policy.Rule{Index: 1, Action: policy.Local, Answer: policy.Answer{Kind: policy.AnswerBlock}}, Entries: []policy.Entry{{Name: "blocked.test."}}},
		{Rule: policy.Rule{Index: 2, Action: policy.Local, Answer: policy.Answer{Kind: policy.AnswerRefused}}, Entries: []policy.Entry{{Name: "refused.test."}}},
		{Rule: policy.Rule{Index: 3, Side: resolver.Foreign}, Entries: []policy.Entry{{Kind: policy.All}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := policy.NewAddresses([]policy.AddressSpec{{Rule: policy.AddressRule{Via: "wg0"}, All: true}})
	if err != nil {
		t.Fatal(err)
	}
	l := lane{sealed: cache.NewSealed(0, &cache.Generation{}), marker: &resolvertest.Marker{}}
	l.policy = &resolver.Policy{
		Names: names, Addresses: addresses, Geo: resolvertest.Geo{}, PrivateOK: nil,
		Sides: map[string]resolver.Side{resolver.Foreign: {Path: "wg0", Trusted: true, Exchanger: &resolvertest.Exchanger{
			Name: resolver.Foreign, OnExchange: func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
				return ask(ctx, resolver.Foreign, q)
			},
		}}},
	}
	l.Resolver = resolver.New(resolver.Config{
		Policy: l.policy, Cache: cache.New(0), Sealed: l.sealed, Learned: resolver.NewLearned(1 << 20),
		Paths: resolver.Paths{Marker: l.marker, StaticAgrees: func(netip.Addr, routing.Path) bool { return true }},
	})
	return l
}

// both returns the answers that the two lanes give to a query over UDP: the
// sealed one first, nil when there is none.
func (l lane) both(t testing.TB, msg []byte) (sealed, resolved []byte) {
	return l.over(t, "udp", msg)
}

// over is both for any transport.
func (l lane) over(t testing.TB, transport string, msg []byte) (sealed, resolved []byte) {
	t.Helper()
	q, action, _ := wire.ParseQuery(msg)
	if action != wire.Accept {
		t.Fatalf("%x is not accepted", msg)
	}
	size := wire.MaxMessage
	if transport == "udp" {
		size = q.Limit()
	}
	if reply, ok := l.sealed.Answer(nil, q, 0, size, l.sealed.Now()); ok {
		sealed = reply
	}
	query, err := resolver.NewQuery(q, netip.MustParseAddr("192.168.8.20"), transport)
	if err != nil {
		t.Fatal(err)
	}
	return sealed, l.Resolve(t.Context(), query).Reply(nil, query)
}

// forms are ways to ask the same.
func forms(t testing.TB, name string, qtype uint16) [][]byte {
	t.Helper()
	var all [][]byte
	for i := range 32 {
		m := new(dns.Msg)
		m.SetQuestion(name, qtype)
		m.Id, m.AuthenticatedData = uint16(i*257), i&1 != 0
		if i&2 != 0 {
			m.Question[0].Name = upper(name)
		}
		if i&4 != 0 {
			m.SetEdns0([]uint16{512, 700, 1232, 4096}[i>>3], false)
		}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func upper(s string) string {
	b := []byte(s)
	for i := range b {
		if i%2 == 0 && 'a' <= b[i] && b[i] <= 'z' {
			b[i] -= 'a' - 'A'
		}
	}
	return string(b)
}

// zoneOf answers from records in zone file syntax.
func zoneOf(t testing.TB, records ...string) func(context.Context, string, upstream.Query) (upstream.Reply, error) {
	t.Helper()
	var all []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	return func(_ context.Context, _ string, q upstream.Query) (upstream.Reply, error) {
		m := new(dns.Msg)
		if err := m.Unpack(q.Msg); err != nil {
			return upstream.Reply{}, err
		}
		r := new(dns.Msg).SetReply(m)
		r.AuthenticatedData, r.RecursionAvailable = true, true
		for _, rr := range all {
			if rr.Header().Rrtype == dns.TypeSOA {
				r.Ns = append(r.Ns, rr)
				continue
			}
			r.Answer = append(r.Answer, rr)
		}
		if len(r.Answer) == 0 {
			r.Rcode = dns.RcodeNameError
		}
		r.Compress = true
		msg, err := r.Pack()
		return upstream.Reply{Msg: msg}, err
	}
}

func many(n int) (records []string) {
	for i := range n {
		records = append(records, fmt.Sprintf("many.example.test. 600 IN A 93.184.216.%d", i))
	}
	return records
}

// What the fast lane says is, octet by octet, what Resolve says at that moment.
func TestSealedAnswerIsResolvesAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		qtype   uint16
		records []string
	}{
		"www.example.test.":  {dns.TypeA, []string{"www.example.test. 300 IN CNAME cdn.example.test.", "cdn.example.test. 60 IN A 93.184.216.34", "cdn.example.test. 60 IN A 93.184.216.35"}},
		"six.example.test.":  {dns.TypeAAAA, []string{"six.example.test. 300 IN AAAA 2606:2800:220:1::1"}},
		"none.example.test.": {dns.TypeA, []string{"example.test. 300 IN SOA ns.example.test. root.example.test. 1 2 3 4 200"}},
		"svc.example.test.":  {dns.TypeHTTPS, []string{"svc.example.test. 300 IN HTTPS 1 . alpn=h2 ipv4hint=93.184.216.34"}},
		"many.example.test.": {dns.TypeA, many(30)},
		"lies.example.test.": {dns.TypeA, []string{"lies.example.test. 300 IN A 93.184.216.34", "lies.example.test. 300 IN A 192.168.1.1"}},
		"local.test.":        {dns.TypeA, nil},
		"blocked.test.":      {dns.TypeAAAA, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane(t, zoneOf(t, c.records...))
				l.both(t, forms(t, name, c.qtype)[0])
				fresh := c.records != nil // an answer of our own is as old as it was sealed
				for _, wait := range []time.Duration{0, 7 * time.Second, 40 * time.Second} {
					time.Sleep(wait)
					if wait > 0 && !fresh {
						break
					}
					for _, msg := range forms(t, name, c.qtype) {
						for _, transport := range []string{"udp", "tcp", "tls", "https"} {
							sealed, resolved := l.over(t, transport, msg)
							if sealed == nil || !bytes.Equal(sealed, resolved) {
								t.Fatalf("asked over %s %x\nsealed   %x\nresolved %x", transport, msg, sealed, resolved)
							}
						}
					}
				}
			})
		})
	}
}

func TestOnlyWhatHoldsIsSealed(t *testing.T) {
	address := []string{"www.example.test. 300 IN A 93.184.216.34"}
	for why, c := range map[string]struct {
		name    string
		records []string
		rd      bool
		marks   error
		down    bool
	}{
		"not marked":              {"www.example.test.", address, true, errors.New("the set is full"), false},
		"nobody answers":          {"www.example.test.", address, true, nil, true},
		"TTL 0":                   {"www.example.test.", []string{"www.example.test. 0 IN A 93.184.216.34"}, true, nil, false},
		"TTL 1, of which 0.9 s":   {"www.example.test.", []string{"www.example.test. 1 IN A 93.184.216.34"}, true, nil, false},
		"refused by a rule":       {"refused.test.", nil, true, nil, false},
		"recursion not asked for": {"www.example.test.", address, false, nil, false},
	} {
		l := newLane(t, func(ctx context.Context, side string, q upstream.Query) (upstream.Reply, error) {
			if c.down {
				return upstream.Reply{}, errors.New("unreachable")
			}
			return zoneOf(t, c.records...)(ctx, side, q)
		})
		l.marker.Fail(c.marks)
		m := new(dns.Msg)
		m.SetQuestion(c.name, dns.TypeA)
		m.RecursionDesired = c.rd
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		l.both(t, b)
		if n := l.sealed.Stats().Entries; n != 0 {
			t.Errorf("%s: sealed %d answers", why, n)
		}
	}
}

// A reload, and everything else that advances the generation, sends each name
// through Resolve once; so does the last tenth of a life, where an answer may be
// fetched ahead.
func TestSealEndsWithItsGenerationAndBeforeItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, zoneOf(t, "www.example.test. 300 IN A 93.184.216.34"))
		msg := forms(t, "www.example.test.", dns.TypeA)[0]
		gone := func(what string, f func()) {
			t.Helper()
			if sealed, _ := l.both(t, msg); sealed == nil {
				t.Fatalf("before %s: not sealed", what)
			}
			f()
			l.marker.Take()
			if sealed, _ := l.both(t, msg); sealed != nil {
				t.Errorf("%s: still sealed", what)
			}
			if n := len(l.marker.Take()); n != 1 {
				t.Errorf("%s: %d addresses marked again, want 1", what, n)
			}
		}
		l.both(t, msg)
		gone("a reload", func() { l.Swap(l.policy) })
		gone("an event", l.sealed.Generation().Advance)
		gone("a flush", l.Flush)
		time.Sleep(269 * time.Second)
		gone("nine tenths of its life", func() { time.Sleep(2 * time.Second) })
	})
}

// What a side's servers said to one proxy, or over one path, is not what they
// say to another.
func TestAnswersAreOfTheWayTheyCame(t *testing.T) {
	asked := 0
	zone := zoneOf(t, "www.example.test. 300 IN A 93.184.216.34")
	l := newLane(t, func(ctx context.Context, side string, q upstream.Query) (upstream.Reply, error) {
		asked++
		return zone(ctx, side, q)
	})
	msg := forms(t, "www.example.test.", dns.TypeA)[0]
	for _, c := range []struct {
		proxy string
		want  int // questions so far
	}{{"", 1}, {"", 1}, {"al@10.0.0.1:1080", 2}, {"al@10.0.0.1:1080", 2}, {"bo@10.0.0.1:1080", 3}, {"", 3}} {
		p := *l.policy
		side := p.Sides[resolver.Foreign]
		side.Proxy = c.proxy
		p.Sides = map[string]resolver.Side{resolver.Foreign: side}
		l.Swap(&p)
		if l.both(t, msg); asked != c.want {
			t.Errorf("through %q: the server was asked %d times, want %d", c.proxy, asked, c.want)
		}
	}
}

// FuzzSealedAnswer gives a reply of an upstream to both lanes.
func FuzzSealedAnswer(f *testing.F) {
	for _, records := range [][]string{
		{"www.example.test. 300 IN CNAME cdn.example.test.", "cdn.example.test. 60 IN A 93.184.216.34"},
		{"example.test. 300 IN SOA ns.example.test. root.example.test. 1 2 3 4 200"},
		{"www.example.test. 300 IN HTTPS 1 . alpn=h2 ipv4hint=93.184.216.34"},
		{"www.example.test. 300 IN TXT \"some text\"", "www.example.test. 300 IN MX 1 mail.example.test."}, many(40),
	} {
		q := forms(f, "www.example.test.", dns.TypeA)[0]
		reply, err := zoneOf(f, records...)(f.Context(), "", upstream.Query{Msg: q})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(reply.Msg, uint8(3))
	}
	f.Fuzz(func(t *testing.T, reply []byte, after uint8) {
		question := wire.Question(reply)
		if question == nil || wire.CheckReply(reply) != nil {
			return
		}
		query := append([]byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
		if _, action, _ := wire.ParseQuery(query); action != wire.Accept {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			l := newLane(t, func(context.Context, string, upstream.Query) (upstream.Reply, error) {
				return upstream.Reply{Msg: bytes.Clone(reply)}, nil
			})
			l.both(t, query)
			time.Sleep(time.Duration(after) * time.Second)
			withOPT := append(bytes.Clone(query), 0, 0, 41, 3, 0, 0, 0, 0, 0, 0, 0)
			withOPT[11] = 1
			for _, transport := range []string{"udp", "tcp"} {
				l.compare(t, transport, query, withOPT)
			}
		})
	})
}

// compare asks over a transport, and fails where the lanes say different things.
func (l lane) compare(t *testing.T, transport string, queries ...[]byte) {
	t.Helper()
	for _, msg := range queries {
		sealed, resolved := l.over(t, transport, msg)
		if sealed == nil {
			return
		}
		// Resolve makes answers of our own anew, and renews marks that had
		// limited a TTL: only then are its TTLs longer.
		for at := range slices.Chunk(wire.TTLOffsets(nil, sealed), 2) {
			off := binary.BigEndian.Uint16(at)
			if len(resolved) == len(sealed) && binary.BigEndian.Uint32(sealed[off:]) > binary.BigEndian.Uint32(resolved[off:]) {
				t.Fatalf("asked over %s %x\nsealed   %x\nresolved %x: a shorter TTL", transport, msg, sealed, resolved)
			}
		}
		wire.AgeTTLs(sealed, 1<<31)
		wire.AgeTTLs(resolved, 1<<31)
		if !bytes.Equal(sealed, resolved) {
			t.Fatalf("asked over %s %x\nsealed   %x\nresolved %x", transport, msg, sealed, resolved)
		}
	}
}
