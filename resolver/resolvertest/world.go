package resolvertest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// world is what a conversation sets up: settings, and a resolver with fakes.
type world struct {
	names   []policy.NameRule
	lists   map[string][]policy.Entry
	policy  resolver.Policy
	noV6    map[routing.Path]bool
	never   map[netip.Addr]string
	agrees  map[routing.Path]bool
	judges  bool
	private map[string]bool // sides whose answers may be private
	records []line          // "record" and "hosts"
	changed bool            // since the last Swap

	marker   *Marker
	resolver *resolver.Resolver
	desk     desk
}

// desk is where questions to upstreams meet the replies that the conversation
// has for them.
type desk struct {
	mu       sync.Mutex // guards the rest
	expected []*expected
	problems []string
}

// expected is a question that should go out, and what comes back.
type expected struct {
	line    int
	ask     string // "side name type"
	replies []scripted
	asked   bool
}

func newWorld() *world {
	w := &world{
		lists: map[string][]policy.Entry{}, private: map[string]bool{}, marker: &Marker{}, changed: true, judges: true,
		noV6: map[routing.Path]bool{}, never: map[netip.Addr]string{}, agrees: map[routing.Path]bool{},
	}
	w.policy = resolver.Policy{
		Auto:   resolver.Auto{Mode: resolver.ForeignFirst, Mixed: resolver.MixedAll, Home: netip.MustParsePrefix("114.240.0.0/24")},
		Poison: resolver.Poison{Hold: 400 * time.Millisecond},
		Geo:    Geo{netip.MustParsePrefix("39.156.0.0/16"), netip.MustParsePrefix("2409:8c00::/24")},
	}
	w.policy.Addresses, _ = policy.NewAddresses([]policy.AddressSpec{
		{Rule: policy.AddressRule{Index: 0, Text: "private, home", Via: routing.Direct}, Private: true, Home: true},
		{Rule: policy.AddressRule{Index: 1, Text: "*", Via: "wg0"}, All: true},
	})
	return w
}

// start makes the resolver, or gives it the policy of now.
func (w *world) start() error {
	if !w.changed {
		return nil
	}
	w.changed = false
	p := w.policy
	rules := slices.Clone(w.names)
	for i := range rules {
		rules[i].Rule.Index = i
		for j, l := range rules[i].Lists {
			rules[i].Lists[j].Entries = slices.Values(w.lists[l.Name])
		}
	}
	var err error
	if p.Names, err = policy.NewNames(rules); err != nil {
		return err
	}
	p.Sides = map[string]resolver.Side{
		resolver.Domestic: {Exchanger: w.exchanger(resolver.Domestic), Path: routing.Direct, Spoofable: true},
		resolver.Foreign:  {Exchanger: w.exchanger(resolver.Foreign), Path: "wg0", Trusted: true},
		"office":          {Exchanger: w.exchanger("office"), Path: routing.Direct},
	}
	for name := range w.private {
		side := p.Sides[name]
		side.Private = true
		p.Sides[name] = side
	}
	if p.Local.Records, err = readRecords(w.records); err != nil {
		return err
	}
	if w.judges {
		p.Auto.Judge = w.exchanger("judge")
	}
	if w.resolver != nil {
		w.resolver.Swap(&p)
		return nil
	}
	w.resolver = resolver.New(resolver.Config{
		Policy: &p, Cache: cache.New(0), Learned: resolver.NewLearned(1 << 20),
		Paths: resolver.Paths{
			Marker:       w.marker,
			Never:        func(a netip.Addr) string { return w.never[a] },
			StaticAgrees: func(_ netip.Addr, p routing.Path) bool { return w.agrees[p] },
			CanV6:        func(p routing.Path) bool { return !w.noV6[p] },
		},
	})
	return nil
}

// exchanger answers from the desk as upstream.Exchanger promises: it shows
// every reply to Suspect and listens on after a suspicious one.
func (w *world) exchanger(side string) *Exchanger {
	return &Exchanger{Name: side, OnExchange: func(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
		begun := time.Now()
		msg, err := w.desk.exchange(ctx, side, q)
		msg.Tries = []upstream.Try{{Server: side, Proto: "udp", Took: time.Since(begun), Err: err}}
		return msg, err
	}}
}

func (d *desk) exchange(ctx context.Context, side string, q upstream.Query) (upstream.Reply, error) {
	m := new(dns.Msg)
	if err := m.Unpack(q.Msg); err != nil {
		return upstream.Reply{}, err
	}
	ask := fmt.Sprintf("%s %s %s", side, strings.TrimSuffix(m.Question[0].Name, "."), dns.TypeToString[m.Question[0].Qtype])
	e := d.meet(ask)
	if e == nil {
		return upstream.Reply{}, errors.New("nobody asked for this question")
	}
	begun := time.Now()
	var first *upstream.Reply
	held := ctx
	for _, s := range e.replies {
		if s.silent {
			break
		}
		if !wait(held, s.after-time.Since(begun)) {
			break
		}
		if s.err != "" {
			return upstream.Reply{}, errors.New(s.err)
		}
		packed, err := s.pack(q.Msg)
		if err != nil {
			return upstream.Reply{}, err
		}
		if q.Suspect == nil || !q.Suspect(side, packed) {
			return upstream.Reply{Msg: packed}, nil
		}
		if first == nil {
			first = &upstream.Reply{Msg: packed, Suspicious: true}
			var cancel context.CancelFunc
			held, cancel = context.WithTimeout(ctx, q.Hold)
			defer cancel()
		}
	}
	<-held.Done()
	if first != nil {
		return *first, nil
	}
	return upstream.Reply{}, held.Err()
}

// wait reports whether d passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// meet returns what the conversation has for a question, nil when it has
// nothing.
func (d *desk) meet(ask string) *expected {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.expected {
		if e.ask == ask && !e.asked {
			e.asked = true
			return e
		}
	}
	d.problems = append(d.problems, "went out unasked for: "+ask)
	return nil
}

// set applies a line that changes the world; ok is false when it is none.
func (w *world) set(l line) (ok bool, err error) {
	w.changed = true
	switch l.verb {
	case "auto":
		w.policy.Auto.Mode = resolver.Mode(l.at(0))
	case "mixed":
		w.policy.Auto.Mixed = resolver.Mixed(l.at(0))
	case "judge":
		w.judges = l.at(0) != "none"
	case "list":
		return true, w.addList(l)
	case "names":
		return true, w.addRule(l)
	case "forget-names":
		w.names = nil
	case "private_ok":
		n, err := dnsname.Parse(l.at(0))
		w.policy.PrivateOK = append(w.policy.PrivateOK, n)
		return true, err
	case "private":
		w.private[l.at(0)] = true
	case "record", "hosts":
		w.records = append(w.records, l)
	case "forget-records":
		w.records = nil
	case "dns64":
		return true, w.setDNS64(l)
	case "forged", "bogus", "never", "home":
		return true, w.addAddrs(l)
	case "v6":
		w.noV6[routing.Path(l.at(0))] = l.at(1) == "no"
	case "marker":
		w.marker.Fail(nil)
		if l.at(0) == "fails" {
			w.marker.Fail(errors.New(l.rest(1)))
		}
	case "static":
		w.agrees[routing.Path(l.at(0))] = true
	case "on_error":
		w.policy.AnswerUnmarked = l.at(0) == "answer"
	case "prefetch":
		w.policy.Keep.Prefetch = l.at(0) == "yes"
	case "stale", "min_ttl", "max_ttl":
		d, err := time.ParseDuration(l.at(0))
		*map[string]*time.Duration{"stale": &w.policy.Keep.Stale, "min_ttl": &w.policy.Keep.MinTTL, "max_ttl": &w.policy.Keep.MaxTTL}[l.verb] = d
		return true, err
	default:
		return false, nil
	}
	return true, nil
}

func (w *world) addAddrs(l line) error {
	if l.verb == "home" {
		p, err := netip.ParsePrefix(l.at(0))
		w.policy.Geo = append(slices.Clone(w.policy.Geo.(Geo)), p)
		return err
	}
	a, err := netip.ParseAddr(l.at(0))
	switch l.verb {
	case "forged":
		set, _ := w.policy.Poison.Forged.(Addrs)
		w.policy.Poison.Forged = append(set, a)
	case "bogus":
		set, _ := w.policy.Poison.Bogus.(Addrs)
		w.policy.Poison.Bogus = append(set, a)
	case "never":
		w.never[a] = l.rest(1)
	}
	return err
}

// readRecords compiles lines "record RR" and "hosts ADDR NAME...".
func readRecords(lines []line) (*policy.Records, error) {
	r := new(policy.Records)
	for _, l := range lines {
		var err error
		if l.verb == "record" {
			err = r.AddZone(strings.NewReader(l.rest(0)+"\n"), "test.rpl", l.number)
		} else if passed, e := r.AddHosts(strings.NewReader(strings.Repeat("\n", l.number-1)+l.rest(0)), "hosts"); e == nil {
			err = passed.First
		}
		if err != nil {
			return nil, err
		}
	}
	r.Close()
	return r, nil
}

// setDNS64 reads "dns64 PREFIX [path] [exclude ADDR...]".
func (w *world) setDNS64(l line) error {
	prefix, err := netip.ParsePrefix(l.at(0))
	if err != nil {
		return err
	}
	d := resolver.DNS64{Prefix: prefix, OnPath: l.at(1) == "path"}
	var exclude Addrs
	for _, word := range l.words[1:] {
		if a, err := netip.ParseAddr(word); err == nil {
			exclude = append(exclude, a)
		}
	}
	d.Exclude = exclude
	w.policy.Local.DNS64 = d
	return nil
}

// addList reads "list NAME DOMAIN DOMAIN ...".
func (w *world) addList(l line) error {
	for i, text := range l.words[1:] {
		n, err := dnsname.Parse(text)
		if err != nil {
			return err
		}
		w.lists[l.at(0)] = append(w.lists[l.at(0)], policy.Entry{Kind: policy.Suffix, Name: n, Line: i + 1})
	}
	return nil
}

// addRule reads "names MATCH ask SIDE [via PATH] [aaaa SHAPE] [https SHAPE]"
// and "names MATCH answer KIND|ADDR...|cname TARGET".
func (w *world) addRule(l line) error {
	r := policy.NameRule{Rule: policy.Rule{Text: l.at(0), Pos: "test.rpl:" + strconv.Itoa(l.number)}}
	kind, text, prefixed := strings.Cut(l.at(0), ":")
	switch {
	case l.at(0) == "*":
		r.Entries = []policy.Entry{{Kind: policy.All}}
	case kind == "list":
		r.Lists = []policy.List{{Name: text}}
	case kind == "reverse":
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		for _, zone := range policy.ReverseZones(prefix) {
			r.Entries = append(r.Entries, policy.Entry{Kind: policy.Suffix, Name: zone})
		}
	case kind == "keyword":
		r.Entries = []policy.Entry{{Kind: policy.Keyword, Text: text}}
	default:
		e := policy.Entry{Kind: policy.Suffix}
		if prefixed && kind == "full" {
			e.Kind = policy.Full
		} else {
			text = l.at(0)
		}
		var err error
		if e.Name, err = dnsname.Parse(text); err != nil {
			return err
		}
		r.Entries = []policy.Entry{e}
	}
	switch {
	case l.at(1) == "ask":
		if r.Rule.Side = l.at(2); r.Rule.Side == "auto" {
			r.Rule.Action, r.Rule.Side = policy.AskAuto, ""
		}
		for i := 3; i+1 < len(l.words); i += 2 {
			switch value := l.at(i + 1); l.at(i) {
			case "via":
				r.Rule.Via = routing.Path(value)
			case "aaaa":
				r.Rule.Shape.AAAA = policy.AAAAShape(value)
			case "https":
				r.Rule.Shape.HTTPS = policy.HTTPSShape(value)
			default:
				return fmt.Errorf("unknown word %s", l.at(i))
			}
		}
	case l.at(1) == "answer":
		r.Rule.Action = policy.Local
		answer, err := parseAnswer(l.words[2:])
		if err != nil {
			return err
		}
		r.Rule.Answer = answer
	default:
		return fmt.Errorf("want: names MATCH ask SIDE, or names MATCH answer WHAT")
	}
	w.names = append(w.names, r)
	return nil
}

func parseAnswer(words []string) (policy.Answer, error) {
	if len(words) == 2 && words[0] == "cname" {
		target, err := dnsname.Parse(words[1])
		return policy.Answer{Kind: policy.AnswerCNAME, Target: target}, err
	}
	a := policy.Answer{Kind: policy.AnswerAddress}
	for _, word := range words {
		addr, err := netip.ParseAddr(word)
		if err != nil {
			return policy.Answer{Kind: policy.AnswerKind(word)}, nil
		}
		a.Addrs = append(a.Addrs, addr)
	}
	return a, nil
}
