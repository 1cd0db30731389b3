package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/nft"
	"smartdns/resolver"
	"smartdns/resolver/server"
	"smartdns/routing"
	"smartdns/routing/hostdns"
	"smartdns/routing/linux"
	"smartdns/routing/wg"
)

// engine holds the running parts. Its loop is the only goroutine that changes
// the kernel or these fields; what others read is behind an atomic pointer.
type engine struct {
	opts    Options
	log     *slog.Logger
	started time.Time
	ctx     context.Context // of the loop
	parts   *Parts
	marks   marks

	kernelSide
	querySide

	drifted atomic.Bool   // a tunnel's device is not as we left it
	wake    chan struct{} // something may have changed
	reloads chan reload
	shown   atomic.Pointer[view]
}

// kernelSide is what we own in the kernel.
type kernelSide struct {
	kernel      *linux.Kernel
	routes      *routing.Reconciler
	table       *nft.Table
	tunnels     map[routing.Path]*running
	endpoints   *wg.Store
	hostDNS     *hostdns.File      // nil: resolv.conf is not ours
	stopHostDNS context.CancelFunc // ends the watch of it
	failures    map[string]failure
	contest     contest
}

// failure is something that did not work, until it does.
type failure struct {
	text, fix string
	since     time.Time
}

// querySide is what queries go through.
type querySide struct {
	server   *server.Server
	resolver *resolver.Resolver
	geo      *geo.Handle
	never    atomic.Pointer[neverMark]
	carries  atomic.Pointer[map[routing.Path]bool] // IPv6
	policy   *resolver.Policy
	outlets  outlets
}

// view is what the API shows of the loop's state: a value nobody changes.
type view struct {
	parts   *Parts
	live    live
	tunnels []*running
	fails   map[string]failure
	policy  *resolver.Policy
	table   *nft.Table
}

// reload asks the loop to run by other parts.
type reload struct {
	parts *Parts
	done  chan error
}

// poke makes the loop look again. It never blocks.
func (e *engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// routed reports whether there is a kernel side: without a tunnel we only
// resolve, and nothing in the kernel is ours.
func (e *engine) routed() bool { return len(e.parts.Tunnels) > 0 }

// loop follows the kernel, the tunnels and reloads until ctx ends.
func (e *engine) loop(ctx context.Context) {
	retry := time.NewTicker(2 * time.Second)
	defer retry.Stop()
	var pause <-chan time.Time
	for {
		var lost <-chan struct{}
		if e.table != nil && pause == nil {
			lost = e.table.Lost()
		}
		select {
		case <-ctx.Done():
			return
		case <-e.routes.Changed():
		case <-e.wake:
		case <-lost:
			if d := e.contest.changed(time.Now()); d > 0 {
				pause = time.After(d)
			} else {
				e.log.Warn("somebody changed our nftables table; putting it back")
			}
		case <-pause:
			pause = nil
			continue
		case <-retry.C:
			if len(e.failures) == 0 {
				continue
			}
		case r := <-e.reloads:
			r.done <- e.reload(ctx, r.parts)
			continue
		}
		e.converge(ctx)
	}
}

// converge brings everything to what parts, kernel and tunnels now ask for. A
// part that fails is a failure until it works; the others go on.
func (e *engine) converge(ctx context.Context) {
	if e.routed() {
		if e.findLinks() || e.drifted.Swap(false) {
			e.note("tunnels", e.restoreTunnels(ctx))
			e.findLinks()
		}
	}
	l := e.live()
	e.publishLive(l)
	e.note("listen", e.listen(l))
	l.listen = e.server.Addrs()
	if e.routed() {
		e.note("nft", e.setTable(ctx, l))
		e.note("contest", e.contest.err(time.Now()))
		e.setOutlets(l)
		l.marking = true
		steps, err := e.routes.Set(ctx, e.parts.input(l))
		e.logSteps(steps)
		e.note("routes", err)
		e.note("device", e.startDevices())
	}
	e.note("resolv.conf", e.setHostDNS())
	e.show(l)
}

// note remembers or forgets a failure.
func (e *engine) note(what string, err error) {
	old, failed := e.failures[what]
	switch {
	case err == nil && failed:
		e.log.Info("works again", "what", what)
		delete(e.failures, what)
	case err != nil && (!failed || old.text != err.Error()):
		e.log.Error(err.Error(), "what", what)
		since := time.Now()
		if failed {
			since = old.since
		}
		e.failures[what] = failure{text: err.Error(), since: since}
	}
}

// live gathers what the wanted state depends on.
func (e *engine) live() live {
	seen := e.routes.Status()
	l := live{
		facts: seen.Facts, marks: e.marks, links: map[routing.Path]link{}, marking: e.table != nil,
		forwards: turnedForwardingOn(seen.State), listen: e.server.Addrs(),
	}
	for p, t := range e.tunnels {
		l.links[p] = link{index: t.index, mtu: t.mtu, up: t.monitor != nil && t.up()}
	}
	return l
}

// publishLive gives the query path what it has to know of the kernel.
func (e *engine) publishLive(l live) {
	var endpoints []netip.Addr
	for _, t := range e.tunnels {
		if t.monitor != nil {
			if a := t.monitor.Status().Endpoint; a.IsValid() {
				endpoints = append(endpoints, a.Addr())
			}
		}
	}
	e.never.Store(e.parts.never(l.facts, endpoints))
	carries := map[routing.Path]bool{routing.Direct: e.parts.carriesV6(l.facts, routing.Direct)}
	for p := range e.tunnels {
		carries[p] = e.parts.carriesV6(l.facts, p)
	}
	e.carries.Store(&carries)
	e.server.Allow(clients(e.parts.Config, l.facts))
}

// listen serves every address that is there. One that is not (yet) is tried
// again when addresses change.
func (e *engine) listen(l live) error {
	return e.server.Listen(listenAddrs(e.parts.Config, l.facts))
}

// setTable gives our table its rules, when they changed or somebody else
// changed it.
func (e *engine) setTable(ctx context.Context, l live) error {
	steps, err := e.table.Set(ctx, e.parts.ruleset(l))
	e.logSteps(steps)
	return err
}

// setOutlets makes the sides' queries go where the tunnels' other traffic does.
func (e *engine) setOutlets(l live) {
	for p, t := range e.tunnels {
		switch {
		case t.monitor == nil || l.links[p].up:
			e.outlets.of(p).set(wayThrough)
		case t.part.WhenDown == configs.WhenDownDirect:
			e.outlets.of(p).set(wayAround)
		default:
			e.outlets.of(p).set(wayBlocked)
		}
	}
}

// restoreTunnels brings every device back to its file.
func (e *engine) restoreTunnels(ctx context.Context) error {
	var errs []error
	for _, t := range e.tunnels {
		steps, err := t.device.Set(ctx, t.part.WG)
		e.logSteps(steps)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// findLinks notes the index of every tunnel's link, and reports whether one is
// gone.
func (e *engine) findLinks() (gone bool) {
	for _, t := range e.tunnels {
		e.watchLink(t)
		gone = gone || t.index == 0
	}
	return gone
}

// startDevices starts what has an index: its link is up by now.
func (e *engine) startDevices() error {
	var errs []error
	for _, t := range e.tunnels {
		if t.index != 0 {
			errs = append(errs, t.device.Up())
		}
	}
	return errors.Join(errs...)
}

func (e *engine) logSteps(steps []routing.Step) {
	for _, s := range steps {
		e.log.Debug("[#] " + s.String())
	}
}

// show publishes what the API may see.
func (e *engine) show(l live) {
	e.shown.Store(&view{
		parts: e.parts, live: l, policy: e.policy, table: e.table,
		tunnels: slices.SortedFunc(maps.Values(e.tunnels), func(a, b *running) int { return e.marks.numbers[a.part.Path] - e.marks.numbers[b.part.Path] }),
		fails:   maps.Clone(e.failures),
	})
}

// reload runs by other parts. What cannot be opened leaves everything as it
// was.
func (e *engine) reload(ctx context.Context, next *Parts) error {
	if len(next.Tunnels) > 0 != e.routed() {
		return errors.New("reloading: the first tunnel came or the last one went; that needs a restart: systemctl restart smartdns")
	}
	numbers, err := routing.Number(paths(next), e.marks.numbers)
	if err != nil {
		return fmt.Errorf("reloading: %w", err)
	}
	m := marks{field: e.marks.field, numbers: numbers}
	pol, err := next.policy(m, e.outlets, e.geo, e.log)
	if err == nil {
		err = next.ownServer(e.routes.Status().Facts)
	}
	if err != nil {
		return fmt.Errorf("reloading: %w", err)
	}
	before, numbered := e.parts, e.marks
	e.parts, e.marks = next, m
	if undo, err := e.changeTunnels(ctx, next); err != nil {
		e.parts, e.marks = before, numbered
		err = errors.Join(fmt.Errorf("reloading: %w", err), undo())
		e.converge(ctx)
		return err
	}
	// Nothing below can fail for a reason that lies in the file.
	e.policy = pol
	e.geo.Swap(next.Geo)
	e.resolver.Swap(pol)
	e.converge(ctx)
	if f, failed := e.failures["listen"]; failed && !slices.Equal(before.Config.Listen.DNS, next.Config.Listen.DNS) {
		return fmt.Errorf("reloading: in force, but %s", f.text)
	}
	return nil
}

// changeTunnels opens, changes and closes tunnels as next says. undo brings
// back what was.
func (e *engine) changeTunnels(ctx context.Context, next *Parts) (undo func() error, err error) {
	var undos []func() error
	undo = func() error {
		var errs []error
		for _, u := range slices.Backward(undos) {
			errs = append(errs, u())
		}
		return errors.Join(errs...)
	}
	kept := map[routing.Path]bool{}
	for _, part := range next.Tunnels {
		kept[part.Path] = true
		old, ok := e.tunnels[part.Path]
		if ok && reflect.DeepEqual(old.part, part) {
			continue
		}
		if ok && old.part.Device == part.Device {
			was := old.part
			if _, err := old.device.Set(ctx, part.WG); err != nil {
				_, back := old.device.Set(ctx, was.WG)
				return undo, errors.Join(err, back)
			}
			undos = append(undos, func() error {
				_, err := old.device.Set(ctx, was.WG)
				old.part = was
				return err
			})
			old.unwatch()
			old.part, old.mtu = part, e.tunnelMTU(part)
			e.monitorTunnel(old)
			continue
		}
		if ok {
			old.unwatch()
			if err := old.device.Close(); err != nil {
				return undo, err
			}
			delete(e.tunnels, part.Path)
		}
		t, err := e.openTunnel(ctx, part)
		if err != nil {
			return undo, err
		}
		e.tunnels[part.Path] = t
		e.monitorTunnel(t)
		undos = append(undos, func() error {
			t.unwatch()
			delete(e.tunnels, part.Path)
			return t.device.Close()
		})
	}
	for p, t := range e.tunnels {
		if !kept[p] {
			t.unwatch()
			delete(e.tunnels, p)
			if err := t.device.Close(); err != nil {
				return undo, err
			}
		}
	}
	return undo, nil
}

func paths(p *Parts) []routing.Path {
	var all []routing.Path
	for _, t := range p.Tunnels {
		all = append(all, t.Path)
	}
	return all
}
