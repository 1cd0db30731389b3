package wg

import (
	"context"
	"time"
)

// CallAgain makes Run call the peers that do not answer anew and at once, for
// what kept them from answering is over, as a clock that was wrong.
// WireGuard itself would wait for up to 5 s. It never blocks.
func (m *Monitor) CallAgain() {
	select {
	case m.again <- struct{}{}:
	default: // it is about to
	}
}

func (m *Monitor) callAgain(ctx context.Context) {
	for _, w := range m.watches {
		if w.machine.state == Up || w.machine.state == Stale {
			continue
		}
		w.machine.lastProbe = time.Time{} // only something to send makes the device call
		if w.sequence != nil {
			w.restart, w.nextTry = true, time.Time{}
			continue
		}
		to, ok := w.at.Literal()
		if !ok {
			continue // it calls us
		}
		step, err := m.o.Device.SetEndpoint(ctx, w.peer, to)
		if err != nil {
			m.o.Logger.Debug("the tunnel cannot be called again", "tunnel", m.o.Name, "err", err)
			continue
		}
		if w.cancel != nil {
			w.cancel() // what it sent went with the old session
		}
		m.o.Logger.Debug("[#] " + step.String())
	}
}
