package wg

import "time"

// State says whether a tunnel carries packets.
type State string

// The states of a device, as a Monitor sees them.
//
//	connecting ──heard──▶ up ──10 s unanswered──▶ stale ──15 s, probe failed──▶ down
//	    │                  ▲◀──────────heard────────┘                             │
//	    └─15 s, probe failed─▶ down                 ▲────────────heard────────────┘
const (
	Connecting State = "connecting" // no handshake yet with the present device
	Up         State = "up"         // it shook hands; an idle tunnel is up
	Stale      State = "stale"      // in doubt: we sent, and hear nothing; being probed
	Down       State = "down"       // silent, and the probe says so too
)

// The states of what belongs into a tunnel, where its device says Down or
// nothing at all. See State.Carried.
const (
	Blocked  State = "blocked"  // the device is down, and nothing carries what belongs into it
	Insecure State = "insecure" // what keeps it from the uplinks could not be put in place
)

// Carried returns the state of what belongs into a tunnel whose device is in
// state s: locked says that the kernel keeps it from every other way, carried
// that it has a way at all.
func (s State) Carried(locked, carried bool) State {
	switch {
	case !locked:
		return Insecure
	case s == Down && !carried:
		return Blocked
	}
	return s
}

const (
	// doubtAfter is WireGuard's KEEPALIVE_TIMEOUT: a living peer answers any
	// data within it, if only with a keepalive.
	doubtAfter = 10 * time.Second
	// downAfter is KEEPALIVE_TIMEOUT + REKEY_TIMEOUT: after it WireGuard itself
	// takes the session for dead.
	downAfter  = 15 * time.Second
	probeEvery = 5 * time.Second
	// leastData is the length of the smallest message that asks for an answer:
	// one with a packet in it. A keepalive is half as long, and is never answered.
	leastData = 64
	// calmEvery is how often a watchful tunnel that is up is probed.
	calmEvery = 30 * time.Second
)

// sample is what a device showed of a peer at some moment.
type sample struct {
	handshake time.Time // compared, never subtracted: it is by the wall clock
	rx, tx    int64
}

// machine decides a peer's state from samples and probes. It knows no clock:
// the caller says what time it is.
type machine struct {
	state     State
	since     time.Time // when state began
	last      sample
	seen      bool      // last was taken
	owed      time.Time // when we first sent since we last heard; zero: nothing is owed
	lastProbe time.Time // when it began; zero: none in this doubt
	silent    bool      // that probe, or the lack of one, confirms the silence
	probes    bool      // there is a probe
	watchful  bool      // probe it even while it is up, which it may only seem to be
}

func newMachine(now time.Time, probes bool) *machine {
	m := &machine{probes: probes}
	m.enter(now, Connecting)
	return m
}

func (m *machine) enter(now time.Time, s State) {
	if s == m.state {
		return
	}
	m.state, m.since = s, now
	if s == Connecting || s == Stale {
		m.lastProbe, m.silent = time.Time{}, !m.probes
	}
}

func (m *machine) hear(now time.Time) {
	m.owed = time.Time{}
	m.enter(now, Up)
}

// observe takes what the device shows now.
func (m *machine) observe(now time.Time, s sample) {
	last, seen := m.last, m.seen
	m.last, m.seen = s, true
	if s.rx < last.rx || s.tx < last.tx {
		last = sample{handshake: last.handshake} // the device or the peer was made anew
	}
	switch {
	case s.handshake.IsZero():
		m.owed = time.Time{}
		if m.state == Up || m.state == Stale {
			m.enter(now, Connecting)
		}
	case !seen:
		m.inherit(now)
	case !s.handshake.Equal(last.handshake), s.rx > last.rx:
		m.hear(now)
	case s.tx-last.tx >= leastData && m.owed.IsZero():
		m.owed = now
	}
	m.tick(now)
}

// inherit judges a session that was there before us: it works or it does not.
func (m *machine) inherit(now time.Time) {
	m.enter(now, Up)
	if m.probes {
		m.owed = now
		m.enter(now, Stale)
	}
}

// unseen takes note that the device could not be read.
func (m *machine) unseen(now time.Time) {
	if m.state == Up && m.probes {
		m.inherit(now)
	}
	m.tick(now)
}

// probed takes the result of a probe that began when wantsProbe said so.
func (m *machine) probed(now time.Time, ok bool) {
	m.silent = !ok
	if ok && !m.last.handshake.IsZero() {
		m.hear(now)
	}
	m.tick(now)
}

// tick moves on what only time moves.
func (m *machine) tick(now time.Time) {
	if m.state == Up && !m.owed.IsZero() && now.Sub(m.owed) >= doubtAfter {
		m.enter(now, Stale)
	}
	if m.state == Stale && m.silent && now.Sub(m.owed) >= downAfter {
		m.enter(now, Down)
	}
	if m.state == Connecting && m.silent && now.Sub(m.since) >= downAfter {
		m.enter(now, Down)
	}
}

// wantsProbe reports whether a probe should begin now, and takes note of it.
func (m *machine) wantsProbe(now time.Time) bool {
	every := probeEvery
	if m.state == Up {
		if !m.watchful {
			return false
		}
		every = calmEvery
	}
	if !m.probes || !m.lastProbe.IsZero() && now.Sub(m.lastProbe) < every {
		return false
	}
	m.lastProbe = now
	return true
}
