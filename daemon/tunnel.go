package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/resolver"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
	"smartdns/routing"
	"smartdns/routing/wg"
)

// running is a tunnel that was opened.
type running struct {
	part    Tunnel
	device  *wg.Tunnel
	monitor *wg.Monitor
	mtu     int
	index   int // of its link as last seen; 0: gone
	stop    context.CancelFunc
	done    chan struct{} // closed when the monitor has ended
}

// up reports whether packets may go in. While the tunnel is connecting they
// may: WireGuard keeps them until the handshake, and whoever resolved a name
// through the new session can connect at once. Only a tunnel that is known to
// be down refuses them.
func (t *running) up() bool { return t.monitor.Status().State != wg.Down }

// openTunnel makes the device and configures it. Its link is not up yet.
func (e *engine) openTunnel(ctx context.Context, part Tunnel) (*running, error) {
	kind := map[configs.Device]wg.Kind{
		configs.DeviceAuto: wg.Auto, configs.DeviceKernel: wg.Kernel, configs.DeviceUserspace: wg.Userspace,
	}[part.Device]
	device, err := wg.Open(ctx, wg.Options{
		Name: string(part.Path), Config: part.WG, Kind: kind, Links: e.kernel, Logger: e.log,
		FwMark: e.marks.field.Value(routing.MarkDirect),
	})
	if err != nil {
		return nil, err
	}
	t := &running{part: part, device: device, mtu: e.tunnelMTU(part)}
	e.watchLink(t)
	return t, nil
}

// watchLink finds the index of t's link, which changes when the link is made
// again.
func (e *engine) watchLink(t *running) {
	index, _, err := e.kernel.LinkIndex(string(t.part.Path))
	if err != nil {
		index = 0 // the next look at the device makes it again
	}
	t.index = index
}

// monitorTunnel begins to watch t.
func (e *engine) monitorTunnel(t *running) {
	ctx, cancel := context.WithCancel(e.ctx)
	t.stop, t.done = cancel, make(chan struct{})
	t.monitor = wg.NewMonitor(wg.MonitorOptions{
		Name: string(t.part.Path), Config: t.part.WG, Device: t.device,
		Probe: e.parts.probe(t.part.Path, e.marks), Store: e.endpoints, Lookups: e.lookups(),
		Changed: func(s wg.Status) {
			e.log.Info("tunnel", "tunnel", s.Name, "state", string(s.State), "endpoint", s.Endpoint.String())
			e.poke()
		},
		Drifted: func() { e.drifted.Store(true); e.poke() },
		Logger:  e.log,
	})
	go func() {
		defer close(t.done)
		_ = t.monitor.Run(ctx) // ends with ctx, and says nothing else
	}()
}

func (t *running) unwatch() {
	if t.stop != nil {
		t.stop()
		<-t.done
		t.stop = nil
	}
}

// overhead is what WireGuard adds to a packet over IPv6.
const overhead = 80

// tunnelMTU is what the file says, or what the way to the endpoint leaves.
func (e *engine) tunnelMTU(t Tunnel) int {
	if t.WG.MTU > 0 {
		return t.WG.MTU
	}
	main, ok := t.WG.Main()
	if !ok {
		return tunnelMTU
	}
	to, ok := main.Endpoint.Literal()
	if !ok {
		return tunnelMTU
	}
	mtu, err := e.kernel.RouteMTU(to.Addr(), e.marks.field.Value(routing.MarkDirect))
	const least = 1280 // IPv6's
	if err != nil || mtu < least+overhead {
		return tunnelMTU
	}
	return mtu - overhead
}

// lookups resolve the names of endpoints without the tunnel: the domestic
// servers first, then foreign ones that nobody on the way can forge, asked
// directly for this name only (KERNEL, WireGuard).
func (e *engine) lookups() []wg.Lookup {
	direct := dialer(e.marks.of(routing.Direct))
	build := func(role string, keep func(configs.Server) bool) upstream.Exchanger {
		var group []upstream.Exchanger
		for _, s := range e.parts.Config.Sides {
			for _, server := range s.Servers {
				if s.Name != role || !keep(server) {
					continue
				}
				ex, err := upstream.New(upstream.Config{
					Scheme: string(server.Scheme), Addr: server.Addr, ServerName: server.ServerName, Text: server.Text,
					Dial: direct, Spoofable: true, Logger: slog.New(slog.DiscardHandler),
				})
				if err == nil { // the same server was accepted as a side's
					group = append(group, ex)
				}
			}
		}
		if len(group) == 0 {
			return nil
		}
		return upstream.Group(group, upstream.Fastest)
	}
	// Forged answers are often where no provider can be. The address of a
	// private network may be meant.
	forged := e.parts.Forged
	impossible := func(a netip.Addr) bool {
		kind, _ := geo.Special(a)
		return kind == geo.SpecialBogon || forged.Contains(a)
	}
	var all []wg.Lookup
	for _, ex := range []upstream.Exchanger{
		build(resolver.Domestic, func(configs.Server) bool { return true }),
		build(resolver.Foreign, func(s configs.Server) bool { return s.Scheme == configs.SchemeTLS }),
	} {
		if ex != nil {
			all = append(all, func(ctx context.Context, host string) ([]netip.Addr, error) {
				addrs, err := lookupHost(ctx, ex, host)
				return slices.DeleteFunc(addrs, impossible), err
			})
		}
	}
	return all
}

// lookupHost asks one upstream for the addresses of a host, v4 first.
func lookupHost(ctx context.Context, ex upstream.Exchanger, host string) ([]netip.Addr, error) {
	name, err := dnsname.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("looking up %q: %w", host, err)
	}
	var all []netip.Addr
	for _, qtype := range []uint16{wire.TypeA, wire.TypeAAAA} {
		r, e := ex.Exchange(ctx, upstream.Query{Msg: wire.AppendQuery(nil, name.AppendWire(nil), qtype, false, false, nil)})
		if e != nil {
			err = e
			continue
		}
		addrs, e := resolver.AddressesOf(r.Msg)
		if e != nil {
			err = e
		}
		all = append(all, addrs...)
	}
	if len(all) == 0 && err != nil {
		return nil, fmt.Errorf("looking up %s: %w", host, err)
	}
	return all, nil
}
