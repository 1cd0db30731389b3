package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"smartdns/lab"
)

// traffic is what goes on while something breaks: probes from the LAN client
// and from the gateway itself, to servers at home and abroad, over v4 and v6.
// Some open a connection and send a datagram each time, some talk in one long
// session. It only notes what happens: the sniffer is the judge of leaks.
type traffic struct {
	w      *world
	probes []*probe
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// probe is one loop of a traffic.
type probe struct {
	name   string
	abroad bool
	long   bool                        // it is one session
	once   func(context.Context) error // one attempt
	limit  time.Duration               // for an attempt

	mu       sync.Mutex // guards following
	lastGood time.Time  // when the last attempt that succeeded began
	good     int
	failures []failed
}

// failed is an attempt that did not work.
type failed struct {
	began time.Time
	took  time.Duration
	err   error
}

const (
	probeEvery = 25 * time.Millisecond
	newLimit   = 3 * time.Second // of a new connection, until it is tried again
	sendAgain  = time.Second     // after this time, a datagram that nobody has answered
	longLimit  = 4 * time.Second // of a line in a session: TCP sends it again and again
)

// errWrongWay is a probe's that reached its server by another path than the
// policy's.
var errWrongWay = errors.New("went the wrong way")

// traffic begins probing, and returns when every probe has worked once. It ends
// with the test.
func (w *world) traffic() *traffic {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	tr := &traffic{w: w, cancel: cancel}
	w.t.Cleanup(tr.stop)
	for _, from := range []*lab.Namespace{w.Client, w.Gateway.Namespace} {
		for _, to := range []netip.Addr{lab.HomeWebV4, lab.HomeWebV6, lab.AbroadWebV4, lab.AbroadWebV6} {
			tr.add(from, to)
		}
	}
	for _, family := range []string{"cn", "foreign"} {
		n := 0
		tr.probes = append(tr.probes, &probe{name: "client asks for fresh names of " + family, abroad: family == "foreign", limit: 2 * time.Second, once: func(ctx context.Context) error {
			n++ // a name that nobody has asked for
			m, err := w.Client.Ask(ctx, lab.Question{Server: gatewayDNS, Name: fmt.Sprintf("n%d.%s.test", n, family)})
			if err == nil && len(lab.Addresses(m)) == 0 {
				err = fmt.Errorf("no address in %v", m)
			}
			return err
		}})
	}
	for _, p := range tr.probes {
		tr.wait.Go(func() { p.run(ctx) })
	}
	tr.works("at the beginning", 5*time.Second)
	return tr
}

// add makes the probes from a host to a server.
func (tr *traffic) add(from *lab.Namespace, to netip.Addr) {
	abroad := lab.IsAbroad(to)
	rightWay := func(s lab.Seen) error {
		if s.ThroughTunnel() != abroad {
			return fmt.Errorf("%w: %s", errWrongWay, way(s))
		}
		return nil
	}
	name := fmt.Sprintf("%s to %s", from.Name, to)
	tr.probes = append(tr.probes, &probe{name: name + ", new", abroad: abroad, limit: newLimit, once: func(ctx context.Context) error {
		begun := time.Now()
		s, err := from.Visit(ctx, port443(to))
		if err != nil {
			return err
		}
		connected := time.Since(begun)
		// A machine with much else to do loses a datagram now and then.
		one, cancel := context.WithTimeout(ctx, sendAgain)
		defer cancel()
		d, err := from.Datagram(one, port443(to))
		if err != nil && timedOut(err) {
			d, err = from.Datagram(ctx, port443(to))
		}
		if err != nil {
			return fmt.Errorf("by UDP, %s after TCP worked in %s: %w", (time.Since(begun) - connected).Round(time.Millisecond), connected.Round(time.Millisecond), err)
		}
		return errors.Join(rightWay(s), rightWay(d))
	}})
	var session *lab.Session
	tr.probes = append(tr.probes, &probe{name: name + ", in a session", abroad: abroad, long: true, limit: longLimit, once: func(ctx context.Context) error {
		if session == nil {
			var err error
			dial, cancel := context.WithTimeout(ctx, newLimit)
			defer cancel()
			if session, err = from.Connect(dial, port443(to)); err != nil {
				session = nil
				return err
			}
			if err := rightWay(session.Seen); err != nil {
				session.Close()
				session = nil
				return err
			}
		}
		err := session.Say(ctx, "still here")
		if err != nil {
			session.Close()
			session = nil
		}
		return err
	}})
}

// run attempts until ctx ends.
func (p *probe) run(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, p.limit)
		err := p.once(limited)
		cancel()
		if ctx.Err() != nil {
			return
		}
		p.note(began, err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *probe) note(began time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.good++
		p.lastGood = began
		return
	}
	p.failures = append(p.failures, failed{began, time.Since(began), err})
}

// since returns how often p worked, and how it failed, in attempts that began
// after t.
func (p *probe) since(t time.Time) (works bool, failures []failed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.failures {
		if f.began.After(t) {
			failures = append(failures, f)
		}
	}
	return p.lastGood.After(t), failures
}

// stop ends the probes.
func (tr *traffic) stop() {
	tr.cancel()
	tr.wait.Wait()
}

// works waits until every probe has worked in an attempt that began after the
// call and after the last that failed, and returns how long that took.
func (tr *traffic) works(what string, limit time.Duration) time.Duration {
	tr.w.t.Helper()
	begun := time.Now()
	return tr.w.waitFor("all traffic flows "+what, limit, func() error {
		var errs []error
		for _, p := range tr.probes {
			ok, failures := p.since(begun)
			if n := len(failures); n > 0 && p.fails(failures[n-1]) || !ok && n == 0 {
				err := errors.New("nothing yet")
				if n > 0 {
					err = failures[n-1].err
				}
				errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			}
		}
		return errors.Join(errs...)
	})
}

// fails reports whether nothing has worked after f.
func (p *probe) fails(f failed) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.lastGood.After(f.began)
}

// unharmed fails the test for every attempt since t that did not work, of the
// probes that which selects.
func (tr *traffic) unharmed(since time.Time, what string, which func(*probe) bool) {
	tr.w.t.Helper()
	for _, p := range tr.probes {
		if _, failures := p.since(since); which(p) && len(failures) > 0 {
			f := failures[0]
			tr.w.t.Errorf("%s: %s failed %d times, first %s after the beginning: %v", what, p.name, len(failures), f.began.Sub(since).Round(time.Millisecond), f.err)
		}
	}
}

// Which probes.
func atHome(p *probe) bool  { return !p.abroad }
func allProbes(*probe) bool { return true }

// fault is something that others do to us.
type fault struct {
	what   string
	do     func(*world) error
	spared func(*probe) bool // whose attempts may not fail meanwhile; nil: those at home
	limit  time.Duration     // of the repair; 2 s if 0
}

// survives breaks something under traffic, waits until the daemon has repaired
// it and everything flows again, and checks that nothing leaked.
func (w *world) survives(f fault) {
	w.t.Helper()
	tr := w.traffic()
	w.repairs(tr, f)
	tr.stop()
	w.noLeaks()
}

// repairs is survives with traffic that goes on.
func (w *world) repairs(tr *traffic, f fault) {
	w.t.Helper()
	limit := f.limit
	if limit == 0 {
		limit = 2 * time.Second
	}
	begun := time.Now()
	if err := f.do(w); err != nil {
		w.t.Fatalf("%s: %v", f.what, err)
	}
	// Time limits are promises for an idle machine (SECURITY 3): a test fails at
	// three times as much.
	done := time.Now()
	tr.works("after "+f.what, 3*limit)
	flows := time.Since(done)
	w.waitFor("the kernel is as planned after "+f.what, 3*limit, w.asPlanned)
	w.t.Logf("%s: all traffic flows after %s, the kernel is as planned after %s", f.what, flows.Round(time.Millisecond), time.Since(done).Round(time.Millisecond))
	spared := f.spared
	if spared == nil {
		spared = atHome
	}
	tr.unharmed(begun, f.what, spared)
}

// asPlanned returns what smartdns diff would change.
func (w *world) asPlanned() error {
	out, err := w.cli("diff")
	if err != nil || out != "" {
		return fmt.Errorf("smartdns diff: %v\n%s", err, out)
	}
	return nil
}

// shared is a table that root may change.
func shared(config string) string { return config + "\n[routing]\ntable = \"shared\"\n" }

// run executes a program on the gateway, as an admin would.
func (w *world) run(name string, args ...string) (string, error) {
	return w.Gateway.Exec(w.context(10*time.Second), name, args...)
}

// commands is a fault that an admin makes by shell commands.
func commands(lines ...string) func(*world) error {
	return func(w *world) error {
		for _, l := range lines {
			words := strings.Fields(l)
			if _, err := w.run(words[0], words[1:]...); err != nil {
				return err
			}
		}
		return nil
	}
}

// reconfigure replaces the file that the daemon reads at a reload.
func (w *world) reconfigure(config string) error {
	return os.WriteFile(w.Gateway.ConfigFile(), []byte(config), 0o644)
}
