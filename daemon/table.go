package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"smartdns/nft"
	"smartdns/routing"
	"smartdns/web/api"
)

// withTable calls f with our table, as somebody who only passes by.
func withTable(ctx context.Context, f func(*nft.Table) error) error {
	t, err := nft.Open(ctx, nft.Options{Mode: nft.Shared, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	return errors.Join(f(t), t.Close())
}

// tableStatus reads the sets and counters of our table.
func tableStatus(ctx context.Context, v *view) ([]api.Set, []api.Counter, error) {
	state, err := v.table.Observe(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !state.Exists {
		return nil, nil, errors.New("our nftables table is gone")
	}
	dynamic := map[string]string{}
	for _, p := range append(paths(v.parts), routing.Direct) {
		for _, is4 := range []bool{true, false} {
			dynamic[setName(string(p), is4)] = string(p)
		}
	}
	var sets []api.Set
	for _, name := range slices.Sorted(maps.Keys(state.Sets)) {
		s := api.Set{Name: name, Elements: state.Sets[name], Path: dynamic[name]}
		if s.Path != "" {
			s.Size = state.Sizes[name]
		}
		sets = append(sets, s)
	}
	var counters []api.Counter
	for _, name := range slices.Sorted(maps.Keys(state.Counters)) {
		group := "packets"
		if strings.HasPrefix(name, "new_") {
			group = "flows"
		}
		counters = append(counters, api.Counter{Group: group, Name: counterText(name), Value: state.Counters[name].Packets})
	}
	_, conflicts := v.table.Ledger().Conflicts()
	return sets, append(counters, api.Counter{Group: "marks", Name: "addresses marked for two paths", Value: conflicts}), nil
}

// sizeConditions says which sets of marks are full, or larger than they should
// be.
func sizeConditions(sets []api.Set, size uint32) []api.Condition {
	var all []api.Condition
	for _, s := range sets {
		switch {
		case s.Path == "":
		case s.Elements >= int(s.Size):
			all = append(all, api.Condition{
				Severity: severityError, Fix: fmt.Sprintf("raise size = %d under [marks]", size),
				What: fmt.Sprintf("set %s is full with %d addresses: others cannot be marked", s.Name, s.Size),
			})
		case s.Size > size:
			all = append(all, api.Condition{
				Severity: severityWarning,
				What:     fmt.Sprintf("set %s keeps room for %d addresses instead of %d ([marks] size) until no more than that are marked", s.Name, s.Size, size),
			})
		}
	}
	return all
}

// counterText says what a counter of our table counts.
func counterText(name string) string {
	kind, path, ok := strings.Cut(name, "_")
	if !ok {
		return map[string]string{
			"bypass":  "packets: DNS of clients past us, rejected",
			"inbound": "packets: new connections from outside, blocked",
			"invalid": "packets: of no connection, dropped",
			"strict":  "packets: undecided, kept in by the kill switch",
			"spoofed": "packets: forged towards a tunnel's address, dropped",
		}[name]
	}
	switch {
	case name == "locked_standing":
		return "packets: of flows that stand in, kept from an uplink"
	case name == "new_revocable":
		return "new flows direct while their tunnel is down"
	}
	switch kind {
	case "new":
		return "new flows on " + path
	case "stray":
		return "packets: of unknown connections of " + path + ", rejected"
	case "rejected":
		return "packets: of " + path + " that it could not carry, rejected"
	case "locked":
		return "packets: of " + path + " kept from an uplink"
	}
	return name
}

// elements returns the marks of an address, in the order in which the kernel
// tests their sets.
func (v *view) elements(ctx context.Context, a netip.Addr) ([]api.Element, routing.Path, error) {
	var all []api.Element
	first := routing.Path("")
	for _, p := range append(paths(v.parts), routing.Direct) {
		left, ok, err := v.table.Element(ctx, a, p)
		if err != nil {
			return nil, "", err
		}
		if !ok {
			continue
		}
		if first == "" {
			first = p
		}
		all = append(all, api.Element{Set: setName(string(p), a.Is4()), Remaining: api.Since(left)})
	}
	return all, first, nil
}

func (e *engine) listMarks(ctx context.Context) (api.Marks, error) {
	out := api.Marks{Schema: api.Schema, Marks: []api.MarkLine{}, Conflicts: []api.Conflict{}}
	v := e.shown.Load()
	if v.table == nil {
		return out, nil
	}
	all, err := v.table.Marks(ctx)
	for _, m := range all {
		out.Marks = append(out.Marks, api.MarkLine{Addr: m.Addr, Path: string(m.Path), Set: setName(string(m.Path), m.Addr.Is4()), Remaining: api.Since(m.Life)})
	}
	now, _ := v.table.Ledger().Conflicts()
	for _, c := range now {
		line := api.Conflict{Addr: c.Addr, Used: string(c.Paths[0])}
		for _, p := range c.Paths {
			line.Paths = append(line.Paths, string(p))
		}
		out.Conflicts = append(out.Conflicts, line)
	}
	return out, err
}

func (e *engine) forget(ctx context.Context, addr string) (api.Done, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return api.Done{}, api.BadRequest(fmt.Sprintf("%q is not an address", addr))
	}
	v := e.shown.Load()
	if v.table == nil {
		return api.Done{}, errors.New("there is no tunnel, so no address is marked")
	}
	had, err := v.table.Marker().Forget(ctx, a.Unmap())
	e.sealed.Generation().Advance()
	if err != nil {
		return api.Done{}, err
	}
	if !had {
		return api.Done{}, fmt.Errorf("%s is not marked", a)
	}
	return api.Done{Schema: api.Schema, Text: a.String() + " is no longer marked"}, nil
}
