package wg

import (
	"strings"
	"testing"
	"time"
)

// modelled is a machine with what is true of the device and the far end.
type modelled struct {
	machine machine
	now     time.Time
	s       sample
	heard   time.Time // when the far end was last heard
	owed    time.Time // when data was sent that it has not answered; zero: none
	failed  bool      // a probe failed since then
}

// device lets the machine see the device.
func (m *modelled) device(heard bool) {
	if heard && m.machine.seen { // what was there before us says nothing
		m.heard, m.owed, m.failed = m.now, time.Time{}, false
	}
	m.machine.observe(m.now, m.s)
}

var machineEvents = []struct {
	name string
	do   func(*modelled)
}{
	{"a handshake", func(m *modelled) {
		m.now = m.now.Add(time.Millisecond)
		m.s.handshake = m.now
		m.device(true)
	}},
	{"data comes", func(m *modelled) { m.s.rx += 100; m.device(!m.s.handshake.IsZero()) }},
	{"data goes", func(m *modelled) {
		m.s.tx += 100
		if m.owed.IsZero() && !m.s.handshake.IsZero() {
			m.owed = m.now
		}
		m.device(false)
	}},
	{"a keepalive goes", func(m *modelled) { m.s.tx += 32; m.device(false) }},
	{"nothing", func(m *modelled) { m.device(false) }},
	{"the device is made anew", func(m *modelled) { m.s = sample{}; m.owed = time.Time{}; m.device(false) }},
	{"the device cannot be read", func(m *modelled) { m.machine.unseen(m.now) }},
	{"a probe is answered", func(m *modelled) {
		if !m.s.handshake.IsZero() {
			m.heard, m.owed, m.failed = m.now, time.Time{}, false
		}
		m.machine.probed(m.now, true)
	}},
	{"a probe fails", func(m *modelled) { m.failed = true; m.machine.probed(m.now, false) }},
	{"1 s", func(m *modelled) { m.now = m.now.Add(time.Second); m.machine.tick(m.now) }},
	{"6 s", func(m *modelled) { m.now = m.now.Add(6 * time.Second); m.machine.tick(m.now) }},
	{"16 s", func(m *modelled) { m.now = m.now.Add(16 * time.Second); m.machine.tick(m.now) }},
}

// K-04, the device's half: after every sequence of six of these twelve events a
// tunnel is down only when it was silent for 15 s and a probe failed, it is up
// as soon as it is heard, and it is never taken for up without a handshake.
func TestMachineAfterEverySequence(t *testing.T) {
	begin := time.Unix(1_790_000_000, 0)
	reached := map[State]bool{}
	var trace []string
	var explore func(m modelled, depth int)
	explore = func(m modelled, depth int) {
		for _, e := range machineEvents {
			next := m
			trace = append(trace, e.name)
			e.do(&next)
			s := next.machine.state
			reached[s] = true
			silent := next.now.Sub(next.heard)
			wrong := ""
			switch {
			case s == Down && (silent < downAfter || !next.failed):
				wrong = "it is down"
			case s == Up && next.machine.last.handshake.IsZero():
				wrong = "it is up without a handshake"
			case next.heard.Equal(next.now) && silent == 0 && next.heard.After(begin) && s == Down:
				wrong = "it was heard, and is down"
			case s == Up && next.machine.seen && !next.machine.owed.IsZero() && next.now.Sub(next.machine.owed) >= doubtAfter:
				wrong = "nobody answers, and there is no doubt"
			}
			if wrong != "" {
				t.Fatalf("after %s: %s %+v", strings.Join(trace, ", "), wrong, next)
			}
			if depth > 1 {
				explore(next, depth-1)
			}
			trace = trace[:len(trace)-1]
		}
	}
	first := modelled{machine: *newMachine(begin, true), now: begin, heard: begin}
	explore(first, 6)
	for _, s := range []State{Connecting, Up, Stale, Down} {
		if !reached[s] {
			t.Errorf("%s is never reached", s)
		}
	}
}

// What status shows follows from the device, the locks and whoever carries.
func TestCarried(t *testing.T) {
	for _, c := range []struct {
		device          State
		locked, carried bool
		want            State
	}{
		{Up, true, true, Up}, {Stale, true, true, Stale}, {Connecting, true, true, Connecting},
		{Down, true, true, Down}, {Down, true, false, Blocked},
		{Up, false, true, Insecure}, {Down, false, false, Insecure},
	} {
		if got := c.device.Carried(c.locked, c.carried); got != c.want {
			t.Errorf("%s, locked %t, carried %t: %s, want %s", c.device, c.locked, c.carried, got, c.want)
		}
	}
}
