package wg

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"smartdns/routing"
)

// Device is what a Monitor watches; a *Tunnel is one.
type Device interface {
	Observe(ctx context.Context) (Observation, error)
	SetEndpoint(ctx context.Context, peer PublicKey, to netip.AddrPort) (routing.Step, error)
}

// MonitorOptions says what to watch, and how.
type MonitorOptions struct {
	Name   string
	Config *Config // at least the one that the device is kept at
	Device Device
	// Probe asks something through the tunnel, by a socket with the tunnel's
	// mark, and fails when nothing answers. nil: silence alone decides.
	Probe func(ctx context.Context) error
	// Watchful reports whether the tunnel is probed even while it is up, every 30
	// s: one that is idle may be dead, and nobody knows. It is asked each second;
	// nil: it is not.
	Watchful func() bool
	Store    *Store   // nil: remember nothing
	Lookups  []Lookup // for endpoints that are names, in order
	// Reach reports whether there is a way to an address of such a name now; nil:
	// to all.
	Reach func(netip.Addr) bool
	// Changed is told each state after the first, which is Connecting, in
	// order. It must not block.
	Changed func(Status)
	// Drifted is told, each second for as long as it is so, that somebody
	// changed or removed the device: call Set. It must not block.
	Drifted func()
	Logger  *slog.Logger
}

// Status is a tunnel's health as last seen.
type Status struct {
	Name      string
	State     State
	Since     time.Time // of State
	Kind      Kind
	Peer      string         // the main peer's public key, shortened
	Endpoint  netip.AddrPort // in use: where the peer roamed to
	Handshake time.Time      // the last; zero: none
	RX, TX    int64          // bytes of the main peer
	Probe     Probed         // the last probe that ended
}

// Probed is the outcome of a probe. The zero Probed is none.
type Probed struct {
	At      time.Time     // when it ended
	Latency time.Duration // until the answer; of the last that had one
	Err     string        // why there was no answer; "" when there was
}

const (
	pollEvery   = time.Second
	probeTime   = 4 * time.Second
	tryMain     = 6 * time.Second  // more than REKEY_TIMEOUT: each address gets a handshake
	tryOther    = 30 * time.Second // nothing may be sent to such a peer for long
	retryLookup = 5 * time.Second
)

// Monitor says whether a tunnel is up, and finds a peer whose endpoint is a
// name. The peer of Config.Main stands for the tunnel.
type Monitor struct {
	o       MonitorOptions
	watches []*watch // the main peer's first
	events  chan func(now time.Time)
	again   chan struct{}
	status  atomic.Pointer[Status]
}

// watch is one peer under watch. Only Run's goroutine uses it.
type watch struct {
	peer     PublicKey
	at       Endpoint
	machine  *machine
	cancel   context.CancelFunc // of the probe under way; nil: none is
	sequence *Sequencer         // nil for a literal endpoint; not Run's while trying
	restart  bool               // sequence, when it is next used
	every    time.Duration
	nextTry  time.Time
	trying   bool
	tried    netip.Addr // the address that the device calls now; zero: not chosen by us
	probed   Probed
}

// NewMonitor returns a Monitor for Run.
func NewMonitor(o MonitorOptions) *Monitor {
	m := &Monitor{o: o, events: make(chan func(time.Time)), again: make(chan struct{}, 1)}
	now := time.Now()
	main, ok := o.Config.Main()
	if ok {
		m.add(main, now, o.Probe != nil, tryMain)
	}
	for _, p := range o.Config.Peers {
		if p.PublicKey != main.PublicKey && p.Endpoint.IsName() {
			m.add(p, now, false, tryOther)
		}
	}
	first := &Status{Name: o.Name, State: Connecting, Since: now}
	if ok {
		first.Peer = main.PublicKey.Short()
	}
	m.status.Store(first)
	return m
}

func (m *Monitor) add(p Peer, now time.Time, probes bool, every time.Duration) {
	w := &watch{peer: p.PublicKey, at: p.Endpoint, machine: newMachine(now, probes), every: every}
	if p.Endpoint.IsName() {
		w.sequence = NewSequencer(p.Endpoint, m.o.Store, m.o.Lookups...).Reaching(m.o.Reach)
	}
	m.watches = append(m.watches, w)
}

// Status returns the last seen health. It may be called at any time.
func (m *Monitor) Status() Status { return *m.status.Load() }

// Run watches until ctx ends, and returns its error.
func (m *Monitor) Run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		m.poll(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-m.again:
			m.callAgain(ctx)
		case event := <-m.events:
			event(time.Now())
		}
	}
}

// poll reads the device, moves every machine, and begins what they ask for.
func (m *Monitor) poll(ctx context.Context) {
	o, err := m.o.Device.Observe(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		m.o.Logger.Debug("the tunnel cannot be observed", "tunnel", m.o.Name, "err", err)
	}
	if m.o.Drifted != nil && (err != nil || o.Drifted) {
		m.o.Drifted()
	}
	now := time.Now()
	for i, w := range m.watches {
		p := o.Peers[w.peer]
		before := w.machine.state
		if err != nil {
			w.machine.unseen(now)
		} else {
			w.machine.observe(now, sample{p.Handshake, p.RX, p.TX})
		}
		m.moved(w, before)
		m.tryEndpoint(ctx, w, now)
		if i == 0 {
			w.machine.watchful = m.o.Watchful != nil && m.o.Watchful()
			m.probe(ctx, w, now)
			m.publish(o.Kind, w, p)
		}
	}
}

// moved does what a watch's new state calls for.
func (m *Monitor) moved(w *watch, before State) {
	now := w.machine.state
	if now == before || w.sequence == nil {
		return
	}
	switch now {
	case Up:
		if w.tried.IsValid() {
			if err := w.sequence.Worked(w.tried); err != nil {
				m.o.Logger.Warn("a working endpoint is not remembered", "tunnel", m.o.Name, "err", err)
			}
		}
	case Down, Connecting:
		if before != Connecting { // else a round is under way
			w.restart = true
			w.nextTry = time.Time{}
		}
	}
}

// probe begins a probe when the machine wants one and none is under way.
func (m *Monitor) probe(ctx context.Context, w *watch, now time.Time) {
	if w.cancel != nil || !w.machine.wantsProbe(now) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, probeTime)
	w.cancel = cancel
	go func() {
		defer cancel()
		begun := time.Now()
		err := m.o.Probe(limited)
		took := time.Since(begun)
		aborted := errors.Is(limited.Err(), context.Canceled)
		m.tell(ctx, func(now time.Time) {
			w.cancel = nil
			if !aborted {
				before := w.machine.state
				w.probed = w.probed.next(now, took, err)
				w.machine.probed(now, err == nil)
				m.moved(w, before)
			}
		})
	}()
}

// next is the outcome of the probe after p.
func (p Probed) next(at time.Time, took time.Duration, err error) Probed {
	if err != nil {
		return Probed{At: at, Latency: p.Latency, Err: err.Error()}
	}
	return Probed{At: at, Latency: took}
}

// tryEndpoint begins to call the next address of the peer's name, when it has
// one and it is time.
func (m *Monitor) tryEndpoint(ctx context.Context, w *watch, now time.Time) {
	looking := w.machine.state == Connecting || w.machine.state == Down
	if w.sequence == nil || !looking || w.trying || now.Before(w.nextTry) {
		return
	}
	w.trying = true
	if w.restart {
		w.restart = false
		w.sequence.Restart()
	}
	go func() {
		to, err := w.sequence.Next(ctx)
		m.tell(ctx, func(now time.Time) {
			w.trying = false
			m.call(ctx, w, to, err, now)
		})
	}()
}

func (m *Monitor) call(ctx context.Context, w *watch, to netip.AddrPort, err error, now time.Time) {
	log := m.o.Logger.With("tunnel", m.o.Name)
	if err != nil {
		w.nextTry = now.Add(retryLookup)
		log.Warn("the tunnel's endpoint has no address yet", "err", err)
		return
	}
	if w.machine.state == Up || w.machine.state == Stale {
		return // it shook hands while we looked
	}
	w.nextTry = now.Add(w.every)
	step, err := m.o.Device.SetEndpoint(ctx, w.peer, to)
	if err != nil {
		log.Debug("the tunnel's endpoint cannot be set", "err", err)
		return
	}
	w.tried = to.Addr()
	w.machine.lastProbe = time.Time{} // only something to send makes the device call
	if w.cancel != nil {
		w.cancel() // what it sent went with the old session
	}
	log.Debug("[#] " + step.String())
}

// tell gives event to Run's goroutine, unless that is gone.
func (m *Monitor) tell(ctx context.Context, event func(now time.Time)) {
	select {
	case m.events <- event:
	case <-ctx.Done():
	}
}

// publish makes what is seen the Status, and tells a new state.
func (m *Monitor) publish(kind Kind, w *watch, p PeerState) {
	s := Status{
		Name: m.o.Name, State: w.machine.state, Since: w.machine.since, Kind: kind,
		Peer: w.peer.Short(), Endpoint: p.Endpoint, Handshake: p.Handshake, RX: p.RX, TX: p.TX,
		Probe: w.probed,
	}
	old := m.status.Swap(&s)
	if old.State != s.State && m.o.Changed != nil {
		m.o.Changed(s)
	}
}
