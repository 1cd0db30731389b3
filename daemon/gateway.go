package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/geo/list"
	"smartdns/nft"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/routing"
	"smartdns/web/api"
)

// gatewayParts is what is done for the clients of a LAN, and to them.
type gatewayParts struct {
	bypass *policy.Bypass // without Outside; nil: nothing is done
	doh    []netip.Prefix // public servers of DNS over HTTPS, where these are rejected
}

// signals are the names by which programs ask whether they may ask others:
// Firefox's canary, and those of iCloud Private Relay, which Apple asks networks
// to answer with NXDOMAIN or nothing.
func signals() []dnsname.FQDN {
	return []dnsname.FQDN{"use-application-dns.net.", "mask.icloud.com.", "mask-h2.icloud.com."}
}

func compileGateway(c *configs.Config, l *lists) (gatewayParts, error) {
	b := c.Listen.Bypass
	if b.Mode == configs.BypassAllow {
		return gatewayParts{}, nil
	}
	rule := policy.NameRule{Rule: policy.Rule{
		Index: policy.BypassIndex, Text: fmt.Sprintf("bypass = %q", b.Mode), Pos: b.Pos.String(),
		Action: policy.Local, Answer: policy.Answer{Kind: policy.AnswerNXDomain},
	}}
	canaries := rule
	for _, n := range signals() {
		canaries.Entries = append(canaries.Entries, policy.Entry{Kind: policy.Suffix, Name: n})
	}
	names, err := policy.NewNames([]policy.NameRule{canaries})
	g := gatewayParts{bypass: &policy.Bypass{Signals: names}}
	if err != nil || b.Mode != configs.BypassReject {
		return g, err
	}
	var failed error
	for _, source := range b.DoH {
		if source == configs.DoHEmbedded {
			for s := range geo.DoH() {
				if s.Name == "" {
					g.doh = append(g.doh, s.Prefix)
				} else if n, err := dnsname.Parse(s.Name); err == nil {
					rule.Entries = append(rule.Entries, policy.Entry{Kind: policy.Suffix, Name: n, Line: s.Line})
				}
			}
			continue
		}
		kind, err := l.kind(source)
		switch {
		case err != nil:
			failed = errors.Join(failed, err)
		case kind == list.KindNames:
			rule.Lists = append(rule.Lists, policy.List{Name: source, Size: l.size(source), Entries: l.names(source, &failed)})
		case kind == list.KindPrefixes:
			entries, err := l.prefixes(source)
			failed = errors.Join(failed, err)
			for _, e := range entries {
				g.doh = append(g.doh, e.Prefix)
			}
		}
	}
	g.bypass.Servers, err = policy.NewNames([]policy.NameRule{rule})
	return g, errors.Join(failed, err)
}

// kind says what a list holds: "" while it has not been fetched.
func (l *lists) kind(name string) (list.Kind, error) {
	x := l.find(name)
	if l.path(x) == "" {
		return "", nil
	}
	src, err := l.open(x, list.MaxSize)
	if err != nil {
		return "", at(x, err)
	}
	defer src.close()
	if src.format == list.FormatMMDB {
		return "", at(x, errors.New("it is a MaxMind database, and doh_servers takes names or addresses"))
	}
	return src.format.Kind(), nil
}

// treatedApart returns the clients of each line that is not for everybody: the
// lines of names, those of clients, and where bypass treats this host apart,
// everybody else.
func treatedApart(c *configs.Config) []policy.Clients {
	all := limited(c)
	for _, r := range c.Decide.Clients {
		all = append(all, policy.Clients{Prefixes: r.Match.Prefixes, MACs: r.Match.MACs})
	}
	if c.Listen.Bypass.Mode == configs.BypassReject {
		all = append(all, policy.Clients{
			Prefixes: []netip.Prefix{routing.V4.All(), routing.V6.All()},
			Except:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		})
	}
	return all
}

// clientPaths returns the lines of clients as the resolver knows them.
func clientPaths(c *configs.Config) []policy.ClientPath {
	first := len(limited(c))
	var all []policy.ClientPath
	for i, r := range c.Decide.Clients {
		all = append(all, policy.ClientPath{
			Line: 1 << (first + i),
			Rule: policy.AddressRule{Index: r.Index, Text: r.Text, Pos: r.Pos.String(), Via: r.Via, Client: true},
		})
	}
	return all
}

// keptFromOthers is what the resolver does about clients that ask others.
func (p *Parts) keptFromOthers() *policy.Bypass {
	if p.Gateway.bypass == nil {
		return nil
	}
	b := *p.Gateway.bypass
	if b.Servers != nil {
		b.Outside = 1 << (len(treatedApart(p.Config)) - 1) // the last of them
	}
	return &b
}

// gateway is what our table does for the clients of the LAN. Encrypted DNS is
// rejected only while we answer in its place.
func (p *Parts) gateway(l live) nft.Gateway {
	c := p.Config
	var g nft.Gateway
	for _, r := range c.Decide.Clients {
		g.Clients = append(g.Clients, nft.ClientRule{Prefixes: r.Match.Prefixes, MACs: r.Match.MACs, Via: r.Via, Text: fmt.Sprintf("clients[%d]", r.Index)})
	}
	if c.Listen.Bypass.Mode == configs.BypassReject && redirectTo(c, l) != 0 {
		g.Bypass = nft.Bypass{Reject: true, DoH: p.Gateway.doh}
	}
	g.Masquerade4 = c.Routing.Masquerade != configs.MasqueradeOff
	g.Masquerade6 = c.Routing.Masquerade == configs.MasqueradeBoth
	if c.Routing.Flowtable && l.offloads {
		g.Offload = offloadable(p, l)
	}
	return g
}

// offloadable returns the interfaces between which direct flows pass: those of
// the LAN and the uplinks, as far as they are there.
func offloadable(p *Parts, l live) []string {
	var all []string
	for _, i := range l.facts.Links {
		_, tunnel := l.links[routing.Path(i.Name)]
		if !tunnel && !i.Loopback && (slices.Contains(p.Config.Listen.LAN, i.Name) || slices.Contains(l.facts.Uplinks(), i.Name)) {
			all = append(all, i.Name)
		}
	}
	return all
}

// canOffload reports whether the kernel has flowtables, and somebody asked for
// one. It asks the kernel once.
func (e *engine) canOffload() bool {
	if e.table == nil || !e.parts.Config.Routing.Flowtable {
		return false
	}
	if e.offloads == nil {
		can, err := e.table.CanOffload(e.ctx)
		e.note(e.ctx, "flowtable", err)
		if err != nil {
			return false
		}
		e.offloads = &can
	}
	return *e.offloads
}

// othersFlowtables returns the flowtables that are not of our table: ours
// carries only what it may.
func othersFlowtables(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(f string) bool { return strings.HasPrefix(f, "inet "+nft.TableName+" ") })
}

// offloadCondition says that the kernel lacks what was asked for.
func offloadCondition(v *view) (api.Condition, bool) {
	if v.table == nil || v.live.offloads || !v.parts.Config.Routing.Flowtable {
		return api.Condition{}, false
	}
	return noFlowtables(), true
}

func noFlowtables() api.Condition {
	return api.Condition{
		Severity: severityWarning, Fix: "load the kernel module nf_flow_table and restart, or write flowtable = false under [routing]",
		What: "this kernel has no flowtables, so direct flows pass our chains as others do",
	}
}
