package daemon

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"sync/atomic"
	"time"

	"smartdns/geo"
	"smartdns/nft"
	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/server"
	"smartdns/routing"
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
	who  who
	data dataSide

	drifted atomic.Bool   // a tunnel's device is not as we left it
	wake    chan struct{} // something may have changed
	reloads chan reload
	shown   atomic.Pointer[view]
}

// kernelSide is what we own in the kernel.
type kernelSide struct {
	kernel    *linux.Kernel
	links     wg.Links // the kernel's, but in tests
	routes    *routing.Reconciler
	table     *nft.Table
	tunnels   map[routing.Path]*running
	endpoints *wg.Store
	hostDNS   hostResolver
	failures  map[string]failure
	contest   contest
	noticed   noticed
	clock     timekeeper
	offloads  *bool // whether the kernel has flowtables; nil: nobody has asked it
	portal    portal
	place     place
}

// failure is something that did not work, until it does.
type failure struct {
	text, severity string
	since          time.Time
}

// querySide is what queries go through.
type querySide struct {
	server   *server.Server
	resolver *resolver.Resolver
	cache    *cache.Cache
	sealed   *cache.Sealed
	kept     *keptAnswers
	geo      *geo.Handle
	never    atomic.Pointer[neverMark]
	carries  atomic.Pointer[map[routing.Path]bool] // IPv6
	policy   *resolver.Policy
	sides    builtSides
	outlets  outlets
	verdicts *verdictStore
	servers  foundServers
	identity *identity
}

// view is what the API shows of the loop's state: a value nobody changes.
type view struct {
	parts   *Parts
	live    live
	tunnels []shownTunnel // those of the file, in its order
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
			e.sealed.Generation().Advance()
			if d := e.contest.changed(time.Now()); d > 0 {
				pause = time.After(d)
			} else {
				e.log.Warn("somebody changed our nftables table; putting it back")
			}
		case <-pause:
			pause = nil
			continue
		case <-retry.C:
			e.watchdog()
			if !e.followRecords(ctx) && !e.failing() && !e.returning() {
				continue
			}
		case r := <-e.reloads:
			r.done <- e.reload(ctx, r.parts)
			continue
		case r := <-e.place.asked:
			r.failed <- e.replace(ctx)
			continue
		}
		e.converge(ctx)
	}
}

// converge brings everything to what parts, kernel and tunnels now ask for. A
// part that fails is a failure until it works; the others go on.
func (e *engine) converge(ctx context.Context) {
	e.followClock()
	if e.routed() {
		e.syncTunnels(ctx)
	}
	l := e.live()
	e.publishLive(l)
	e.note(ctx, "clients", e.setAccess(l.facts))
	e.note(ctx, "listen", e.listen(l))
	e.note(ctx, "dot and doh", e.listenSecure(l))
	e.note(ctx, "certificate", e.identity.problem())
	l.listen = e.server.Addrs()
	if e.routed() {
		e.note(ctx, "nft", e.setTable(ctx, l))
		e.note(ctx, "contest", e.contest.err(time.Now()))
		e.setOutlets(l)
		e.tellCarriers(l)
		l.marking = true
		steps, err := e.routes.Set(ctx, e.parts.input(l))
		e.logSteps(steps)
		e.note(ctx, "routes", err)
		e.note(ctx, "device", e.startDevices())
		e.note(ctx, "hooks", e.raise(ctx))
	}
	e.note(ctx, "resolv.conf", e.hostDNS.follow(e.parts.Config.Listen.System, e.server.Addrs(), e.hostLink(l)))
	e.show(l)
}

// note remembers or forgets a failure. What fails because we are stopping is
// none.
func (e *engine) note(ctx context.Context, what string, err error) {
	old, failed := e.failures[what]
	switch {
	case ctx.Err() != nil:
	case err == nil && failed:
		e.log.Info("works again", "what", what)
		delete(e.failures, what)
	case err != nil && (!failed || old.text != err.Error()):
		f := failure{text: err.Error(), severity: severityError, since: time.Now()}
		if tolerable(err) {
			f.severity = severityWarning
		}
		e.log.Log(ctx, map[string]slog.Level{severityError: slog.LevelError, severityWarning: slog.LevelWarn}[f.severity], f.text, "what", what)
		if failed {
			f.since = old.since
		}
		e.failures[what] = f
	}
}

// failing reports whether something has to be tried again without being asked.
func (e *engine) failing() bool {
	for _, f := range e.failures {
		if f.severity == severityError {
			return true
		}
	}
	return false
}

// live gathers what the wanted state depends on.
func (e *engine) live() live {
	seen := e.routes.Status()
	l := live{
		facts: seen.Facts, marks: e.marks, links: map[routing.Path]link{}, marking: e.table != nil, waiting: e.clock.waiting(),
		forwards: turnedForwardingOn(seen.State), listen: e.server.Addrs(), offloads: e.canOffload(),
	}
	in := e.inUse(time.Now())
	for p, t := range e.tunnels {
		l.links[p] = e.linkOf(t, in(p))
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
	pending := e.servers.addrs.Load()
	never := e.neverNow(l, endpoints)
	carries := map[routing.Path]bool{routing.Direct: e.parts.carriesV6(l.facts, routing.Direct)}
	for p := range e.tunnels {
		carries[p] = e.parts.carriesNow(l, p)
	}
	wasNever, wasCarries := e.never.Swap(never), e.carries.Swap(&carries)
	if wasNever != nil && !(wasNever.reasons.Equal(&never.reasons) && maps.Equal(*wasCarries, carries)) {
		e.sealed.Generation().Advance()
	}
	// What was found meanwhile stays for the next time.
	e.servers.addrs.CompareAndSwap(pending, nil)
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
	if len(steps) > 0 {
		e.sealed.Generation().Advance()
	}
	return err
}

// setOutlets makes the sides' queries go where the tunnels' other traffic does.
func (e *engine) setOutlets(l live) {
	for _, p := range paths(e.parts) {
		way := outletWay{by: e.parts.via(l, p)}
		if way.by != "" {
			way.mark = e.marks.of(way.by)
		}
		e.outlets.of(p).set(way)
	}
	if e.data.updates != nil {
		e.data.updates.Poke()
	}
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
		tunnels: e.shownTunnels(), fails: maps.Clone(e.failures),
	})
}
