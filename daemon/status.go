package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/resolver/policy"
	"smartdns/resolver/upstream"
	"smartdns/routing"
	"smartdns/routing/wg"
	"smartdns/web/api"
)

// status says how everything is.
func (e *engine) status(ctx context.Context) api.Status {
	v := e.shown.Load()
	s := api.Status{
		Tunnels: []api.Tunnel{}, Sets: []api.Set{}, Classified: []string{},
		Schema: api.Schema, Version: e.opts.Version, Uptime: api.Since(time.Since(e.started)),
		Listen: e.listenStatus(ctx, v), Lists: append([]api.List{}, v.parts.allLists()...), Sides: sideStatus(v), Counters: e.counters(),
	}
	for _, t := range v.tunnels {
		s.Tunnels = append(s.Tunnels, tunnelStatus(v, t))
	}
	s.Conditions = e.conditions(v, s)
	if v.table != nil {
		gates, err := v.parts.gates(ctx, v.table, v.live, severityWarning)
		if err != nil {
			gates = []api.Condition{{Severity: severityWarning, What: err.Error()}}
		}
		s.Conditions = append(s.Conditions, gates...)
		if c, ok := offloadCondition(v); ok {
			s.Conditions = append(s.Conditions, c)
		}
		sets, counters, err := tableStatus(ctx, v)
		if err != nil {
			s.Conditions = append(s.Conditions, api.Condition{Severity: severityError, What: err.Error()})
		}
		s.Sets = sets
		s.Conditions = append(s.Conditions, sizeConditions(sets, v.parts.Config.Marks.Size)...)
		s.Counters = append(s.Counters, counters...)
		s.Classified = classified(v)
	}
	s.KillSwitch = api.KillSwitch{State: killSwitch(v, s.Tunnels), Portal: e.portal.status()}
	if p := s.KillSwitch.Portal; p != nil {
		s.Conditions = append(s.Conditions, portalCondition(p))
	}
	e.noticed.date(s.Conditions, time.Now())
	s.Fine = !slices.ContainsFunc(s.Conditions, func(c api.Condition) bool { return c.Severity == severityError })
	s.Summary = summary(s)
	if s.Fine && v.parts.Config.Routing.Mode == configs.ModeOff {
		s.Summary = `fine, but only resolving: [routing] mode is "off"` + hostAsksText(s.Listen)
	}
	return s
}

const (
	severityError   = "error"
	severityWarning = "warning"
)

// summary is the one sentence that matters most.
func summary(s api.Status) string {
	for _, c := range s.Conditions {
		if c.Severity == severityError {
			return "not fine: " + c.What
		}
	}
	if len(s.Tunnels) == 0 {
		return "fine, but only resolving: no tunnel is configured, so nothing is routed" + hostAsksText(s.Listen)
	}
	var up []string
	for _, t := range s.Tunnels {
		up = append(up, t.Path)
	}
	text := "fine: resolving, and routing through " + strings.Join(up, ", ")
	for _, t := range s.Tunnels {
		if t.StandIn != "" {
			text += "; " + t.StandIn
		}
	}
	return text + hostAsksText(s.Listen)
}

// hostAsksText says whom this host asks, and by whom, unless it is us by our own
// resolv.conf.
func hostAsksText(l api.Listen) string {
	switch {
	case !l.HostAsks && l.HostBy != "":
		return "; this host itself asks another resolver, by " + l.HostBy
	case !l.HostAsks:
		return "; this host itself asks another resolver"
	case l.HostBy != "":
		return "; this host asks us by " + l.HostBy
	}
	return ""
}

// conditions gathers what is not as it should be, errors first.
func (e *engine) conditions(v *view, s api.Status) []api.Condition {
	all := []api.Condition{}
	for _, f := range v.fails {
		all = append(all, api.Condition{Severity: f.severity, What: f.text, Since: f.since})
	}
	if e.clock.waiting() {
		all = append(all, e.clock.condition())
	}
	all = append(all, e.verdicts.conditions()...)
	all = append(all, e.kept.conditions()...)
	all = append(all, e.data.conditions(v.parts, time.Now())...)
	for _, t := range v.tunnels {
		if c, ok := v.tunnelCondition(t); ok {
			all = append(all, c)
		}
	}
	for _, side := range v.parts.Config.Sides {
		if c, ok := silent(side.Name, upstream.Health(v.policy.Sides[side.Name].Exchanger)); ok {
			all = append(all, c)
		}
	}
	all = append(all, loopConditions(e.resolver.Loops())...)
	all = append(all, hijackConditions(e.resolver.Hijacks())...)
	if c, ok := readFlows(conntrackDir).condition(); ok {
		all = append(all, c)
	}
	seen := e.routes.Status()
	for _, c := range seen.Conditions {
		c = contend(c, seen.Facts)
		severity := severityWarning
		if c.Kind == routing.ApplyFailed || c.Kind == routing.ObserveFailed || c.Kind == routing.Fighting {
			severity = severityError
		}
		all = append(all, api.Condition{Severity: severity, What: c.Text, Fix: c.Fix, Since: c.Since})
	}
	for _, w := range v.parts.Config.Warnings() {
		all = append(all, api.Condition{Severity: severityWarning, What: w.String(), Since: e.started})
	}
	if !s.Listen.HostAsks {
		c := api.Condition{
			Severity: severityWarning, What: "this host does not ask us: " + resolvConf + " names another resolver", Since: e.started,
			Fix: "write system = true under [listen]",
		}
		if by := s.Listen.HostBy; by != "" {
			c.What = "this host does not ask us, but whom " + by + " names"
		} else {
			c.Fix += ", or: echo nameserver 127.0.0.1 > " + resolvConf
		}
		if v.parts.Config.Listen.System {
			c.Fix = "smartdns reload" // tries again what another condition says is wrong
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b api.Condition) int { return strings.Compare(a.Severity, b.Severity) })
	return all
}

// silent returns the condition of a side of which no server answers, since the
// last of them went down.
func silent(side string, servers []upstream.Status) (c api.Condition, ok bool) {
	c = api.Condition{Severity: severityError, What: fmt.Sprintf("no server of the %s side answers", side)}
	for _, s := range servers {
		if s.Up {
			return api.Condition{}, false
		}
		if s.DownSince.After(c.Since) {
			c.Since = s.DownSince
		}
	}
	return c, len(servers) > 0
}

func endpointText(t shownTunnel) string {
	if a := t.status().Endpoint; a.IsValid() {
		return a.String()
	}
	if main, ok := t.part.WG.Main(); ok && main.Endpoint.Host != "" {
		return main.Endpoint.String()
	}
	return "its peer"
}

func (e *engine) listenStatus(ctx context.Context, v *view) api.Listen {
	st := e.server.Stats()
	l := api.Listen{Addrs: e.server.Addrs(), Clients: append([]netip.Prefix{}, v.parts.Config.Listen.Clients...), UDP: st.UDP, TCP: st.TCP, Refused: st.Refused}
	l.Clients = append(l.Clients, lanPrefixes(v.parts.Config, v.live.facts)...)
	var port53 []netip.Addr
	for _, a := range l.Addrs {
		if a.Port() == dnsPort {
			port53 = append(port53, a.Addr())
		}
	}
	secure := e.server.SecureAddrs()
	l.DoT, l.DoH, l.TLS, l.HTTPS, l.Certificate = secure.TLS, secure.HTTPS, st.TLS, st.HTTPS, e.identity.status()
	for a, side := range v.parts.Config.Listen.Sides {
		l.Asks = append(l.Asks, api.ListenerSide{Addr: a, Side: side})
	}
	slices.SortFunc(l.Asks, func(a, b api.ListenerSide) int { return a.Addr.Compare(b.Addr) })
	l.HostAsks, l.HostBy = hostView(ctx, port53)
	return l
}

func sideStatus(v *view) []api.Side {
	var all []api.Side
	for _, c := range v.parts.Config.Sides {
		s := api.Side{Name: c.Name, Via: string(c.Via)}
		for _, h := range upstream.Health(v.policy.Sides[c.Name].Exchanger) {
			s.Servers = append(s.Servers, api.Server{
				Server: h.Server, Proto: h.Proto, Addrs: h.Addrs, Up: h.Up, Latency: api.Since(h.Latency), Queries: h.Queries, Failures: h.Failures,
				Suspect: h.SpoofSuspect, LastError: oneLine(h.LastError),
			})
		}
		all = append(all, s)
	}
	return all
}

func tunnelStatus(v *view, t shownTunnel) api.Tunnel {
	s := t.status()
	n := v.live.marks.numbers[t.part.Path]
	out := api.Tunnel{
		Path: string(t.part.Path), State: string(v.stateOf(t)), Device: string(s.Kind), Endpoint: endpointText(t), Peer: s.Peer,
		Traffic: api.Traffic{Received: s.RX, Sent: s.TX, MTU: mtuStatus(t.part, v.live.links[t.part.Path])},
		Carrier: api.Carrier{WhenDown: string(t.part.WhenDown), CarriedBy: string(v.parts.via(v.live, t.part.Path)), StandIn: v.standing(t)},
		Mark:    fmt.Sprintf("%#x", v.live.marks.of(t.part.Path)), Table: routing.FirstTable + n,
	}
	if !s.Handshake.IsZero() {
		out.Handshake = &s.Handshake
	}
	if s.Probe != (wg.Probed{}) {
		out.Probe = &api.Probe{At: s.Probe.At, Latency: api.Since(s.Probe.Latency), Error: s.Probe.Err}
	}
	return out
}

func mtuStatus(t Tunnel, l link) api.MTU {
	m := api.MTU{Link: l.mtu, Fits: l.fits, From: "route"}
	switch {
	case t.WG.MTU > 0:
		m.From = "file"
	case l.fits > 0:
		m.From = "measured"
	}
	return m
}

// addPeer adds the tunnel's far end to what the kernel says.
func addPeer(k *api.Kernel, t shownTunnel) {
	s := t.status()
	k.Peer = s.Peer
	if !s.Handshake.IsZero() {
		k.Handshake = api.Since(time.Since(s.Handshake))
	}
}

// classified says whose flows are decided by our table, and whose are left
// alone.
func classified(v *view) []string {
	all := []string{"this host"}
	for _, i := range v.live.facts.Links {
		_, ours := v.live.links[routing.Path(i.Name)]
		switch {
		case i.Loopback || ours || slices.Contains(v.live.facts.Uplinks(), i.Name) && !slices.Contains(v.parts.Config.Listen.LAN, i.Name):
		case slices.Contains(v.parts.Config.Routing.Skip, i.Name):
			all = append(all, "not "+i.Name+" (skip)")
		default:
			all = append(all, "from "+i.Name)
		}
	}
	return all
}

func (e *engine) counters() []api.Counter {
	c, sealed := e.resolver.Counters(), e.server.Stats().Sealed
	var all []api.Counter
	for _, x := range []struct {
		group, name string
		value       uint64
	}{
		{"queries", "queries", c.Queries + sealed}, {"queries", "answered by the fast lane", sealed}, {"queries", "answered from the cache", c.Hits}, {"queries", "answered locally", c.Local},
		{"queries", "failed", c.Failed}, {"queries", "over a limit", c.Overloaded}, {"queries", "shared with an equal question", c.Shared},
		{"queries", "answered with a stale answer", c.Stale}, {"queries", "answers fetched ahead", c.Prefetches},
		{"queries", "without a packet left for another try", c.Capped},
		{"auto", "names judged by auto", c.Auto.Judged}, {"auto", "judgements contradicted", c.Auto.Contradicted},
		{"auto", "names in no list asked at home", c.Auto.Exposed},
		{"auto", "domestic answers while foreign was unreachable", c.Auto.Fallback}, {"auto", "of those refused, not all home", c.Auto.Refused},
		{"poison", "suspicious answers", c.Poison.Suspicious}, {"poison", "replaced by the foreign side's", c.Poison.Replaced},
		{"poison", "suspicious answers used for want of better", c.Poison.Used}, {"poison", "bogus addresses made NXDOMAIN", c.Poison.Bogus},
		{"poison", "private addresses stripped from public names", c.Poison.Stripped},
		{"marks", "answers marked", c.Marks.Answers}, {"marks", "answers whose marks failed", c.Marks.Failed},
		{"marks", "of those answered, static sets agree", c.Marks.Agreed}, {"marks", "of those answered by on_error", c.Marks.Unmarked},
		{"marks", "addresses never marked", c.Marks.Never}, {"marks", "foreign addresses not pulled direct", c.Marks.DirectRefused},
	} {
		all = append(all, api.Counter{Group: x.group, Name: x.name, Value: x.value})
	}
	return all
}

// pathOf says which way an address leaves that no answer has marked, in the
// order of our table's rules. A rule with Index -1 is none of the file's.
func (p *Parts) pathOf(v geo.Verdict, a netip.Addr) (routing.Path, policy.AddressRule) {
	if a.IsLinkLocalUnicast() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return routing.Direct, policy.AddressRule{Index: -1, Text: "link-local and multicast stay on their link", Via: routing.Direct}
	}
	rule := p.Addresses.Match(v, a)
	if !rule.Named {
		for _, t := range p.Tunnels {
			if slices.ContainsFunc(t.own(), func(o netip.Prefix) bool { return o.Contains(a) }) {
				return t.Path, policy.AddressRule{Index: -1, Text: "its own network is always " + string(t.Path) + "'s", Via: t.Path}
			}
		}
	}
	return rule.Via, rule
}
