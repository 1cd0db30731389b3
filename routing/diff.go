package routing

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Diff returns the steps that turn have into want, in an order that is safe at
// every point: first what locks, then the links, the routes and the rules that
// lead into them, then what is new for the rest of the host; then it takes away,
// in reverse, what locks last. Teardown is Diff(State{}, have).
func Diff(want, have State) []Step {
	renames, have := rename(want, have)
	newRules, oldRules := difference(want.Rules, have.Rules)
	newRoutes, oldRoutes := difference(want.Routes, have.Routes)
	newAddrs, oldAddrs := difference(want.Addrs, have.Addrs)
	set, restore := diffSysctls(want.Sysctls, have.Sysctls)
	ofLink := func(key string) bool {
		return slices.ContainsFunc(want.Links, func(l Link) bool { return strings.Contains(key, "/conf/"+l.Name+"/") })
	}

	var up []Step
	each(&up, newRules, Rule.locks, func(r Rule) Step { return AddRule{r} })
	each(&up, newRoutes, Route.locks, func(r Route) Step { return ReplaceRoute{r} })
	up = append(up, renames...)
	// The MTU comes first: the kernel has no IPv6 on a link with less than 1280.
	each(&up, want.Links, wrongMTU(have), func(l Link) Step { return SetMTU{l.Name, l.MTU} })
	each(&up, set, func(s Sysctl) bool { return ofLink(s.Key) }, func(s Sysctl) Step { return SetSysctl{s.Key, s.Value} })
	each(&up, newAddrs, nil, func(a Addr) Step { return AddAddr{a} })
	each(&up, want.Links, isDown(have), func(l Link) Step { return SetLinkUp{l.Name} })
	each(&up, newRoutes, not(Route.locks), func(r Route) Step { return ReplaceRoute{r} })
	each(&up, newRules, not(Rule.locks), func(r Rule) Step { return AddRule{r} })
	each(&up, set, func(s Sysctl) bool { return !ofLink(s.Key) && !s.forwards() }, func(s Sysctl) Step { return SetSysctl{s.Key, s.Value} })
	each(&up, set, Sysctl.forwards, func(s Sysctl) Step { return SetSysctl{s.Key, s.Value} })

	var down []Step
	each(&down, restore, Sysctl.forwards, func(s Sysctl) Step { return RestoreSysctl{s.Key, s.Was} })
	each(&down, restore, not(Sysctl.forwards), func(s Sysctl) Step { return RestoreSysctl{s.Key, s.Was} })
	slices.Reverse(oldRules)
	each(&down, oldRules, not(Rule.locks), func(r Rule) Step { return DelRule{r} })
	each(&down, oldAddrs, nil, func(a Addr) Step { return DelAddr{a} })
	oldRoutes = unreplaced(oldRoutes, newRoutes)
	// Of two locks, the one that holds the other goes last.
	locks := slices.DeleteFunc(slices.Clone(oldRoutes), not(Route.locks))
	slices.SortStableFunc(locks, func(a, b Route) int { return cmp.Compare(b.Dst.Bits(), a.Dst.Bits()) })
	each(&down, oldRoutes, not(Route.locks), func(r Route) Step { return DelRoute{r} })
	each(&down, locks, nil, func(r Route) Step { return DelRoute{r} })
	each(&down, oldRules, Rule.locks, func(r Rule) Step { return DelRule{r} })
	return append(up, down...)
}

// unreplaced returns the old routes in whose place no new one has come.
func unreplaced(old, added []Route) []Route {
	type place struct {
		table  uint32
		dst    netip.Prefix
		metric uint32
	}
	taken := make(map[place]bool, len(added))
	for _, r := range added {
		taken[place{r.Table, r.Dst, r.Metric}] = true
	}
	return slices.DeleteFunc(slices.Clone(old), func(r Route) bool { return taken[place{r.Table, r.Dst, r.Metric}] })
}

// locks reports whether other rules rely on r: it is the first to come and the
// last to go.
func (r Rule) locks() bool { return r.Unreachable || r.Nop }

func (r Route) locks() bool { return r.Type == Unreachable && r.Protocol == Protocol }

// forwards reports whether s makes the host a router: on last and off first.
func (s Sysctl) forwards() bool { return s.Key == KeyForward4 || s.Key == KeyForward6 }

// rename returns the steps that give wanted links their names, and have as it
// is after them.
func rename(want, have State) ([]Step, State) {
	var steps []Step
	for _, w := range want.Links {
		for _, h := range have.Links {
			if h.Index != w.Index || h.Name == w.Name {
				continue
			}
			steps = append(steps, RenameLink{From: h.Name, To: w.Name})
			have.Links, have.Addrs, have.Routes = slices.Clone(have.Links), slices.Clone(have.Addrs), slices.Clone(have.Routes)
			for i := range have.Links {
				replace(&have.Links[i].Name, h.Name, w.Name)
			}
			for i := range have.Addrs {
				replace(&have.Addrs[i].Dev, h.Name, w.Name)
			}
			for i := range have.Routes {
				replace(&have.Routes[i].Dev, h.Name, w.Name)
			}
		}
	}
	return steps, have
}

func replace(s *string, from, to string) {
	if *s == from {
		*s = to
	}
}

func wrongMTU(have State) func(Link) bool {
	return func(w Link) bool {
		return !slices.ContainsFunc(have.Links, func(h Link) bool { return h.Index == w.Index && h.MTU == w.MTU })
	}
}

func isDown(have State) func(Link) bool {
	return func(w Link) bool {
		return !slices.ContainsFunc(have.Links, func(h Link) bool { return h.Index == w.Index && h.Up })
	}
}

// diffSysctls returns what to set, and what was ours and is no longer wanted.
func diffSysctls(want, have []Sysctl) (set, restore []Sysctl) {
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h Sysctl) bool { return h.Key == w.Key && h.Value == w.Value }) {
			set = append(set, w)
		}
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w Sysctl) bool { return w.Key == h.Key }) {
			restore = append(restore, h)
		}
	}
	return set, restore
}

// difference returns what only want has, and what only have has.
func difference[T comparable](want, have []T) (added, gone []T) {
	in := func(s []T) map[T]bool {
		m := make(map[T]bool, len(s))
		for _, v := range s {
			m[v] = true
		}
		return m
	}
	wanted, there := in(want), in(have)
	for _, v := range want {
		if !there[v] {
			added = append(added, v)
		}
	}
	for _, v := range have {
		if !wanted[v] {
			gone = append(gone, v)
		}
	}
	return added, gone
}

// each appends to steps one step for every element that pick (nil: all) takes.
func each[T any](steps *[]Step, elems []T, pick func(T) bool, step func(T) Step) {
	for _, e := range elems {
		if pick == nil || pick(e) {
			*steps = append(*steps, step(e))
		}
	}
}

func not[T any](f func(T) bool) func(T) bool { return func(v T) bool { return !f(v) } }
