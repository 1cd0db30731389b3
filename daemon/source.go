package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"smartdns/resolver"
	"smartdns/resolver/dnsname"
	"smartdns/routing"
	"smartdns/web"
	"smartdns/web/api"
)

// source answers the API.
func (e *engine) source() web.Source {
	return web.Source{
		Status: func(ctx context.Context) (api.Status, error) { return e.status(ctx), nil },
		Query:  e.query,
		Route:  e.route,
		Marks:  e.listMarks,
		Forget: e.forget,

		Verdicts: e.verdictSource(),
		Cache:    e.cacheSource(),
		Lists:    e.listSource(),
		Portal:   e.setPortal,
		Reload: func(ctx context.Context) (api.Done, error) {
			if err := e.requestReload(ctx); err != nil {
				return api.Done{}, fmt.Errorf("the configuration stays as it was:\n%w", err)
			}
			return api.Done{Schema: api.Schema, Text: "reloaded"}, nil
		},
		Restart: func(ctx context.Context) error {
			if err := e.requestRestart(ctx); err != nil {
				return fmt.Errorf("the daemon runs on as it was:\n%w", err)
			}
			return nil
		},
	}
}

func (e *engine) query(ctx context.Context, name, qtype, from string) (api.Decision, error) {
	q, err := parseQuestion(name, qtype, from)
	if err != nil {
		return api.Decision{}, err
	}
	sealed := e.resolver.Sealed(e.asked(q))
	d := story(e.resolver.Resolve(context.WithoutCancel(ctx), q), q, e.shown.Load())
	if sealed {
		d.Cached = "sealed"
	}
	for i := range d.Answers {
		e.askKernel(ctx, &d.Answers[i], false)
	}
	return d, nil
}

func parseQuestion(name, qtype, from string) (*resolver.Query, error) {
	n, err := dnsname.Parse(name)
	if err != nil {
		return nil, api.BadRequest(err.Error())
	}
	t, err := resolver.ParseType(qtype)
	if err != nil {
		return nil, api.BadRequest(err.Error())
	}
	client, err := parseClient(from)
	if err != nil {
		return nil, err
	}
	return resolver.Ask(n, t, client), nil
}

// parseClient returns the address of a client; "" is this host, which is not
// valid.
func parseClient(from string) (netip.Addr, error) {
	if from == "" {
		return netip.Addr{}, nil
	}
	client, err := netip.ParseAddr(from)
	if err != nil {
		return client, api.BadRequest(fmt.Sprintf("%q is not the address of a client", from))
	}
	return client, nil
}

func (e *engine) route(ctx context.Context, to, from string) (api.Route, error) {
	out := api.Route{Schema: api.Schema, Asked: to, Client: from}
	client, err := parseClient(from)
	if err != nil {
		return out, err
	}
	addr, err := netip.ParseAddr(to)
	if err != nil {
		q, err := parseQuestion(to, "A", from)
		if err != nil {
			return out, api.BadRequest(fmt.Sprintf("%q is neither an address nor a name: %s", to, err))
		}
		d := story(e.resolver.Resolve(context.WithoutCancel(ctx), e.asked(q)), q, e.shown.Load())
		for i := range d.Answers {
			e.askKernel(ctx, &d.Answers[i], true)
		}
		out.Names, out.Answers = &d, d.Answers
		return out, nil
	}
	a := e.judge(addr.Unmap().WithZone(""), client)
	e.askKernel(ctx, &a, true)
	out.Answers = []api.Address{a}
	return out, nil
}

// judge says what the policy makes of an address that nobody has asked for, when
// client sends to it; not valid: this host.
func (e *engine) judge(addr, client netip.Addr) api.Address {
	v := e.geo.Classify(addr)
	parts := e.shown.Load().parts
	path, rule := parts.pathOf(v, addr)
	if client.IsValid() {
		if own, has := e.resolver.OwnPath(e.who.client(netip.AddrPort{}, client), addr); has {
			path, rule = own.Via, own
		}
	}
	source := resolver.Source{List: v.List, Line: v.Line, Prefix: v.Prefix}
	a := api.Address{
		Addr: addr, Region: v.Region.String(), Because: because(source, parts.dates()), Path: string(path),
		Rule: api.Rule{Where: where("addresses", resolver.Rule{Index: rule.Index, Client: rule.Client}), Text: rule.Text, At: rule.Pos, Do: "via " + string(path)},
	}
	if rule.Named {
		a.Rule.Matched = rule.Prefix.String()
	}
	parts.dates().ofRule(&a.Rule, rule.List, rule.Line)
	if why := e.neverReason(addr); why != "" {
		a.Mark.Reason = why + ": never marked"
	}
	return a
}

// askKernel adds what the kernel itself says of an address: the sets that hold
// it, the mark that a new flow gets, and where that mark leads.
func (e *engine) askKernel(ctx context.Context, a *api.Address, flows bool) {
	v := e.shown.Load()
	if v.table == nil || a.Dropped != "" {
		return
	}
	k := &api.Kernel{}
	a.Kernel = k
	path := routing.Path(a.Path)
	elements, marked, err := v.elements(ctx, a.Addr)
	if err != nil {
		k.Error = err.Error()
		return
	}
	k.Sets = elements
	if marked != "" && !strings.HasPrefix(a.Rule.Where, "clients[") { // whose paths come before the marks
		path = marked
	}
	for _, t := range v.tunnels {
		if t.part.Path == path {
			k.StandIn = v.standIn(t)
		}
	}
	if by := v.parts.via(v.live, path); by != "" {
		path = by // blocked, its own table shows the lock
	}
	mark := uint32(0) // direct packets of the host itself carry none
	if path.IsTunnel() {
		mark = v.live.marks.of(path)
	}
	k.Mark = fmt.Sprintf("%#x", mark)
	way, err := e.kernel.RouteGet(a.Addr, mark)
	if err != nil {
		k.Error = err.Error()
		return
	}
	k.Route, k.Table, k.Dev = way.String(), int(way.Table), way.Dev
	if way.Dev == "" {
		k.Dev = "nowhere"
	}
	if way.Via.IsValid() {
		k.Via = way.Via.String()
	}
	if way.Source.IsValid() {
		k.Source = way.Source.String()
	}
	for _, t := range v.tunnels {
		if t.part.Path == path {
			addPeer(k, t)
		}
	}
	if flows {
		k.Flows = e.flows(v, a.Addr)
	}
}

func (e *engine) flows(v *view, to netip.Addr) []api.Flow {
	flows, err := e.kernel.Flows(to)
	if err != nil {
		return nil // conntrack is not there before the first flow
	}
	var all []api.Flow
	for _, f := range flows {
		path := v.flowPath(f.Mark)
		proto := map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}[f.Protocol]
		all = append(all, api.Flow{Proto: proto, From: f.Src, To: f.Dst, Path: path})
	}
	return all
}
