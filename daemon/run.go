package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/mdlayher/sdnotify"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/nft"
	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/server"
	"smartdns/resolver/work"
	"smartdns/routing"
	"smartdns/routing/hostdns"
	"smartdns/routing/linux"
	"smartdns/routing/wg"
	"smartdns/web"
)

// LoadConfig reads the file, or returns the embedded defaults when path is ""
// and DefaultConfig is not there.
func LoadConfig(path string) (*configs.Config, error) {
	if path != "" {
		return configs.Load(path)
	}
	c, err := configs.Load(DefaultConfig)
	if errors.Is(err, os.ErrNotExist) {
		return configs.Default(), nil
	}
	return c, err
}

// Load reads and compiles everything that the options name.
func Load(o Options) (*Parts, error) {
	c, err := LoadConfig(o.Config)
	if err != nil {
		return nil, err
	}
	return CompileStored(c, o.Dirs)
}

const stopTime = 10 * time.Second // for taking everything back

// Run resolves and routes until ctx ends, then removes what is ours from the
// kernel. A Config that does not compile, or anything that cannot be set up,
// is an error, and leaves the kernel as it was. SIGHUP reloads.
func Run(ctx context.Context, o Options) error {
	// From here on SIGHUP does not end us, whatever we are doing.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	program, err := ownProgram()
	if err != nil {
		return err
	}
	had := inherit(o.Dirs, o.Log)
	defer had.close()
	claimed, err := claim(had.take(&had.claim))
	if err != nil {
		return err
	}
	defer claimed.Close()
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit())
	}
	collect := holdCollections()
	defer collect()
	parts, err := Load(o)
	if err != nil {
		collect()
		return stillClosed(ctx, o, err)
	}
	for _, w := range parts.Config.Warnings() {
		o.Log.Warn(w.String())
	}
	locked, err := lock(o.Dirs.Run, had.take(&had.lock))
	if err != nil {
		return err
	}
	defer unlock(o.Dirs.Run, locked)
	control, err := takeControl(o.Dirs.Run, had.take(&had.control))
	if err != nil {
		return err
	}
	defer control.Close()
	e, err := newEngine(o, parts)
	if err != nil {
		return err
	}
	defer e.kernel.Close()
	e.place = place{program: program, had: had, held: []held{claimed, locked, control}, asked: make(chan restart), hup: hup}
	return e.run(ctx, control, hup, collect)
}

func newEngine(o Options, parts *Parts) (*engine, error) {
	if err := os.MkdirAll(o.Dirs.State, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	endpoints, err := wg.OpenStore(filepath.Join(o.Dirs.State, endpointsName), o.Log)
	if err != nil {
		return nil, err
	}
	kernel, err := linux.Open(filepath.Join(o.Dirs.Run, sysctlsName))
	if err != nil {
		return nil, err
	}
	e := &engine{opts: o, log: o.Log, started: time.Now(), parts: parts, wake: make(chan struct{}, 1), reloads: make(chan reload)}
	e.kernel, e.links = kernel, kernel
	e.routes = routing.NewReconciler(kernel, o.Log)
	e.tunnels = map[routing.Path]*running{}
	e.outlets = outlets{}
	e.failures = map[string]failure{}
	e.cache = cache.New(cacheSize(parts.Config) / 2)
	e.sealed = cache.NewSealed(cacheSize(parts.Config)/2, &cache.Generation{})
	e.geo = geo.NewHandle(parts.Geo)
	e.endpoints = endpoints
	e.verdicts = openVerdicts(o.Dirs.State, o.Log)
	e.identity = newIdentity(o)
	e.clock.open(o)
	e.hostDNS = hostResolver{opts: o, wake: e.poke}
	return e, nil
}

// Names of our files.
const (
	sysctlsName   = "sysctls.json"   // in the run directory: values from before us
	endpointsName = "endpoints.json" // in the state directory: endpoint addresses that worked
)

// run brings everything up, calls ready, serves until ctx ends, and takes
// everything back.
func (e *engine) run(ctx context.Context, control net.Listener, hup <-chan os.Signal, ready func()) error {
	// The parts must outlive ctx by the time that taking them back needs.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	e.ctx = life
	have, l, err := e.observe(life)
	if err != nil {
		return err // nothing was touched: what a crash left closed stays closed
	}
	err = e.bringUp(life, have, l)
	if err != nil && e.routed() && !e.strict() && len(have.Rules) > 0 {
		return errors.Join(err, e.letGo()) // what a crash left closed stays closed
	}
	if err == nil {
		err = e.serve(ctx, control, hup, ready)
	}
	stop, cancel := context.WithTimeout(life, stopTime)
	defer cancel()
	down := e.takeDown(stop)
	if errors.Is(err, os.ErrPermission) && errors.Is(down, os.ErrPermission) {
		down = nil // for want of the same right, as err says
	}
	return errors.Join(err, down)
}

// serve runs the long-lived tasks until ctx ends or one of them fails.
func (e *engine) serve(ctx context.Context, control net.Listener, hup <-chan os.Signal, ready func()) error {
	g, inner := errgroup.WithContext(ctx)
	e.openUpdates(inner)
	e.setUpdates()
	g.Go(func() error { return e.data.updates.Run(inner) })
	g.Go(func() error { return e.routes.Run(inner) })
	g.Go(func() error { e.loop(inner); return nil })
	g.Go(func() error { e.clock.run(inner, e.clockChanged); return nil })
	g.Go(func() error { return serveControl(inner, control, web.Handler(e.source())) })
	g.Go(func() error { e.followSignals(inner, hup); return nil })
	g.Go(func() error { e.verdicts.run(inner); return nil })
	g.Go(func() error { e.kept.run(inner); return nil })
	g.Go(func() error {
		followCache(inner, func() int { return e.cache.Stats().Bytes + e.sealed.Stats().Bytes })
		return nil
	})
	g.Go(func() error {
		watchFlows(inner, func() flows { return readFlows(conntrackDir) }, e.log)
		return nil
	})
	now := e.status(inner)
	for _, c := range now.Conditions {
		var fix []any
		if c.Fix != "" {
			fix = []any{"fix", c.Fix}
		}
		e.log.Warn(c.What, fix...)
	}
	e.log.Info("ready: "+now.Summary, "listen", fmt.Sprint(e.server.Addrs()))
	ready()
	g.Go(func() error { giveBack(e.log); return nil })
	e.notify(sdnotify.Ready, sdnotify.Statusf("%s", now.Summary))
	defer e.notify(sdnotify.Stopping)
	return g.Wait()
}

func (e *engine) notify(states ...string) { notifyManager(e.log, states...) }

// notifyManager tells the service manager, where there is one.
func notifyManager(log *slog.Logger, states ...string) {
	n, err := sdnotify.New()
	if err != nil {
		return // nobody asked to be told
	}
	defer n.Close()
	if err := n.Notify(states...); err != nil {
		log.Debug("the service manager was not told", "err", err)
	}
}

// watchdog tells a service manager that wants to know (WatchdogSec=) that the
// loop goes around.
func (e *engine) watchdog() {
	if os.Getenv("WATCHDOG_USEC") != "" {
		e.notify("WATCHDOG=1")
	}
}

// followSignals reloads at SIGHUP.
func (e *engine) followSignals(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			// systemd's notify-reload: it waits for the second READY.
			e.notify(sdnotify.Reloading, monotonic())
			if err := e.requestReload(ctx); err != nil {
				e.log.Error("the configuration stays as it was: " + err.Error())
			} else {
				e.log.Info("reloaded")
			}
			e.notify(sdnotify.Ready)
		}
	}
}

// monotonic is the time at which a reload began (sd_notify(3)).
func monotonic() string {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail with this clock
	return fmt.Sprintf("MONOTONIC_USEC=%d", t.Nano()/1000)
}

// requestReload compiles the file anew, and has the loop run by it.
func (e *engine) requestReload(ctx context.Context) error {
	e.data.reloading.Lock()
	defer e.data.reloading.Unlock()
	return e.runBy(ctx, func() (*Parts, error) { return Load(e.opts) })
}

// observe looks at the kernel and makes what can be made without touching it.
func (e *engine) observe(ctx context.Context) (routing.State, live, error) {
	have, facts, err := e.routes.Look(ctx)
	if err != nil {
		return have, live{}, err
	}
	if err := errors.Join(e.parts.ownServer(facts), e.refuseToOpen(ctx, e.parts)); err != nil {
		return have, live{}, err
	}
	kept, err := keptNumbers(numbersFile(e.opts.Dirs).load)
	if err != nil {
		e.log.Warn("the tunnels may get other numbers: " + err.Error())
	}
	numbers, err := routing.Number(paths(e.parts), shownNumbers(kept, have))
	if err != nil {
		return have, live{}, err
	}
	e.marks = marks{field: routing.DefaultField, numbers: numbers}
	if e.sides, err = e.asking(e.marks).sides(e.parts.Config, nil); err != nil {
		return have, live{}, err
	}
	e.policy = e.parts.policy(e.sides, e.geo)
	if e.policy.Views, e.who.views, err = e.parts.views(1); err != nil {
		return have, live{}, err
	}
	l := live{facts: facts, marks: e.marks, links: map[routing.Path]link{}, forwards: e.parts.opens(have)}
	// Clients whose questions come to us go on to do so.
	l.listen = e.place.had.listens(listenAddrs(e.parts.Config, facts))
	// What a killed run left locked stays locked until our table decides.
	l.marking, l.locked, l.waiting = len(have.Rules) > 0, have.Locked(), e.clock.waiting()
	for _, p := range paths(e.parts) {
		// Not known to be down: a flow of before waits for the tunnel, and none
		// goes around it.
		l.links[p] = link{up: true}
		if _, ours := have.Numbers()[p]; !ours {
			continue
		}
		// A kernel device of ours outlives us: with its index, its routes stay.
		// So does one that was handed to us.
		if index, kind, err := e.kernel.LinkIndex(string(p)); err == nil && (kind == kindWireGuard || e.place.had.holds(p)) {
			l.links[p] = link{index: index, mtu: mtuOf(facts, index), up: true}
		}
	}
	return have, l, nil
}

// kindWireGuard is what the kernel calls its WireGuard links.
const kindWireGuard = "wireguard"

// bringUp is the order of KERNEL: what locks, our table, links, routes and
// rules, listeners, and only then the redirect of other people's DNS to them.
func (e *engine) bringUp(ctx context.Context, have routing.State, l live) error {
	e.place.had.keepTunnels(paths(e.parts))
	if err := e.removeLeft(ctx, have); err != nil {
		return err
	}
	e.show(l) // what is read from here on finds a view
	if e.routed() {
		if err := e.bringUpKernel(ctx, &l); err != nil {
			return err
		}
		for _, t := range e.tunnels {
			e.monitorTunnel(t)
		}
	}
	e.bringUpQueries()
	e.publishLive(l)
	if err := e.setAccess(l.facts); err != nil {
		return err
	}
	e.show(l)
	if err := e.listen(l); err != nil && (len(e.server.Addrs()) == 0 || !tolerable(err)) {
		return err
	}
	if err := e.listenSecure(l); err != nil && !tolerable(err) {
		return err
	}
	e.tookOver()
	e.converge(ctx)
	return nil
}

// removeLeft removes what a killed run left and this one does not want: all of
// it without a tunnel, else the kernel's devices of other names.
func (e *engine) removeLeft(ctx context.Context, have routing.State) error {
	for p := range have.Numbers() {
		if _, kind, err := e.kernel.LinkIndex(string(p)); err == nil && kind == kindWireGuard && !contains(paths(e.parts), p) {
			if err := e.kernel.DeleteLink(string(p)); err != nil {
				return err
			}
		}
	}
	if e.routed() || reflect.DeepEqual(have, routing.State{}) {
		return nil
	}
	steps, err := removeAll(ctx, e.routes)
	e.logSteps(steps)
	return errors.Join(err, forgetNumbers(e.opts.Dirs))
}

// removeAll removes our table, whoever left it, and all that is ours in the
// kernel's routing.
func removeAll(ctx context.Context, routes *routing.Reconciler) ([]routing.Step, error) {
	var all []routing.Step
	err := withTable(ctx, func(t *nft.Table) error {
		steps, err := t.Delete(ctx)
		all = append(all, steps...)
		return err
	})
	steps, rerr := routes.Set(ctx, routing.Input{})
	return append(all, steps...), errors.Join(err, rerr)
}

// tolerable reports whether listening failed only on addresses that are not
// there (yet), or on the port for redirected queries, which port 53 can stand in
// for; or whether files of records cannot be read again, or another program
// keeps this host from asking us.
func tolerable(err error) bool {
	if errors.Is(err, errRecordsKept) || errors.Is(err, hostdns.ErrContested) {
		return true
	}
	for _, err := range unjoin(err) {
		l, ok := errors.AsType[*server.ListenError](err)
		if !ok || l.Addr.Port() != redirectPort && !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EAFNOSUPPORT) {
			return false
		}
	}
	return true
}

func unjoin(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

func (e *engine) bringUpKernel(ctx context.Context, l *live) error {
	if e.strict() {
		if err := keepClosed(e.opts.Dirs); err != nil {
			return err
		}
	}
	if err := saveNumbers(e.opts.Dirs, e.marks.numbers); err != nil {
		return err
	}
	if _, err := e.routes.Set(ctx, e.parts.input(*l)); err != nil {
		return err
	}
	mode := nft.Owned
	if e.parts.Config.Routing.Table == configs.TableShared {
		mode = nft.Shared
	}
	table, err := nft.Open(ctx, nft.Options{Mode: mode, Logger: e.log})
	if err != nil {
		return err
	}
	e.table = table
	if err := e.setTable(ctx, *l); err != nil {
		return err
	}
	for _, part := range e.parts.Tunnels {
		t, err := e.openTunnel(ctx, part)
		if err != nil {
			return err
		}
		e.tunnels[part.Path] = t
		l.links[part.Path] = e.linkOf(t, true)
	}
	l.marking, l.locked = true, false
	if _, err := e.routes.Set(ctx, e.parts.input(*l)); err != nil {
		return err
	}
	if err := e.startDevices(); err != nil {
		return err
	}
	l.facts = e.routes.Status().Facts
	return e.raise(ctx)
}

func (e *engine) bringUpQueries() {
	p := resolver.Paths{
		Never: e.neverReason,
	}
	lane := server.Lane{Sealed: e.sealed}
	if mode := e.parts.Config.Routing.Mode; e.routed() && mode.Marks() {
		lane.Watch = func() (server.Watch, error) { return e.table.Watch() }
		p.Marker = e.table.Marker()
		p.StaticAgrees = e.staticAgrees
	} else if e.routed() || mode == configs.ModeOff {
		p.Unmarked = fmt.Sprintf("[routing] mode = %q marks nothing", mode)
	}
	if e.routed() {
		p.CanV6 = func(path routing.Path) bool { return (*e.carries.Load())[path] }
	}
	e.resolver = resolver.New(resolver.Config{
		Policy: e.policy, Cache: e.cache, Sealed: e.sealed, Learned: e.verdicts.learned, Paths: p, Log: e.log,
		Go: new(work.Crew).Go, // for as long as the process runs
	})
	e.kept = openKept(e.resolver, e.opts.Dirs.State, e.log)
	e.kept.load(e.parts.Config.Cache.Save)
	e.server = server.New(answerer{e.resolver, &e.who, &e.portal}, server.DefaultLimits(), e.log)
	e.server.SetLane(lane)
	e.server.Give(e.place.had.takeSockets())
}

// staticAgrees reports whether an address leaves by path although it was not
// marked just now: no mark of before sends it elsewhere.
func (e *engine) staticAgrees(a netip.Addr, path routing.Path) bool {
	if e.table.Ledger().Elsewhere(a, path) {
		return false
	}
	p, _ := e.shown.Load().parts.pathOf(e.geo.Classify(a), a)
	return p == path
}

// letGo ends what a failed start opened, and leaves the kernel's locks as they
// are.
func (e *engine) letGo() error {
	errs := []error{e.hostDNS.restore()}
	if e.server != nil {
		e.server.Close()
		_ = e.who.follow(false) // a socket that only read
	}
	for _, t := range e.tunnels {
		errs = append(errs, e.closeTunnel(t))
	}
	if e.table != nil {
		errs = append(errs, e.table.Close())
	}
	return errors.Join(errs...)
}

// takeDown is bringUp in reverse, of as much of it as there is. With strict it
// is what Lockdown does.
func (e *engine) takeDown(ctx context.Context) error {
	if e.strict() {
		return e.lockDown(ctx)
	}
	return e.undo(ctx)
}

// undo takes everything back.
func (e *engine) undo(ctx context.Context) error {
	var errs []error
	collect := func(err error) { errs = append(errs, err) }
	collect(e.hostDNS.restore())
	if e.table != nil && e.server != nil {
		l := e.live()
		l.listen = nil
		_, err := e.table.Set(ctx, e.parts.ruleset(l))
		collect(err)
	}
	if e.server != nil {
		e.server.Close()
		_ = e.who.follow(false) // a socket that only read
	}
	for _, t := range e.tunnels {
		collect(e.closeTunnel(t))
	}
	if !e.routed() {
		return errors.Join(errs...)
	}
	if e.table != nil {
		// The owner's socket is the only one that may.
		_, err := e.table.Delete(ctx)
		collect(errors.Join(err, e.table.Close()))
	}
	// Who may not remove anything has not made anything, and has said so.
	if _, err := removeAll(ctx, e.routes); !errors.Is(err, os.ErrPermission) {
		collect(err)
	}
	collect(forgetNumbers(e.opts.Dirs))
	return errors.Join(errs...)
}
