package upstream

import (
	"context"
	"sync/atomic"
)

// What one client query may cost, over all servers of a group.
const (
	maxPackets     = 6
	maxConnections = 3
)

// trip is what the exchanges for one query share: what they may still spend,
// and how one of them says that it is in trouble. It travels in the context,
// so that it reaches a group's servers through any Exchanger in between.
type trip struct {
	spent   *spending
	prepaid *atomic.Bool // whether the first packet is counted already; nil: no
	nudge   func()       // tells the group to ask its next server already; nil: there is none
}

type spending struct {
	packets, connections atomic.Int32
	sent                 atomic.Bool // the first packet
	purse                *Purse      // nil: nobody else pays
}

// reset makes s that of a new query, paid for by purse.
func (s *spending) reset(purse *Purse) {
	s.packets.Store(0)
	s.connections.Store(0)
	s.sent.Store(false)
	s.purse = purse
}

// packet and connection report whether one more may be spent, and spend it.
func (t trip) packet() bool {
	prepaid := t.prepaid != nil && t.prepaid.CompareAndSwap(true, false)
	if !prepaid && t.spent.packets.Add(1) > maxPackets {
		return false
	}
	return t.spent.sent.CompareAndSwap(false, true) || t.spent.purse.pay()
}

// stuck says that the exchange is in trouble.
func (t trip) stuck() {
	if t.nudge != nil {
		t.nudge()
	}
}

func (t trip) connection() bool { return t.spent.connections.Add(1) <= maxConnections }

// Purse is what one client may cost beyond a packet for each of the questions
// that it needs: packets sent again, to another server or over another
// transport. The zero Purse holds what one question may spend. It is safe for
// concurrent use.
type Purse struct{ paid atomic.Int32 }

// pay reports whether the purse, where there is one, has another packet.
func (p *Purse) pay() bool { return p == nil || p.paid.Add(1) <= maxPackets }

// Empty reports whether a packet was asked of p that it did not have.
func (p *Purse) Empty() bool { return p.paid.Load() > maxPackets }

// next returns the trip of one more server of a group, its first packet paid
// for by the group.
func (s *spending) next(paid bool, nudge func()) trip {
	prepaid := new(atomic.Bool)
	prepaid.Store(paid)
	return trip{spent: s, prepaid: prepaid, nudge: nudge}
}

type tripKey struct{}

func withTrip(ctx context.Context, t trip) context.Context {
	return context.WithValue(ctx, tripKey{}, t)
}

// trip returns the trip that ctx carries, or a new one at the expense of q.
func (q Query) trip(ctx context.Context) trip {
	if t, ok := ctx.Value(tripKey{}).(trip); ok {
		return t
	}
	return trip{spent: &spending{purse: q.Purse}}
}

// newTrip is one at nobody's expense but its own.
func newTrip() trip { return trip{spent: new(spending)} }
