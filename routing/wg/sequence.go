package wg

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Lookup resolves the host name of an endpoint, at one place. What it answers
// need not be true: only a handshake decides.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// lookupTime is how long one Lookup may take before the next is asked.
const lookupTime = 5 * time.Second

// Sequencer says which address of an endpoint's name to try next: those that
// once shook hands, then what each Lookup answers, in their order, none twice;
// then the next round, with fresh answers. It is for one goroutine.
type Sequencer struct {
	at      Endpoint
	store   *Store
	lookups []Lookup
	reach   func(netip.Addr) bool // nil: there is a way to all

	stage int // 0: known addresses; n: lookups[n-1]
	queue []netip.Addr
	tried map[netip.Addr]bool // in this round
	given bool                // there was one in this round
	errs  []error             // why there were no others
}

// NewSequencer returns a Sequencer at the beginning of its first round. store
// may be nil.
func NewSequencer(at Endpoint, store *Store, lookups ...Lookup) *Sequencer {
	s := &Sequencer{at: at, store: store, lookups: lookups}
	s.Restart()
	return s
}

// Reaching has s pass over addresses to which reach says that there is no way
// now: on a host without IPv6, say, those would each cost the time of a try.
func (s *Sequencer) Reaching(reach func(netip.Addr) bool) *Sequencer {
	s.reach = reach
	return s
}

// Restart begins a new round.
func (s *Sequencer) Restart() {
	s.stage, s.queue, s.given, s.errs = 0, nil, false, nil
	s.tried = map[netip.Addr]bool{}
	if s.store != nil {
		s.queue = s.store.Known(s.at.Host)
	}
}

// Next returns the next address to try. It asks a Lookup only when what came
// before is used up, and fails when a whole round had no address.
func (s *Sequencer) Next(ctx context.Context) (netip.AddrPort, error) {
	for {
		for len(s.queue) > 0 {
			a := s.queue[0].Unmap()
			s.queue = s.queue[1:]
			if !callable(a) || s.tried[a] {
				continue
			}
			s.tried[a] = true
			if s.reach != nil && !s.reach(a) {
				s.errs = append(s.errs, fmt.Errorf("there is no way to %s", a))
				continue
			}
			s.given = true
			return netip.AddrPortFrom(a, s.at.Port), nil
		}
		if s.stage < len(s.lookups) {
			s.stage++
			s.ask(ctx, s.lookups[s.stage-1])
			if err := ctx.Err(); err != nil {
				return netip.AddrPort{}, err
			}
			continue
		}
		given, errs := s.given, s.errs
		s.Restart()
		if !given {
			return netip.AddrPort{}, fmt.Errorf("no address for endpoint %s: %w", s.at, errors.Join(errs...))
		}
	}
}

func (s *Sequencer) ask(ctx context.Context, lookup Lookup) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	addrs, err := lookup(ctx, s.at.Host)
	if err != nil {
		s.errs = append(s.errs, err)
	} else if len(addrs) == 0 {
		s.errs = append(s.errs, errors.New("an empty answer"))
	}
	s.queue = addrs
}

// Worked remembers that a shook hands.
func (s *Sequencer) Worked(a netip.Addr) error {
	if s.store == nil {
		return nil
	}
	return s.store.Add(s.at.Host, a)
}

// callable reports whether a peer could be at a at all; forged answers often
// are not.
func callable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
