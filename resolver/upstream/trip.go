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
	stuck   func()       // tells the group to ask its next server already
}

type spending struct{ packets, connections atomic.Int32 }

// packet and connection report whether one more may be spent, and spend it.
func (t trip) packet() bool {
	if t.prepaid != nil && t.prepaid.CompareAndSwap(true, false) {
		return true
	}
	return t.spent.packets.Add(1) <= maxPackets
}

func (t trip) connection() bool { return t.spent.connections.Add(1) <= maxConnections }

// next returns the trip of one more server of a group, its first packet paid
// for by the group.
func (s *spending) next(paid bool, stuck func()) trip {
	prepaid := new(atomic.Bool)
	prepaid.Store(paid)
	return trip{spent: s, prepaid: prepaid, stuck: stuck}
}

type tripKey struct{}

func withTrip(ctx context.Context, t trip) context.Context {
	return context.WithValue(ctx, tripKey{}, t)
}

// tripOf returns the trip that ctx carries, or a new one.
func tripOf(ctx context.Context) trip {
	if t, ok := ctx.Value(tripKey{}).(trip); ok {
		return t
	}
	return trip{spent: new(spending), stuck: func() {}}
}
