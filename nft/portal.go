package nft

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"smartdns/routing"
)

// Sets of a captive portal. The kernel ends their elements: nobody has to be
// there to close what they open.
const (
	setPortal          = "portal"           // reached at TCP 80 and 443
	setPortalResolvers = "portal_resolvers" // asked at port 53
	portalSize         = 256                // elements of each
)

// portalSets are there while there is a kill switch that lets out what was
// decided.
func (r Ruleset) portalSets() []set {
	if r.KillSwitch.Level != Strict {
		return nil
	}
	var out []set
	for _, name := range []string{setPortal, setPortalResolvers} {
		for _, f := range families() {
			out = append(out, set{name: name + f.suffix, kind: addresses(f), marks: true, size: portalSize})
		}
	}
	return out
}

// portalTerms match what a login needs, with each packet: a flow does not
// outlive the element that let it out.
func portalTerms() [][]term {
	var all [][]term
	for _, f := range families() {
		all = append(all,
			[]term{f.to(setPortalResolvers), udp().dport(53)},
			[]term{f.to(setPortalResolvers), tcp().dport(53)},
			[]term{f.to(setPortal), tcp().dport(80)},
			[]term{f.to(setPortal), tcp().dport(443)})
	}
	return all
}

// portalOutput sends what this host says to a portal directly.
func (r Ruleset) portalOutput() []rule {
	if r.KillSwitch.Level != Strict {
		return nil
	}
	var out []rule
	for _, matches := range portalTerms() {
		out = append(out, on(append(matches, r.packet().set(r.direct()), ret())...).because("captive portal"))
	}
	return out
}

// portalLeaves lets it out. Only this host's own has the mark but no decision.
func (r Ruleset) portalLeaves() []rule {
	if r.KillSwitch.Level != Strict {
		return nil
	}
	var out []rule
	for _, matches := range portalTerms() {
		out = append(out, on(append([]term{r.packet().is(r.direct())}, append(matches, accept())...)...).because("captive portal"))
	}
	return out
}

// A Portal is what this host may reach past the kill switch, to log in to a
// network.
type Portal struct {
	Resolvers []netip.Addr  // at port 53
	Addrs     []netip.Addr  // at TCP 80 and 443
	Life      time.Duration // then the kernel closes it
}

// OpenPortal adds to what is open; what was open before lives on as p says, and
// as it did if p does not name it. It needs a table with a kill switch.
func (t *Table) OpenPortal(ctx context.Context, p Portal) ([]routing.Step, error) {
	var todo []step
	for _, s := range []struct {
		name  string
		addrs []netip.Addr
	}{{setPortalResolvers, p.Resolvers}, {setPortal, p.Addrs}} {
		for _, a := range s.addrs {
			a = a.Unmap().WithZone("")
			name := s.name + familyOf(a).suffix
			marks := []pending{{key: claimKey{addr: keyOf(a), is4: a.Is4()}, life: p.Life}}
			text := fmt.Sprintf("nft add element inet %s %s { %s timeout %s }", TableName, name, a, p.Life.Round(time.Second))
			todo = append(todo, step{text, func(m *messages) {
				// To add what is there would not renew it (before Linux 6.12).
				writeMarks(m, addMarks, name, marks)
				writeMarks(m, deleteMarks, name, marks)
				writeMarks(m, addMarks, name, marks)
			}})
		}
	}
	return t.changePortal(ctx, todo)
}

// ClosePortal closes what is open.
func (t *Table) ClosePortal(ctx context.Context) ([]routing.Step, error) {
	var todo []step
	for _, set := range []string{setPortal, setPortalResolvers} {
		for _, f := range families() {
			name := set + f.suffix
			todo = append(todo, step{fmt.Sprintf("nft flush set inet %s %s", TableName, name), func(m *messages) { flushSet(m, name) }})
		}
	}
	return t.changePortal(ctx, todo)
}

func (t *Table) changePortal(ctx context.Context, todo []step) ([]routing.Step, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil || len(todo) == 0 {
		return nil, err
	}
	t.marker.commits.Lock()
	defer t.marker.commits.Unlock()
	if err := t.transact(todo); err != nil {
		return nil, err
	}
	return plan{table: todo}.steps(), nil
}
