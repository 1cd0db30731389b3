package daemon

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"smartdns/routing"
)

// tableRoutes are the routes of a file with Table = NUMBER: its AllowedIPs, in a
// table that others look up by rules of their own. They go with the link.
func (t Tunnel) tableRoutes() []routing.Route {
	n, err := strconv.ParseUint(t.WG.Quick.Table, 10, 32)
	if err != nil || n >= routing.TableDefault && n <= routing.TableLocal {
		return nil
	}
	var all []routing.Route
	for _, p := range t.allowed() {
		r := routing.Route{Table: uint32(n), Dst: p.Masked(), Dev: string(t.Path), Protocol: routing.Protocol}
		if p.Addr().Is6() {
			r.Metric = 1024 // the kernel's own choice, said aloud
		}
		if t.carries(routing.FamilyOf(p.Addr())) {
			all = append(all, r)
		}
	}
	return all
}

// fillTable gives a tunnel's own table its routes. What is there stays.
func (e *engine) fillTable(ctx context.Context, t *running) error {
	var steps []routing.Step
	for _, r := range t.part.tableRoutes() {
		steps = append(steps, routing.ReplaceRoute{Route: r})
	}
	if len(steps) == 0 || t.index == 0 {
		return nil
	}
	if !t.raised {
		e.logSteps(steps)
	}
	if err := e.kernel.Apply(ctx, steps); err != nil {
		return fmt.Errorf("tunnel %s: filling table %s: %w", t.part.Path, t.part.WG.Quick.Table, err)
	}
	return nil
}

// thinTable takes what next does not ask for from the table of a tunnel that
// goes on.
func (e *engine) thinTable(ctx context.Context, t *running, next Tunnel) error {
	var steps []routing.Step
	for _, r := range t.part.tableRoutes() {
		if !slices.Contains(next.tableRoutes(), r) {
			steps = append(steps, routing.DelRoute{Route: r})
		}
	}
	e.logSteps(steps)
	return e.kernel.Apply(ctx, steps)
}
