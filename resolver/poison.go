package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"smartdns/geo"
	"smartdns/resolver/cache"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

// doubt is why an answer looks forged; the zero doubt is none.
type doubt struct {
	why   string
	never bool // it is not used even when there is no other
}

// opinionPatience is how long a second opinion is waited for when an answer
// that looks forged is there already.
const opinionPatience = 2500 * time.Millisecond

var errForged = errors.New("the answer looks forged, and there is no other")

// odd reports whether a reply of the domestic side is worth waiting for a
// better one: it looks forged, or is none that a true answer could not still
// replace.
func (l *lookup) odd(server string, reply []byte) bool {
	m, err := parse(reply, l.name, l.qtype, l.do)
	if err != nil || m.rcode != wire.NoError && m.rcode != wire.NXDomain || l.bogus(m) {
		return true
	}
	return l.suspicious(m, server, reply).why != ""
}

// suspicious reports what is odd about an answer of the domestic side. One
// whose chain leads out of that side is odd where anybody could have sent it:
// it is cut, but the chain itself moves the name into strange hands.
func (l *lookup) suspicious(m message, server string, reply []byte) doubt {
	addrs := m.addresses()
	for _, f := range addrs {
		switch {
		case isTeredo(f.addr):
			return doubt{fmt.Sprintf("%s is in 2001::/32", f.addr), true}
		case contains(l.pol.Poison.Forged, f.addr):
			return doubt{fmt.Sprintf("%s is known from forged answers", f.addr), true}
		}
	}
	if l.to.Spoofable && !wire.HasOPT(reply) && l.r.servers.sendsOPT(server) {
		return doubt{why: "it lacks the OPT that its server sends"}
	}
	_, cut := l.pol.crossing(m, l.name, l.qtype, 0)
	if _, open := m.open(l.qtype); cut || open {
		if l.to.Spoofable {
			return doubt{why: "it leads out of the domestic side"}
		}
		return doubt{}
	}
	if !l.to.Private && !l.pol.privateOK(l.name) {
		for _, f := range addrs {
			if kind, _ := geo.Special(f.addr); kind == geo.SpecialBogon {
				return doubt{why: fmt.Sprintf("%s is nobody's", f.addr)}
			}
		}
	}
	if out := l.pol.abroad(addrs); out.IsValid() {
		return doubt{why: fmt.Sprintf("%s is abroad", out)}
	}
	if kind, _ := m.life(l.qtype); l.to.Spoofable && kind == cache.Bare {
		return doubt{why: "it says there is nothing, without a SOA"}
	}
	return doubt{}
}

// abroad returns an address that makes an answer one from abroad, invalid when
// the answer counts as home. Special addresses are from nowhere.
func (p *Policy) abroad(addrs []found) netip.Addr {
	if region, _ := p.region(addrs); region == geo.Home {
		return netip.Addr{}
	}
	for _, f := range addrs {
		if kind, _ := geo.Special(f.addr); kind == geo.NotSpecial && p.Geo.Classify(f.addr).Region != geo.Home {
			return f.addr
		}
	}
	return netip.Addr{}
}

// region returns what the addresses of an answer are taken together: Home or
// Abroad by the rule for mixed ones, with the address that decided it; Unknown
// when there is none.
func (p *Policy) region(addrs []found) (geo.Region, netip.Addr) {
	if len(addrs) == 0 {
		return geo.Unknown, netip.Addr{}
	}
	decides := geo.Abroad // one such address is enough
	switch p.Auto.Mixed {
	case MixedFirst:
		addrs = addrs[:1]
	case MixedAny:
		decides = geo.Home
	}
	for _, f := range addrs {
		if isHome := p.Geo.Classify(f.addr).Region == geo.Home; isHome == (decides == geo.Home) {
			return decides, f.addr
		}
	}
	if decides == geo.Home {
		return geo.Abroad, addrs[0].addr
	}
	return geo.Home, addrs[0].addr
}

// allHome reports whether m has no address that is not at home.
func (p *Policy) allHome(m message) bool {
	for _, f := range m.addresses() {
		if p.Geo.Classify(f.addr).Region != geo.Home {
			return false
		}
	}
	return true
}

// bogus reports whether m holds an address that stands for "no such name".
func (l *lookup) bogus(m message) bool {
	if l.pol.Poison.Bogus != nil {
		for _, f := range m.addresses() {
			if contains(l.pol.Poison.Bogus, f.addr) {
				return true
			}
		}
	}
	return l.r.servers.hijacks.holds(l.side, m)
}

func contains(set AddrSet, a netip.Addr) bool { return set != nil && set.Contains(a) }

// isTeredo reports whether a is in 2001::/32, where no server is, but all
// forged AAAA records of the Great Firewall are.
func isTeredo(a netip.Addr) bool {
	b := a.As16()
	return a.Is6() && b[0] == 0x20 && b[1] == 0x01 && b[2] == 0 && b[3] == 0
}

// domestic asks the domestic side about t.name. As soon as a reply is odd the
// foreign side is asked too, while the exchange listens on for a better one; a
// suspicious answer is used only if that fails as well, and some never.
func (r *Resolver) domestic(ctx context.Context, t *task) outcome {
	a := r.ask(t, Domestic, t.q.Type, forAnswer)
	select {
	case <-a.done:
	case <-a.suspected:
	case <-ctx.Done():
	}
	var second *asking
	if a.doubted() && t.pol.Auto.Mode != ForeignOnly {
		second = r.ask(t, Foreign, t.q.Type, forOpinion)
	}
	out := t.take(ctx, a, 0)
	t.side = Domestic
	if out.err == nil && out.suspect.why == "" {
		t.leave(second)
		return out
	}
	if second != nil {
		if better := t.take(ctx, second, opinionPatience); better.err == nil {
			r.count.poison.replaced.Add(1)
			r.doubt(t, out)
			t.side = Foreign
			return better
		}
	}
	if out.kind == cache.Doubt.String() {
		// Whoever had a better answer has none now: the doubt is worth no more
		// than an answer that looks forged.
		again := r.settle(ctx, t, Domestic, forDoubt)
		if again.err == nil && again.suspect.why == "" {
			t.side = Domestic
			return again
		}
		out = again
	}
	if out.err != nil {
		return out
	}
	if out.suspect.never {
		out.err = fmt.Errorf("%w (%s)", errForged, out.suspect.why)
		return out
	}
	r.count.poison.used.Add(1)
	t.note("used an answer that looks forged: %s", out.suspect.why)
	return out
}

// doubt remembers that the domestic side's answer looks forged and that there
// is a better one, so that the next query need not wait for it again. Of the
// answer itself nothing is kept.
func (r *Resolver) doubt(t *task, bad outcome) {
	if bad.kind != "" || bad.suspect.why == "" {
		return
	}
	l := lookup{id: t.sideID(Domestic), name: t.name, qtype: t.q.Type, do: t.q.Flags.DO, cd: t.q.Flags.CD}
	l.identify()
	r.cache.Put(l.key, cache.Doubt, []byte(bad.suspect.why), cache.Doubt.MaxLife())
}

// servers remembers which servers of the domestic side answer with an OPT, and
// which of any side answer names that do not exist.
type servers struct {
	mu  sync.Mutex // guards the map
	opt map[string]bool

	hijacks hijacks
}

// maxServers bounds the map: there are no more servers than the config names,
// but it may be reloaded often.
const maxServers = 256

// saw notes a reply that nothing was odd about. A server that once sent an OPT
// always can.
func (s *servers) saw(reply upstream.Reply) {
	server := reply.Server()
	if server == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opt == nil || len(s.opt) >= maxServers {
		s.opt = map[string]bool{}
	}
	s.opt[server] = s.opt[server] || wire.HasOPT(reply.Msg)
}

// sendsOPT reports whether server is known to send an OPT.
func (s *servers) sendsOPT(server string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opt[server]
}
