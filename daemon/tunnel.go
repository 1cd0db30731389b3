package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

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
	back    comeback
	by      routing.Path // who carried its flows last; "": nobody
	index   int          // of its link as last seen; 0: gone
	mtu     mtuTo
	path    *pathMTU // nil: nothing is measured
	stop    context.CancelFunc
	done    chan struct{} // closed when the monitor and path have ended
	raised  bool          // all of it is there: PostUp was run
	hookErr error         // of PostUp
}

// openTunnel makes the device and configures it. Its link is not up yet.
func (e *engine) openTunnel(ctx context.Context, part Tunnel) (*running, error) {
	kind := map[configs.Device]wg.Kind{
		configs.DeviceAuto: wg.Auto, configs.DeviceKernel: wg.Kernel, configs.DeviceUserspace: wg.Userspace,
	}[part.Device]
	goesOn := e.place.had.takeRaised(part.Path)
	if !goesOn {
		if err := part.hooks(ctx, wg.PreUp, e.log); err != nil {
			return nil, err
		}
	}
	device, err := wg.Open(ctx, wg.Options{
		Name: string(part.Path), Config: part.WG, Kind: kind, Links: e.links, TUN: e.place.had.takeTUN(part.Path), Logger: e.log,
		FwMark: e.marks.field.Value(routing.MarkDirect), Field: uint32(e.marks.field),
	})
	if err != nil {
		return nil, err
	}
	t := &running{part: part, device: device, raised: goesOn}
	e.watchLink(t)
	return t, nil
}

// watchLink finds the index of t's link, which changes when the link is made
// again.
func (e *engine) watchLink(t *running) {
	t.index = 0 // the next look at the device makes it again
	if !t.device.Alive() {
		return // a link of that name may be somebody else's
	}
	if index, _, err := e.kernel.LinkIndex(string(t.part.Path)); err == nil {
		t.index = index
	}
}

// monitorTunnel begins to watch t.
func (e *engine) monitorTunnel(t *running) {
	ctx, cancel := context.WithCancel(e.ctx)
	t.stop, t.done = cancel, make(chan struct{})
	path := t.part.Path // t.part is replaced by reloads, under the monitor's feet
	t.monitor = wg.NewMonitor(wg.MonitorOptions{
		Name: string(t.part.Path), Config: t.part.WG, Device: t.device,
		Probe:    e.probe(t.part.Path),
		Watchful: func() bool { return e.shown.Load().parts.watchful(path) }, Store: e.endpoints, Lookups: e.lookups(), Reach: e.reaches,
		Changed: func(s wg.Status) {
			e.log.Info("tunnel", "tunnel", s.Name, "state", string(s.State), "endpoint", s.Endpoint.String())
			e.poke()
		},
		Drifted: func() { e.drifted.Store(true); e.poke() },
		Logger:  e.log,
	})
	t.path = newPathMTU(e.arrives(t.part.Path), e.poke, e.log.With("tunnel", string(t.part.Path)))
	var both sync.WaitGroup
	both.Go(func() { _ = t.monitor.Run(ctx) }) // ends with ctx, and says nothing else
	both.Go(func() { t.path.run(ctx) })
	go func() {
		both.Wait()
		close(t.done)
	}()
}

func (t *running) unwatch() {
	if t.stop != nil {
		t.stop()
		<-t.done
		t.stop = nil
	}
}

// close ends the monitor and removes the device.
func (t *running) close() error {
	t.unwatch()
	return t.device.Close()
}

// endpoint returns where the tunnel calls, if that is known.
func (t *running) endpoint() netip.Addr {
	if t.monitor != nil {
		if a := t.monitor.Status().Endpoint; a.IsValid() {
			return a.Addr()
		}
	}
	if main, ok := t.part.WG.Main(); ok {
		if a, ok := main.Endpoint.Literal(); ok {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

// reaches reports whether there is a way to an endpoint without the tunnel.
func (e *engine) reaches(a netip.Addr) bool {
	way, err := e.kernel.RouteGet(a, e.shown.Load().live.marks.field.Value(routing.MarkDirect))
	return err != nil || way.Refused == "" // who cannot say does not keep it from being tried
}

// lookups resolve the names of endpoints without the tunnel: the domestic
// servers first, then foreign ones that nobody on the way can forge, asked
// directly for this name only (KERNEL, WireGuard).
func (e *engine) lookups() []wg.Lookup {
	direct := dialer(e.marks.of(routing.Direct))
	by := func(role string, keep func(configs.Server) bool) wg.Lookup {
		return func(ctx context.Context, host string) ([]netip.Addr, error) {
			p := e.shown.Load().parts
			ex := p.servers(role, keep, direct, e.clock.Now)
			if ex == nil {
				return nil, fmt.Errorf("looking up %s: no server of side %s can be asked directly", host, role)
			}
			addrs, err := lookupHost(ctx, ex, host)
			// Forged answers are often where no provider can be. The address of
			// a private network may be meant.
			return slices.DeleteFunc(addrs, func(a netip.Addr) bool {
				kind, _ := geo.Special(a)
				return kind == geo.SpecialBogon || p.Forged.Contains(a)
			}), err
		}
	}
	return []wg.Lookup{
		by(resolver.Domestic, func(configs.Server) bool { return true }),
		by(resolver.Foreign, func(s configs.Server) bool { return s.Scheme.Encrypted() }),
	}
}

// servers is a group of those servers of a side that keep wants, asked by dial;
// nil without any. now says what time it is for certificates.
func (p *Parts) servers(side string, keep func(configs.Server) bool, dial upstream.Dial, now func() time.Time) upstream.Exchanger {
	b := builder{dial: func(bool) upstream.Dial { return dial }, spoofable: true, now: now, log: slog.New(slog.DiscardHandler)}
	kept := func(all []configs.Server) []configs.Server {
		return slices.DeleteFunc(slices.Clone(all), func(s configs.Server) bool { return !keep(s) })
	}
	for _, s := range p.Config.Sides {
		if s.Name != side {
			continue
		}
		if group, err := b.all(kept(s.Servers), kept(s.Bootstrap)); err == nil && len(group) > 0 {
			return upstream.Group(group, upstream.Fastest)
		}
	}
	return nil
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
