// Package routingtest is a kernel in memory for tests of what uses routing.
package routingtest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"smartdns/routing"
)

// Kernel is a routing.Kernel in memory. The zero value is a kernel without
// links; it is safe for concurrent use.
type Kernel struct {
	// Refuse, if set, is asked before each step; what it returns is the step's
	// error.
	Refuse func(routing.Step) error

	once   sync.Once
	events chan struct{}

	mu      sync.Mutex // guards following
	state   routing.State
	facts   routing.Facts
	was     map[string]string // sysctls of the host before us
	applied []routing.Step
}

var _ routing.Kernel = (*Kernel)(nil)

// New returns a Kernel that shows facts.
func New(facts routing.Facts) *Kernel { return &Kernel{facts: facts} }

// Edit changes the kernel as somebody else would, and sends an event. The
// slices of State and Facts must be replaced, not written to.
func (k *Kernel) Edit(f func(*routing.State, *routing.Facts)) {
	k.mu.Lock()
	f(&k.state, &k.facts)
	k.mu.Unlock()
	k.notify()
}

// Applied returns the steps that were made since the last call.
func (k *Kernel) Applied() []routing.Step {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.applied
	k.applied = nil
	return a
}

// Close ends the events.
func (k *Kernel) Close() error {
	k.Events()
	close(k.events)
	return nil
}

// Events implements routing.Kernel.
func (k *Kernel) Events() <-chan struct{} {
	k.once.Do(func() { k.events = make(chan struct{}, 1) })
	return k.events
}

func (k *Kernel) notify() {
	k.Events()
	select {
	case k.events <- struct{}{}:
	default:
	}
}

// Observe implements routing.Kernel.
func (k *Kernel) Observe(ctx context.Context, devices []int) (routing.State, routing.Facts, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.state
	s.Links = nil
	var names []string
	for _, l := range k.facts.Links {
		used := func(r routing.Route) bool {
			return r.Dev == l.Name && r.Protocol == routing.Protocol && r.Table != routing.TableWays
		}
		if slices.Contains(devices, l.Index) || slices.ContainsFunc(s.Routes, used) {
			s.Links = append(s.Links, l.Link)
			names = append(names, l.Name)
		}
	}
	s.Addrs = nil
	for _, a := range k.state.Addrs {
		if slices.Contains(names, a.Dev) {
			s.Addrs = append(s.Addrs, a)
		}
	}
	s.Routes, s.Rules, s.Sysctls = slices.Clone(s.Routes), slices.Clone(s.Rules), slices.Clone(s.Sysctls)
	s.Sort()
	f := k.facts
	f.Links = slices.Clone(f.Links)
	return s, f, ctx.Err()
}

// Apply implements routing.Kernel.
func (k *Kernel) Apply(ctx context.Context, steps []routing.Step) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.notify()
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if k.Refuse != nil {
			if err := k.Refuse(s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		k.applied = append(k.applied, s)
		k.step(s)
	}
	return nil
}

func (k *Kernel) step(step routing.Step) {
	s := &k.state
	switch c := step.(type) {
	case routing.AddRule:
		s.Rules = add(s.Rules, c.Rule)
	case routing.DelRule:
		s.Rules = del(s.Rules, c.Rule)
	case routing.ReplaceRoute:
		s.Routes = slices.DeleteFunc(slices.Clone(s.Routes), func(r routing.Route) bool {
			return r.Table == c.Route.Table && r.Dst == c.Route.Dst && r.Metric == c.Route.Metric
		})
		s.Routes = append(s.Routes, c.Route)
	case routing.DelRoute:
		s.Routes = del(s.Routes, c.Route)
	case routing.AddAddr:
		s.Addrs = add(s.Addrs, c.Addr)
	case routing.DelAddr:
		s.Addrs = del(s.Addrs, c.Addr)
	case routing.RenameLink:
		k.rename(c.From, c.To)
	case routing.SetMTU:
		k.link(c.Dev, func(l *routing.Iface) { l.MTU = c.MTU })
	case routing.SetLinkUp:
		k.link(c.Dev, func(l *routing.Iface) { l.Up = true })
	case routing.SetSysctl:
		was := k.was[c.Key]
		if i := slices.IndexFunc(s.Sysctls, func(v routing.Sysctl) bool { return v.Key == c.Key }); i >= 0 {
			was = s.Sysctls[i].Was
			s.Sysctls = slices.Delete(slices.Clone(s.Sysctls), i, i+1)
		}
		s.Sysctls = append(slices.Clone(s.Sysctls), routing.Sysctl{Key: c.Key, Value: c.Value, Was: was})
	case routing.RestoreSysctl:
		s.Sysctls = slices.DeleteFunc(slices.Clone(s.Sysctls), func(v routing.Sysctl) bool { return v.Key == c.Key })
	default:
		panic(fmt.Sprintf("routingtest: unknown step %T", step))
	}
}

// SetHost sets what a sysctl had before us.
func (k *Kernel) SetHost(key, value string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.was == nil {
		k.was = map[string]string{}
	}
	k.was[key] = value
}

func (k *Kernel) rename(from, to string) {
	k.link(from, func(l *routing.Iface) { l.Name = to })
	s := &k.state
	s.Addrs, s.Routes = slices.Clone(s.Addrs), slices.Clone(s.Routes)
	for i := range s.Addrs {
		if s.Addrs[i].Dev == from {
			s.Addrs[i].Dev = to
		}
	}
	for i := range s.Routes {
		if s.Routes[i].Dev == from {
			s.Routes[i].Dev = to
		}
	}
}

func (k *Kernel) link(name string, f func(*routing.Iface)) {
	k.facts.Links = slices.Clone(k.facts.Links)
	for i := range k.facts.Links {
		if k.facts.Links[i].Name == name {
			f(&k.facts.Links[i])
			return
		}
	}
}

func add[T comparable](s []T, v T) []T {
	if slices.Contains(s, v) {
		return s
	}
	return append(slices.Clone(s), v)
}

func del[T comparable](s []T, v T) []T {
	return slices.DeleteFunc(slices.Clone(s), func(e T) bool { return e == v })
}
