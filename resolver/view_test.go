package resolver_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/resolvertest"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
	"smartdns/routing"
)

// Clients and listeners that are treated apart get their own answers, and never
// one that was sealed for others.
func TestViewsGetTheirOwnAnswers(t *testing.T) {
	says := func(name, addr string) *resolvertest.Exchanger {
		return serverOf(name, func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
			m := new(dns.Msg)
			if err := m.Unpack(q.Msg); err != nil {
				return upstream.Reply{}, err
			}
			return replied(q, 0, m.Question[0].Name+" 600 IN A "+addr)
		})
	}
	p := autoPolicy(resolver.ForeignOnly, says("domestic", "39.156.1.1"), says("foreign", "93.184.216.34"))
	kid := policy.Clients{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.8.20/32")}}
	tablet := policy.Clients{MACs: []routing.MAC{{2, 1}}}
	games := []policy.Entry{{Kind: policy.Suffix, Name: "games.example."}}
	p.Names = must(policy.NewNames([]policy.NameRule{
		{Rule: policy.Rule{Index: 0, Text: "games", Action: policy.Local, Answer: policy.Answer{Kind: policy.AnswerBlock}}, Entries: games, Clients: kid},
		{Rule: policy.Rule{Index: 1, Text: "games", Action: policy.AskSide, Side: "domestic"}, Entries: games, Clients: tablet},
		{Rule: policy.Rule{Index: 2, Text: "blocked", Action: policy.Local, Answer: policy.Answer{Kind: policy.AnswerBlock}}, Entries: []policy.Entry{{Kind: policy.Suffix, Name: "ads.example."}}},
		{Rule: policy.Rule{Index: 3, Text: "*", Action: policy.AskSide, Side: "foreign"}, Entries: []policy.Entry{{Kind: policy.All}}},
	}))
	home := netip.MustParseAddrPort("192.168.9.1:53")
	views, _, err := policy.NewViews([]policy.Clients{kid, tablet}, map[netip.AddrPort]string{home: "domestic"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	p.Views = views
	sealed := cache.NewSealed(1<<20, &cache.Generation{})
	r := resolver.New(resolver.Config{
		Policy: p, Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20), Sealed: sealed, Paths: resolver.Paths{Marker: &resolvertest.Marker{}},
	})
	type asker struct {
		at   netip.AddrPort
		addr string
		mac  routing.MAC
	}
	anybody := asker{addr: "192.168.8.30"}
	for range 2 { // asked, then sealed
		for _, tt := range []struct {
			from       asker
			name, want string
		}{
			{anybody, "www.games.example.", "93.184.216.34"},
			{asker{addr: "192.168.8.20"}, "www.games.example.", "NXDOMAIN"},
			{asker{addr: "192.168.8.20"}, "www.news.example.", "93.184.216.34"},
			{asker{addr: "192.168.8.31", mac: routing.MAC{2, 1}}, "www.games.example.", "39.156.1.1"},
			{asker{addr: "192.168.8.31"}, "www.games.example.", "93.184.216.34"},
			{asker{addr: "192.168.8.30", at: home}, "www.games.example.", "39.156.1.1"},
			{asker{addr: "192.168.8.30", at: home}, "www.news.example.", "39.156.1.1"},
			{asker{addr: "192.168.8.30", at: home}, "www.ads.example.", "NXDOMAIN"},
		} {
			c := policy.Client{Listener: tt.from.at, Addr: netip.MustParseAddr(tt.from.addr), MAC: tt.from.mac}
			q := resolver.Ask(dnsname.FQDN(tt.name), dns.TypeA, c.Addr)
			q.From = c
			packed, _ := new(dns.Msg).SetQuestion(tt.name, dns.TypeA).Pack()
			asked, _, _ := wire.ParseQuery(packed)
			if b, ok := sealed.Answer(nil, asked, cache.View(views.Of(c).ID), asked.Limit(), sealed.Now()); ok {
				var m dns.Msg
				if err := m.Unpack(b); err != nil || !strings.Contains(m.String(), tt.want) {
					t.Errorf("the fast lane gives %+v for %s %v, %v; want %s", tt.from, tt.name, &m, err, tt.want)
				}
			}
			d := r.Resolve(t.Context(), q)
			var m dns.Msg
			if err := m.Unpack(d.Reply(nil, q)); err != nil || !strings.Contains(m.String(), tt.want) {
				t.Errorf("%+v got for %s %v, %v; want %s", tt.from, tt.name, &m, err, tt.want)
			}
		}
	}
	if n := sealed.Stats(); n.Entries == 0 {
		t.Errorf("nothing was sealed: %+v", n)
	}
}

// What a rule takes from one side alone is answered as that side says it, abroad
// or not, by however many CNAMEs; only an answer of the file's own comes first.
func TestANameThatOneSideAnswersAlone(t *testing.T) {
	home := serverOf("domestic", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
		m := new(dns.Msg)
		if err := m.Unpack(q.Msg); err != nil {
			return upstream.Reply{}, err
		}
		return replied(q, 0, m.Question[0].Name+" 600 IN CNAME elsewhere.example.", "elsewhere.example. 600 IN A 93.184.216.34")
	})
	foreign := serverOf("foreign", func(context.Context, upstream.Query) (upstream.Reply, error) {
		t.Error("the foreign side was asked")
		return upstream.Reply{}, context.DeadlineExceeded
	})
	p := autoPolicy(resolver.ForeignFirst, home, foreign)
	all := []policy.Entry{{Kind: policy.All}}
	file := must(policy.NewNames([]policy.NameRule{
		{Rule: policy.Rule{Index: 0, Text: "blocked", Action: policy.Local, Answer: policy.Answer{Kind: policy.AnswerBlock}}, Entries: []policy.Entry{{Kind: policy.Suffix, Name: "blocked.time.example."}}},
		{Rule: policy.Rule{Index: 1, Text: "*", Action: policy.AskAuto}, Entries: all},
	}))
	first := must(policy.NewNames([]policy.NameRule{
		{Rule: policy.Rule{Index: -1, Text: "first", Action: policy.AskSide, Side: resolver.Domestic, Alone: true}, Entries: []policy.Entry{{Kind: policy.Suffix, Name: "time.example."}}},
	}))
	p.Names = file.After(first)
	r := resolver.New(resolver.Config{
		Policy: p, Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20), Sealed: cache.NewSealed(1<<20, &cache.Generation{}), Paths: resolver.Paths{Marker: &resolvertest.Marker{}},
	})
	for name, want := range map[string]string{"a.time.example.": "93.184.216.34", "a.blocked.time.example.": "NXDOMAIN"} {
		q := resolver.Ask(dnsname.FQDN(name), dns.TypeA, netip.MustParseAddr("192.168.8.20"))
		var m dns.Msg
		if err := m.Unpack(r.Resolve(t.Context(), q).Reply(nil, q)); err != nil || !strings.Contains(m.String(), want) {
			t.Errorf("%s: %v, %v; want %s", name, &m, err, want)
		}
	}
	if p.Names.After(nil).First() != nil {
		t.Error("there is still something before the file")
	}
}
