package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"time"

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

// boundTo opens connections that leave by the interface of a path that is not
// ours, or not at all.
func boundTo(p routing.Path) upstream.Dial {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), string(p)) }); e != nil {
			return e
		}
		if err != nil {
			return fmt.Errorf("binding a socket to the interface %s: %w", p, err)
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

// sides builds what asks every side's servers, out of known where the file says
// the same of them as before.
func (b asking) sides(c *configs.Config, known builtSides) (builtSides, error) {
	all := builtSides{}
	for _, s := range c.Sides {
		way := sideWayOf(s, b.marks)
		if old, ok := known[s.Name]; ok && reflect.DeepEqual(old.way, way) {
			all[s.Name] = old
			continue
		}
		build := builder{
			dial:      func(secret bool) upstream.Dial { return sideDial(s, b.marks, b.outlets, secret) },
			spoofable: !s.Via.IsTunnel(), found: b.found, now: b.now, log: b.log.With("side", s.Name),
		}
		group, err := build.all(s.Servers, s.Bootstrap)
		if err != nil {
			return nil, fmt.Errorf("%s: [side.%s] %w", s.Pos, s.Name, err)
		}
		var honest []upstream.Exchanger
		for i, server := range s.Servers {
			if honoursSubnet(server) {
				honest = append(honest, group[i])
			}
		}
		built := builtSide{way: way, servers: upstream.Group(group, modeOf(s.Choose))}
		if s.Name == resolver.Foreign && len(honest) > 0 {
			built.judge = upstream.Group(honest, modeOf(s.Choose))
		}
		all[s.Name] = built
	}
	return all, nil
}

// policySides is what the resolver knows of the sides.
func policySides(c *configs.Config, built builtSides) map[string]resolver.Side {
	all := map[string]resolver.Side{}
	for _, s := range c.Sides {
		proxy := ""
		if s.SOCKS5.Addr.IsValid() {
			proxy = proxyOf(s).String()
		}
		encrypted := !slices.ContainsFunc(s.Servers, func(server configs.Server) bool { return !server.Scheme.Encrypted() })
		all[s.Name] = resolver.Side{
			Exchanger: built[s.Name].servers, Path: s.Via, Proxy: proxy,
			Trusted: encrypted || s.Via.IsTunnel(), Spoofable: !encrypted && !s.Via.IsTunnel(),
			Subnet:  resolver.Subnet{Client: s.ECS.Client, Prefix: s.ECS.Prefix},
			Private: s.Private,
		}
	}
	return all
}

// sideDial is how the servers of a side are reached: by its path, its tunnel's
// outlet and its proxy.
func sideDial(s configs.Side, m marks, out outlets, secret bool) upstream.Dial {
	dial := dialer(m.of(s.Via))
	if _, ours := m.numbers[s.Via]; s.Via.IsTunnel() && !ours {
		dial = boundTo(s.Via)
	} else if s.Via.IsTunnel() {
		dial = out.of(s.Via).dial(dial, dialer, secret)
	}
	if s.SOCKS5.Addr.IsValid() {
		dial = proxyOf(s).Through(dial)
	}
	return dial
}

func proxyOf(s configs.Side) upstream.SOCKS5 {
	return upstream.SOCKS5{Addr: s.SOCKS5.Addr, User: s.SOCKS5.User, Password: s.SOCKS5.Password}
}

func modeOf(c configs.Choose) upstream.Mode {
	switch c {
	case configs.ChooseOrder:
		return upstream.InOrder
	case configs.ChooseRace:
		return upstream.Race
	}
	return upstream.Fastest
}

// builder makes Exchangers of the servers that the file names.
type builder struct {
	dial      func(secret bool) upstream.Dial // secret: nobody can read or forge what it carries
	spoofable bool
	found     func([]netip.AddrPort)
	now       func() time.Time // for certificates; nil: the system's clock
	log       *slog.Logger
}

// all makes one of each server; those of which only the name is known are found
// by the bootstrap servers.
func (b builder) all(servers, bootstrap []configs.Server) ([]upstream.Exchanger, error) {
	var lookup upstream.Lookup
	if len(bootstrap) > 0 {
		asked, err := b.all(bootstrap, nil)
		if err != nil {
			return nil, err
		}
		group := upstream.Group(asked, upstream.Fastest)
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			addrs, err := lookupHost(ctx, group, host)
			// No server of anybody else's is at such an address, and ours may be.
			return slices.DeleteFunc(addrs, func(a netip.Addr) bool {
				kind, _ := geo.Special(a)
				return kind == geo.SpecialBogon
			}), err
		}
	}
	var all []upstream.Exchanger
	for _, s := range servers {
		where := upstream.At(s.Addr)
		if s.Host != "" {
			where = upstream.Named(s.Host, s.Addr.Port(), s.Addresses, lookup, b.found)
		}
		var pins []upstream.Pin
		for _, p := range s.Pins {
			pins = append(pins, upstream.Pin(p))
		}
		ex, err := upstream.New(upstream.Config{
			Scheme: string(s.Scheme), Where: where, Path: s.Path, ServerName: s.ServerName, Pins: pins, Text: s.Text,
			Dial: b.dial(s.Scheme.Encrypted()), Spoofable: b.spoofable, Now: b.now, Logger: b.log,
		})
		if err != nil {
			return nil, err
		}
		all = append(all, ex)
	}
	return all, nil
}

// honoursSubnet reports whether a public resolver answers by the client subnet
// of the question (RFC 7871). Google's does; Cloudflare's and Quad9's do not, by
// their own documents.
func honoursSubnet(s configs.Server) bool {
	return s.Host == "dns.google" || slices.ContainsFunc(s.Known(), func(a netip.AddrPort) bool {
		return slices.Contains([]netip.Addr{
			netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("8.8.4.4"),
			netip.MustParseAddr("2001:4860:4860::8888"), netip.MustParseAddr("2001:4860:4860::8844"),
		}, a.Addr())
	})
}

// judgeWarning says that nobody can say of a name where it is for a client at
// home: then a name at home with servers abroad too counts as abroad.
func judgeWarning(c *configs.Config) (configs.Warning, bool) {
	i := slices.IndexFunc(c.Sides, func(s configs.Side) bool { return s.Name == configs.SideForeign })
	side := c.Sides[i]
	if c.Decide.Auto != configs.ForeignFirst || slices.ContainsFunc(side.Servers, honoursSubnet) {
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
func (p *Parts) policy(built builtSides, g *geo.Handle) *resolver.Policy {
	c := p.Config
	return &resolver.Policy{
		Names: p.Names, Addresses: p.Addresses, Clients: clientPaths(c), Sides: policySides(c, built),
		Auto: resolver.Auto{
			Mode: resolver.Mode(c.Decide.Auto), Mixed: resolver.Mixed(c.Decide.Mixed),
			Judge: built[resolver.Foreign].judge, Home: homeSubnet(c.Decide.Home, p.Geo),
		},
		Keep: resolver.Keep{
			Stale: c.Cache.Stale, Prefetch: c.Cache.Prefetch, MinTTL: c.Cache.MinTTL, MaxTTL: c.Cache.MaxTTL,
		},
		Poison:    resolver.Poison{Hold: c.Poison.Hold, Forged: p.Forged, Bogus: p.Bogus, Probe: c.Poison.Probe},
		Geo:       g,
		PrivateOK: c.Decide.PrivateOK,
		Local: resolver.Local{
			Records: p.Records.records, Bypass: p.keptFromOthers(),
			DNS64: resolver.DNS64{Prefix: c.DNS64.Prefix, Exclude: p.Exclude, OnPath: c.DNS64.NAT64 == configs.NAT64Path},
		},
		AnswerUnmarked: c.Marks.OnError == configs.OnErrorAnswer,
	}
}
