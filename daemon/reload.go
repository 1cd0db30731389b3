package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"smartdns/resolver"
	"smartdns/routing"
)

// wanted is what the loop runs by.
type wanted struct {
	parts  *Parts
	marks  marks
	policy *resolver.Policy
	sides  builtSides
}

// reload runs by other parts. If anything fails that did not before, it goes
// back to those that were.
func (e *engine) reload(ctx context.Context, parts *Parts) error {
	next, err := e.prepare(parts)
	if err != nil {
		return fmt.Errorf("reloading: %w", err)
	}
	before := wanted{e.parts, e.marks, e.policy, e.sides}
	e.hostDNS.again = true
	known := maps.Clone(e.failures)
	e.adopt(ctx, next)
	e.note(ctx, "records", nil) // this parts' records have just been read
	if err := e.newFailure(known); err != nil {
		e.adopt(ctx, before)
		next.sides.drainBut(before.sides)
		return fmt.Errorf("reloading: %w", err)
	}
	before.sides.drainBut(next.sides)
	e.settle(ctx, before.parts)
	e.resizeCache()
	return nil
}

// prepare says what running by parts would need, or why that cannot be.
func (e *engine) prepare(parts *Parts) (wanted, error) {
	was, is := e.parts.Config, parts.Config
	switch {
	case len(parts.Tunnels) > 0 != e.routed():
		return wanted{}, errors.New("the first tunnel came or the last one went, which needs a restart")
	case e.routed() && was.Routing.Mode != is.Routing.Mode:
		return wanted{}, errors.New("[routing] mode changed, which needs a restart")
	case e.strict() && !parts.strict():
		return wanted{}, errClosed
	case e.routed() && was.Routing.Table != is.Routing.Table:
		return wanted{}, errors.New("[routing] table changed, which needs a restart")
	}
	numbers, err := routing.Number(paths(parts), e.marks.numbers)
	if err != nil {
		return wanted{}, err
	}
	if err := parts.ownServer(e.routes.Status().Facts); err != nil {
		return wanted{}, err
	}
	m := marks{field: e.marks.field, numbers: numbers}
	built, err := e.asking(m).sides(parts.Config, e.sides)
	if err != nil {
		return wanted{}, err
	}
	views, after, err := parts.views(e.who.views)
	if err != nil {
		return wanted{}, err
	}
	pol := parts.policy(built, e.geo)
	pol.Views, e.who.views = views, after
	return wanted{parts, m, pol, built}, nil
}

// adopt makes w what the loop runs by. No answer ever names a path that has no
// sets: the kernel gets a new path before the policy, and loses an old one after.
func (e *engine) adopt(ctx context.Context, w wanted) {
	more := slices.ContainsFunc(paths(w.parts), func(p routing.Path) bool { return !contains(paths(e.parts), p) })
	if !maps.Equal(e.marks.numbers, w.marks.numbers) {
		e.note(ctx, "tunnel numbers", saveNumbers(e.opts.Dirs, w.marks.numbers))
	}
	e.parts, e.marks = w.parts, w.marks
	swap := func() {
		e.policy, e.sides = w.policy, w.sides
		e.geo.Swap(w.parts.Geo)
		e.resolver.Swap(w.policy)
	}
	if !more {
		swap()
	}
	e.converge(ctx)
	if more {
		swap()
		e.converge(ctx)
	}
	e.setUpdates()
}

// newFailure returns the failures that are not in known.
func (e *engine) newFailure(known map[string]failure) error {
	var errs []error
	for what, f := range e.failures {
		if old, was := known[what]; f.severity == severityError && (!was || old.text != f.text) {
			errs = append(errs, errors.New(f.text))
		}
	}
	return errors.Join(errs...)
}

func contains(all []routing.Path, p routing.Path) bool { return slices.Contains(all, p) }

func paths(p *Parts) []routing.Path {
	var all []routing.Path
	for _, t := range p.Tunnels {
		all = append(all, t.Path)
	}
	return all
}
