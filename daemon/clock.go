package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/web/api"
)

// Clock is the wall clock of this host.
type Clock interface {
	Now() time.Time
	// Synchronised reports whether something keeps it right, as NTP does.
	Synchronised() bool
}

func (o Options) clock() Clock {
	if o.Clock == nil {
		return hostClock{}
	}
	return o.Clock
}

// hostClock is the kernel's.
type hostClock struct{}

func (hostClock) Now() time.Time { return time.Now() }

// Synchronised asks the kernel, which is told by every NTP client (adjtimex(2)).
func (hostClock) Synchronised() bool {
	state, err := unix.Adjtimex(&unix.Timex{})
	return err == nil && state != unix.TIME_ERROR
}

// timekeeper says whether the wall clock can be right. One that is behind what
// is known cannot: that of a router without a clock chip, say, until NTP has set
// it. Certificates fail by such a clock, and the far end of a tunnel takes its
// handshakes for replayed ones.
type timekeeper struct {
	wall  Clock
	file  stateFile
	built time.Time // of this program
	log   *slog.Logger

	mu     sync.Mutex // guards following
	known  time.Time  // the last time that was known to be past
	stored time.Time  // known, as the file has it
	late   bool       // the clock is behind
	since  time.Time  // late
	unkept error      // of writing the file
}

// clockName is the file of the last known time in the state directory.
const clockName = "clock"

// slack is how far a clock may be set back: NTP does so when it begins.
const slack = time.Minute

// How often the clock is looked at, and the time is kept. A router's flash takes
// 24 small writes a day.
const (
	clockEvery = time.Second
	keepEvery  = time.Hour
)

func clockFile(d Dirs) stateFile {
	return stateFile{path: filepath.Join(d.State, clockName), kind: "smartdns clock 1", limit: 1 << 10}
}

// open reads what time it was when we last knew. What cannot be read is
// set aside: the date of the program is still there.
func (k *timekeeper) open(o Options) {
	k.wall, k.file, k.built, k.log = o.clock(), clockFile(o.Dirs), buildDate(), o.Log
	var err error
	if k.known, err = keptTime(k.file.load); err != nil {
		k.log.Warn("the last known time is forgotten: " + err.Error())
	}
	k.stored = k.known
	k.look()
}

// waitingNow says whether a daemon that started now would wait for the clock.
func waitingNow(o Options) bool {
	k := timekeeper{wall: o.clock(), built: buildDate()}
	k.known, _ = keptTime(clockFile(o.Dirs).peek) // a damaged file is the daemon's to report
	k.look()
	return k.late
}

// keptTime reads the file with one of its methods load and peek.
func keptTime(by func(func(io.Reader) error) error) (t time.Time, err error) {
	err = by(func(r io.Reader) error {
		text, err := io.ReadAll(r)
		if err == nil {
			t, err = time.Parse(time.RFC3339, string(text))
		}
		return err
	})
	return t, err
}

// pastLocked is what time it is at least.
func (k *timekeeper) pastLocked() time.Time {
	if k.known.After(k.built) {
		return k.known
	}
	return k.built
}

// Now is the time that certificates are judged by: the clock's, or what is known
// to be past.
func (k *timekeeper) Now() time.Time {
	if k.wall == nil {
		return time.Now() // nothing is known
	}
	now := k.wall.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if past := k.pastLocked(); now.Before(past) {
		return past
	}
	return now
}

// waiting reports whether the clock was behind when it was last looked at.
func (k *timekeeper) waiting() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.late
}

// look judges the clock, and reports whether that changed. A clock that was
// ahead, and that somebody has put right since, is behind the time that it made
// us know: the kernel says that it is right.
func (k *timekeeper) look() (changed bool) {
	now := k.wall.Now().Round(0)
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.late
	k.late = now.Add(slack).Before(k.pastLocked())
	if k.late && !now.Before(k.built) && k.wall.Synchronised() {
		k.late, k.known = false, now
	}
	if !k.late && now.After(k.known) {
		k.known = now
	}
	if k.late && !was {
		k.since = time.Now()
	}
	return k.late != was
}

// keep writes the last known time where that is due, or at once.
func (k *timekeeper) keep(now bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.late || k.known.IsZero() {
		return
	}
	if age := k.known.Sub(k.stored); !now && age < keepEvery && age >= 0 {
		return
	}
	text := k.known.UTC().Format(time.RFC3339)
	err := k.file.save(func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
	if err != nil && k.unkept == nil {
		k.log.Warn("the last known time is not kept: " + oneLine(err.Error()))
	}
	k.unkept, k.stored = err, k.known // the next try is an hour away
}

// run looks at the clock until ctx ends. changed is called after each change of
// waiting.
func (k *timekeeper) run(ctx context.Context, changed func()) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	k.keep(false)
	defer k.keep(true)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if k.look() {
			if k.waiting() {
				k.log.Warn(k.condition().What)
			} else {
				k.log.Info("the clock is set", "time", k.wall.Now().Format(time.RFC3339))
			}
			changed()
		}
		k.keep(false)
	}
}

// condition says what is waited for.
func (k *timekeeper) condition() api.Condition {
	now := k.wall.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	what := "this program was built at"
	if k.known.After(k.built) {
		what = "this host last ran at"
	}
	const layout = "2006-01-02 15:04 MST"
	return api.Condition{
		Severity: severityError, Since: k.since,
		What: fmt.Sprintf("waiting for time: the clock says %s, but %s %s; until it is set, NTP and the names of its servers go direct, and tunnels may get no answer",
			now.UTC().Format(layout), what, k.pastLocked().UTC().Format(layout)),
		Fix: fmt.Sprintf("set the clock, by NTP or by: date -s 'YYYY-MM-DD HH:MM'; if it is right: rm %s, and restart", k.file.path),
	}
}

// followClock lets the host ask for the time while the clock is behind.
func (e *engine) followClock() {
	waiting := e.clock.waiting()
	if waiting == (e.policy.Names.First() != nil) {
		return
	}
	p := *e.policy
	if waiting {
		p.Names = p.Names.After(timeFirst(timeServers(os.DirFS("/"))))
	} else {
		p.Names = p.Names.After(nil)
	}
	e.policy = &p
	e.resolver.Swap(e.policy)
}

// clockChanged has all that failed by a wrong clock tried again at once.
func (e *engine) clockChanged() {
	e.poke()
	if e.clock.waiting() {
		return
	}
	for _, t := range e.shown.Load().tunnels {
		if t.monitor != nil {
			t.monitor.CallAgain()
		}
	}
}
