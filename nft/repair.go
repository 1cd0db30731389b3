package nft

import (
	"context"
	"net/netip"
	"time"

	"smartdns/routing"
)

// # Which flows keep their path
//
// A flow keeps the path that it began on: a mark that expires or is forgotten, a
// list that changes, an answer that ties its address to another path are about
// new flows. Only these have to begin anew, each by the event that is the
// reason:
//
//   - those of a tunnel that is no more, that went down with WhenDown Detour, or
//     is back (Set)
//   - those that were decided while somebody had taken marks away (heal)
//   - those to an address that becomes a tunnel's, if nobody has answered them
//     yet: they have no path to keep (reviseFlows)
//   - those that the caller says to be the user's will (TurnFlows)

// A Flow is an entry of conntrack, as the rules that decide see it.
type Flow struct {
	From  netip.Addr // who began it, before all translations
	To    netip.Addr // where it leads, after them
	Value uint32     // of the field: its path
}

// TurnFlows gives flows another path. It calls decide for every flow that has a
// path; decide returns the value of the field that it should have, or false to
// leave it alone. A flow that is turned into a tunnel, or whose source address was
// translated, ends: its sender is told so with its next packet, or that packet
// is the first of a new flow. It returns how many flows it turned.
func (t *Table) TurnFlows(ctx context.Context, decide func(Flow) (value uint32, ok bool)) (n int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	field, _ := t.ledger.tunnelMarks()
	n, err = turnFlows(t.flows, whichFlows{}, uint32(field), func(f Flow) (uint32, bool) {
		if f.Value == 0 {
			return 0, false
		}
		return decide(f)
	})
	return n, explain("turning flows", err)
}

// reviseShare is the share of a processor that looking at the flows may take:
// one part in so many.
const reviseShare = 20

// reviseFlows ends flows that nobody has answered, and that went direct to an
// address that has become a tunnel's since: a client that tries again from the
// same port would be where it was.
func (t *Table) reviseFlows() {
	for {
		select {
		case <-t.marker.added:
		case <-t.marker.stop:
			return
		}
		begun := time.Now()
		if err := t.revise(); err != nil {
			t.log.Warn("ending flows that were never answered, to addresses that are a tunnel's now", "err", err)
		}
		select {
		case <-time.After(time.Since(begun) * reviseShare):
		case <-t.marker.stop:
			return
		}
	}
}

func (t *Table) revise() error {
	field, marks := t.ledger.tunnelMarks()
	direct := whichFlows{mark: field.Value(routing.MarkDirect), mask: uint32(field), unanswered: true}
	_, err := turnFlows(t.flows, direct, uint32(field), func(f Flow) (uint32, bool) {
		p := t.ledger.tunnelOf(f.To)
		return marks[p], p.IsTunnel()
	})
	return err
}

// isTunnels reports whether a key is of a tunnel's set.
func (l *Ledger) isTunnels(k claimKey) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return int(k.path) < len(l.paths) && l.paths[k.path].IsTunnel()
}

// tunnelOf returns the tunnel that a living mark ties a to, "" for none.
func (l *Ledger) tunnelOf(a netip.Addr) routing.Path {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := time.Since(l.base)
	for i, p := range l.paths {
		if p.IsTunnel() && l.claims[claimKey{keyOf(a), a.Is4(), uint8(i)}].until > now {
			return p
		}
	}
	return ""
}
