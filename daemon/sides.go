package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/resolver"
	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// dialer opens connections on one path. Mark 0 marks nothing: there is no
// tunnel, so there is nothing to tell apart.
func dialer(mark uint32) upstream.Dial {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		if mark == 0 {
			return nil
		}
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) }); e != nil {
			return e
		}
		if err != nil {
			return fmt.Errorf("marking a socket (needs CAP_NET_ADMIN): %w", err)
		}
		return nil
	}}
	return d.DialContext
}

// marks says which packet mark the sockets of each path carry.
type marks struct {
	field   routing.Field
	numbers map[routing.Path]int // of tunnels; empty: nothing is marked
}

func (m marks) of(p routing.Path) uint32 {
	switch n, ok := m.numbers[p]; {
	case ok:
		return m.field.Tunnel(n)
	case len(m.numbers) == 0:
		return 0
	}
	return m.field.Value(routing.MarkDirect)
}

// sides builds the upstreams of every side.
func sides(c *configs.Config, m marks, out outlets, log *slog.Logger) (map[string]resolver.Side, upstream.Exchanger, error) {
	all := map[string]resolver.Side{}
	var judge upstream.Exchanger
	for _, s := range c.Sides {
		var group, honest []upstream.Exchanger
		encrypted := true
		for _, server := range s.Servers {
			secret := server.Scheme == configs.SchemeTLS
			encrypted = encrypted && secret
			dial := dialer(m.of(s.Via))
			if s.Via.IsTunnel() {
				dial = out.of(s.Via).dial(dial, dialer(m.of(routing.Direct)), secret)
			}
			ex, err := upstream.New(upstream.Config{
				Scheme: string(server.Scheme), Addr: server.Addr, ServerName: server.ServerName, Text: server.Text,
				Dial: dial, Spoofable: !s.Via.IsTunnel(), Logger: log.With("side", s.Name),
			})
			if err != nil {
				return nil, nil, fmt.Errorf("%s: [side.%s] %w", s.Pos, s.Name, err)
			}
			group = append(group, ex)
			if honoursSubnet(server.Addr.Addr()) {
				honest = append(honest, ex)
			}
		}
		all[s.Name] = resolver.Side{
			Exchanger: upstream.Group(group, upstream.Fastest), Path: s.Via,
			Trusted: encrypted || s.Via.IsTunnel(), Spoofable: !encrypted && !s.Via.IsTunnel(),
		}
		if s.Name == resolver.Foreign && len(honest) > 0 {
			judge = upstream.Group(honest, upstream.Fastest)
		}
	}
	return all, judge, nil
}

// honoursSubnet reports whether the public resolver at a answers by the client
// subnet of the question (RFC 7871). Google's does; Cloudflare's and Quad9's
// do not, by their own documents.
func honoursSubnet(a netip.Addr) bool {
	return slices.Contains([]netip.Addr{
		netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("8.8.4.4"),
		netip.MustParseAddr("2001:4860:4860::8888"), netip.MustParseAddr("2001:4860:4860::8844"),
	}, a)
}

// judgeWarning says that nobody can say of a name where it is for a client at
// home: then a name at home with servers abroad too counts as abroad.
func judgeWarning(c *configs.Config) (configs.Warning, bool) {
	i := slices.IndexFunc(c.Sides, func(s configs.Side) bool { return s.Name == configs.SideForeign })
	side := c.Sides[i]
	if c.Decide.Auto != configs.ForeignFirst || slices.ContainsFunc(side.Servers, func(s configs.Server) bool { return honoursSubnet(s.Addr.Addr()) }) {
		return configs.Warning{}, false
	}
	return configs.Warning{
		Pos: side.Pos, Key: "[side.foreign] servers",
		Text: `no server is known to answer by the client's subnet, so auto = "foreign-first" takes a name for one at home only by what a client abroad is told: add tls://8.8.8.8 (1.1.1.1 does not answer by subnet)`,
	}, true
}

// homeSubnet is the client subnet by which a name's region is judged: a public
// prefix of the home region that is no user's.
func homeSubnet(home string, t *geo.Table) netip.Prefix {
	// Beijing, China Unicom: in every table's CN, and full of users.
	if cn := netip.MustParsePrefix("114.240.0.0/24"); home == "CN" && t.Lookup(cn.Addr()).Region == geo.Home {
		return cn
	}
	v4, _ := t.Home()
	var widest netip.Prefix
	for _, p := range v4 {
		if !widest.IsValid() || p.Bits() < widest.Bits() {
			widest = p
		}
	}
	if !widest.IsValid() {
		return widest
	}
	return netip.PrefixFrom(widest.Addr(), 24).Masked()
}

// policy builds what the resolver swaps at a reload.
func (p *Parts) policy(m marks, out outlets, g *geo.Handle, log *slog.Logger) (*resolver.Policy, error) {
	all, judge, err := sides(p.Config, m, out, log)
	if err != nil {
		return nil, err
	}
	c := p.Config
	pol := &resolver.Policy{
		Names: p.Names, Addresses: p.Addresses, Sides: all,
		Auto: resolver.Auto{
			Mode: resolver.Mode(c.Decide.Auto), Mixed: resolver.Mixed(c.Decide.Mixed),
			Judge: judge, Home: homeSubnet(c.Decide.Home, p.Geo),
		},
		Poison:         resolver.Poison{Hold: c.Poison.Hold, Forged: p.Forged, Bogus: p.Bogus},
		Geo:            g,
		PrivateOK:      c.Decide.PrivateOK,
		AnswerUnmarked: c.Marks.OnError == configs.OnErrorAnswer,
	}
	return pol, nil
}
