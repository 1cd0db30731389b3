package daemon

import (
	"context"
	"errors"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/geo/update"
	"smartdns/resolver"
	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// dataSide keeps lists fresh, and puts what was fetched in use.
type dataSide struct {
	updates *update.Updater

	reloading sync.Mutex    // one file or set of lists is compiled and run by at a time
	wanted    atomic.Uint64 // how often somebody wanted the stored lists in use
	done      swapped       // guarded by reloading
}

// swapped says which of these wants were met, and how it went.
type swapped struct {
	upTo uint64
	err  error
}

// openUpdates makes the updater. Its work ends with life.
func (e *engine) openUpdates(life context.Context) {
	e.data.updates = update.New(life, update.Options{
		Dir: listsDir(e.opts.Dirs), Changed: e.swapLists, Now: e.clock.Now, Log: e.log,
		Private: func(a netip.Addr) bool {
			kind, _ := geo.Special(a)
			return kind != geo.NotSpecial
		},
	})
}

// swapLists runs by the configuration of now with the lists that are stored now.
// The file on disk is not read: somebody may be writing it. Calls that come
// while one is at work are all met by the next.
func (e *engine) swapLists(ctx context.Context) error {
	d := &e.data
	want := d.wanted.Add(1)
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.done.upTo >= want {
		return d.done.err
	}
	d.done.upTo = d.wanted.Load()
	d.done.err = e.runBy(ctx, func() (*Parts, error) { return CompileStored(e.shown.Load().parts.Config, e.opts.Dirs) })
	return d.done.err
}

// runBy has the loop run by other parts. The caller holds e.data.reloading.
func (e *engine) runBy(ctx context.Context, compile func() (*Parts, error)) error {
	parts, err := compile()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	select {
	case e.reloads <- reload{parts, done}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer debug.FreeOSMemory() // of what ran until now
	return <-done
}

// setUpdates says to the updater what the parts want fetched.
func (e *engine) setUpdates() {
	if e.data.updates == nil {
		return // not serving yet
	}
	all := e.parts.fetched()
	for i := range all {
		all[i].Path = e.updatePath(routing.Path(all[i].Path.Name))
	}
	e.data.updates.Set(all)
}

// updatePath is how mirrors are reached over a path, and where they are asked
// for: at servers that are asked over the same path. While a tunnel is down
// another one may stand in; nothing of it goes direct, whatever its when_down
// says.
func (e *engine) updatePath(via routing.Path) update.Path {
	dial := dialer(e.marks.of(via))
	open := func() bool { return true }
	if via.IsTunnel() {
		out := e.outlets.of(via)
		dial, open = out.dial(dial, dialer, false), out.open
	}
	parts := e.parts
	var own []upstream.Exchanger // of sides on this path, the foreign one first
	for _, s := range parts.Config.Sides {
		if s.Via == via {
			own = append(own, e.sides[s.Name].servers)
			if s.Name == resolver.Foreign {
				own[0], own[len(own)-1] = own[len(own)-1], own[0]
			}
		}
	}
	lookup := func(ctx context.Context, host string) ([]netip.Addr, error) {
		var errs []error
		ask := func(ex upstream.Exchanger) []netip.Addr {
			ctx, cancel := context.WithTimeout(ctx, lookupTime)
			defer cancel()
			addrs, err := lookupHost(ctx, ex, host)
			errs = append(errs, err)
			// What is forged is never where a mirror is.
			return slices.DeleteFunc(addrs, func(a netip.Addr) bool { return parts.Forged.Contains(a) })
		}
		if !via.IsTunnel() || len(own) == 0 {
			// Nobody on this way can forge what an encrypted server says.
			keep := func(s configs.Server) bool { return via.IsTunnel() || s.Scheme.Encrypted() }
			if ex := parts.servers(resolver.Foreign, keep, dial, e.clock.Now); ex != nil {
				addrs := ask(ex)
				upstream.Drain(ex)
				if len(addrs) > 0 {
					return addrs, nil
				}
			}
		}
		for _, ex := range own {
			if addrs := ask(ex); len(addrs) > 0 {
				return addrs, nil
			}
		}
		return nil, errors.Join(errs...)
	}
	return update.Path{Name: string(via), Lookup: lookup, Dial: dial, Open: open}
}

// lookupTime is how long one group of servers may take to say where a mirror is.
const lookupTime = 4 * time.Second

// summary says what a list amounts to as whoever uses it reads it, from a file
// in the place of its own. An error says why it cannot be used.
func (p *Parts) summary(x configs.List, path string) (update.Summary, error) {
	l := newLists(p.Config, copies{x.Name: {path: path}}, newLineGuard(p.Config, p.Tunnels))
	home, err := l.read(x.Name)
	if err != nil {
		return update.Summary{}, err
	}
	s := l.status[x.Name]
	return update.Summary{Kind: s.Kind, Entries: s.Entries, Dropped: s.Dropped, First: s.FirstDropped, Addresses: home}, nil
}

// read reads a list in every way in which it is used; one that nobody uses, in
// the way that fits it. Home is how many v4 addresses it says are at home, 0 for
// a list that nobody asks about that.
func (l *lists) read(name string) (home uint64, err error) {
	u := l.uses(l.find(name))
	var errs []error
	if u.names {
		errs = append(errs, l.readNames(name))
	}
	if u.addresses {
		_, err := l.prefixes(name)
		errs = append(errs, err)
	}
	if u.geo {
		home, err = l.homeOf(name)
		errs = append(errs, err)
	}
	if u != (uses{}) {
		return home, errors.Join(errs...)
	}
	if err = l.readNames(name); err == nil {
		return 0, nil
	}
	if _, e := l.prefixes(name); e == nil {
		return 0, nil
	}
	if _, e := l.homeOf(name); e == nil {
		return 0, nil
	}
	return 0, err
}

// uses says what a list is used for.
type uses struct{ names, addresses, geo bool }

func (l *lists) uses(x configs.List) uses {
	c := l.config
	return uses{
		names: slices.ContainsFunc(c.Decide.Names, func(r configs.NameRule) bool {
			return slices.ContainsFunc(r.Match, func(m configs.NameMatch) bool { return m.Kind == configs.MatchList && m.Text == x.Name })
		}),
		addresses: slices.Contains(c.Poison.Bogus, x.Name) || slices.ContainsFunc(c.Decide.Addresses, func(r configs.AddressRule) bool {
			return slices.ContainsFunc(r.Match, func(m configs.AddressMatch) bool { return m.Kind == configs.AddrList && m.List == x.Name })
		}),
		geo: slices.Contains(c.Geo.Sources, x.Name),
	}
}

func (l *lists) readNames(name string) error {
	var failed error
	for range l.names(name, &failed) {
	}
	return failed
}

// homeOf returns how many v4 addresses a source of [geo] says are at home.
func (l *lists) homeOf(name string) (uint64, error) {
	b := geo.NewBuilder(l.config.Decide.Home)
	if err := l.addSource(b, name); err != nil {
		return 0, err
	}
	v4, _ := b.Table().Home()
	var n uint64
	for _, p := range v4 {
		n += 1 << (32 - p.Bits())
	}
	return n, nil
}
