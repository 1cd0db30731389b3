package daemon

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/geo/list"
	"smartdns/nft"
	"smartdns/resolver/policy"
	"smartdns/routing"
	"smartdns/routing/wg"
	"smartdns/web/api"
)

// Parts is a Config compiled: a value per package, none of them running.
type Parts struct {
	Config    *configs.Config
	Tunnels   []Tunnel // in the order of the file
	Geo       *geo.Table
	Names     *policy.Names
	Pins      pins
	Addresses *policy.Addresses
	Forged    *addrSet // answers that only injectors give
	Bogus     *addrSet // answers that mean NXDOMAIN
	Sets      Sets
	Records   recordSet
	Exclude   *addrSet   // [dns64] exclude
	Lists     []api.List // those in use
	Gateway   gatewayParts

	Certificate *tls.Certificate // of [listen] cert and key; nil without
}

// Tunnel is a [tunnel.X] table and the wg-quick file that it names.
type Tunnel struct {
	configs.Tunnel
	WG *wg.Config
}

// Sets is what the policy means to our nft table.
type Sets struct {
	Home   []netip.Prefix // nil without a tunnel: nothing is in the kernel then
	Lists  []nft.List
	Decide nft.Decide
}

// Compile reads the files that c names, and turns all of it into the parts. It
// changes nothing, keeps nothing open and knows nothing of this host. Its error
// joins whatever is wrong, each with its place.
//
// Lists that are fetched count as not there yet.
func Compile(c *configs.Config) (*Parts, error) { return compile(c, nil) }

func compile(c *configs.Config, stored copies) (*Parts, error) {
	p := &Parts{Config: c}
	var errs []error
	collect := func(err error) { errs = append(errs, err) }

	for _, t := range p.ours() {
		file, err := wg.ParseFile(readable(t.Config))
		if err != nil {
			collect(fmt.Errorf("%s: [tunnel.%s] %w", t.Pos, t.Path, err))
			continue
		}
		p.Tunnels = append(p.Tunnels, Tunnel{t, file})
	}
	l := newLists(c, stored, newLineGuard(c, p.Tunnels))
	var err, geoErr error
	var home []netip.Prefix
	var beside sync.WaitGroup
	beside.Go(func() { // the names take the longest
		if p.Geo, geoErr = l.table(); geoErr == nil && len(p.ours()) > 0 && c.Routing.Mode != configs.ModeAll {
			home = slices.Concat(p.Geo.Home())
		}
	})
	p.Names, p.Pins, err = compileNames(c, l)
	collect(err)
	beside.Wait()
	collect(geoErr)
	p.Addresses, p.Sets, err = compileAddresses(c, l)
	p.Sets.Home = home
	collect(err)
	p.Bogus, err = compileBogus(c, l)
	collect(err)
	p.Gateway, err = compileGateway(c, l)
	collect(err)
	p.Forged, err = compileForged()
	collect(err)
	_, _, err = p.views(1)
	collect(err)
	p.Certificate, err = loadCertificate(c)
	collect(err)
	p.Records, err = compileRecords(c.Records)
	collect(err)
	p.Exclude = compileExclude(c.DNS64)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	p.Lists = l.report()
	return p, nil
}

// ours returns the tunnels of the file that are for us to make.
func (p *Parts) ours() []configs.Tunnel {
	if p.Config.Routing.Mode == configs.ModeOff {
		return nil
	}
	return p.Config.Tunnels
}

func compileNames(c *configs.Config, l *lists) (*policy.Names, pins, error) {
	var rules []policy.NameRule
	var failed error
	for _, r := range c.Decide.Names {
		rule := policy.NameRule{Rule: policy.Rule{Index: r.Index, Text: r.Text, Pos: r.Pos.String(), Via: r.Via, Shape: shapeOf(r)}, Clients: clientsOf(r)}
		switch {
		case r.Answer.Kind != configs.AnswerNone:
			rule.Rule.Action = policy.Local
			rule.Rule.Answer = policy.Answer{Kind: policy.AnswerKind(r.Answer.Kind), Addrs: r.Answer.Addrs, Target: r.Answer.Target}
		case r.Ask == configs.AskAuto:
			rule.Rule.Action = policy.AskAuto
		default:
			rule.Rule.Action, rule.Rule.Side = policy.AskSide, r.Ask
		}
		for _, m := range r.Match {
			switch m.Kind {
			case configs.MatchList:
				rule.Lists = append(rule.Lists, policy.List{Name: m.Text, Size: l.size(m.Text), Entries: l.names(m.Text, &failed)})
			case configs.MatchSuffix:
				rule.Entries = append(rule.Entries, policy.Entry{Kind: policy.Suffix, Name: m.Name})
			case configs.MatchFull:
				rule.Entries = append(rule.Entries, policy.Entry{Kind: policy.Full, Name: m.Name})
			case configs.MatchKeyword:
				rule.Entries = append(rule.Entries, policy.Entry{Kind: policy.Keyword, Text: m.Text})
			case configs.MatchRegexp:
				rule.Entries = append(rule.Entries, policy.Entry{Kind: policy.Regexp, Text: m.Regexp.String(), Regexp: m.Regexp})
			case configs.MatchReverse:
				for _, zone := range policy.ReverseZones(m.Prefix) {
					rule.Entries = append(rule.Entries, policy.Entry{Kind: policy.Suffix, Name: zone})
				}
			case configs.MatchAll:
				rule.Entries = append(rule.Entries, policy.Entry{Kind: policy.All})
			}
		}
		rules = append(rules, rule)
	}
	rules, pinned := watching(rules)
	names, err := policy.NewNames(rules)
	return names, pinned(), errors.Join(failed, err)
}

// shapeOf returns what a line of names does to answers.
func shapeOf(r configs.NameRule) policy.Shape {
	var s policy.Shape
	if r.AAAA != configs.AAAAAuto {
		s.AAAA = policy.AAAAShape(r.AAAA)
	}
	if r.HTTPS != configs.HTTPSAuto {
		s.HTTPS = policy.HTTPSShape(r.HTTPS)
	}
	return s
}

func compileExclude(c configs.DNS64) *addrSet {
	var all []policy.PrefixEntry
	for _, p := range c.Exclude {
		all = append(all, policy.PrefixEntry{Prefix: p})
	}
	return newAddrSet(all)
}

// compileAddresses makes the two readings of [decide].addresses that must
// agree: the resolver's, and the static sets and rules of the kernel.
func compileAddresses(c *configs.Config, l *lists) (*policy.Addresses, Sets, error) {
	var specs []policy.AddressSpec
	sets := Sets{Decide: nft.Decide{Default: routing.Direct}}
	var errs []error
	for _, r := range c.Decide.Addresses {
		s := policy.AddressSpec{Rule: policy.AddressRule{Index: r.Index, Text: r.Text, Pos: r.Pos.String(), Via: r.Via}}
		add := func(m nft.Match) {
			sets.Decide.Rules = append(sets.Decide.Rules, nft.AddressRule{Match: m, Via: r.Via, Text: fmt.Sprintf("addresses[%d]", r.Index)})
		}
		for _, m := range r.Match {
			switch m.Kind {
			case configs.AddrPrivate:
				s.Private = true
				add(nft.Match{Kind: nft.MatchPrivate})
			case configs.AddrHome:
				if c.Routing.Mode == configs.ModeAll {
					break // home goes with the rest
				}
				s.Home = true
				add(nft.Match{Kind: nft.MatchHome})
			case configs.AddrPrefix:
				s.Prefixes = append(s.Prefixes, policy.PrefixEntry{Prefix: m.Prefix})
				add(nft.Match{Kind: nft.MatchPrefix, Prefix: m.Prefix})
			case configs.AddrList:
				entries, err := l.prefixes(m.List)
				errs = append(errs, err)
				s.Prefixes = append(s.Prefixes, entries...)
				sets.addList(m.List, entries)
				add(nft.Match{Kind: nft.MatchList, List: m.List})
			case configs.AddrAll:
				s.All = true
				sets.Decide.Default = r.Via
			}
		}
		specs = append(specs, s)
	}
	addresses, err := policy.NewAddresses(specs)
	return addresses, sets, errors.Join(append(errs, err)...)
}

func (s *Sets) addList(name string, entries []policy.PrefixEntry) {
	if slices.ContainsFunc(s.Lists, func(l nft.List) bool { return l.Name == name }) {
		return
	}
	var prefixes []netip.Prefix
	for _, e := range entries {
		prefixes = append(prefixes, e.Prefix)
	}
	s.Lists = append(s.Lists, nft.List{Name: name, Prefixes: prefixes})
}

func compileBogus(c *configs.Config, l *lists) (*addrSet, error) {
	var all []policy.PrefixEntry
	var errs []error
	for _, name := range c.Poison.Bogus {
		entries, err := l.prefixes(name)
		errs = append(errs, err)
		all = append(all, entries...)
	}
	return newAddrSet(all), errors.Join(errs...)
}

func compileForged() (*addrSet, error) {
	var all []policy.PrefixEntry
	for line, err := range list.Prefixes(geo.OpenForged()) {
		if err != nil {
			return nil, fmt.Errorf("reading the embedded forged answers: %w", err)
		}
		if line.Kind == list.Prefix {
			all = append(all, policy.PrefixEntry{Prefix: line.Prefix, Line: line.Number})
		}
	}
	return newAddrSet(all), nil
}
