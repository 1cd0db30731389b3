package update

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Updater keeps lists fresh. Its methods may be called concurrently.
type Updater struct {
	opts Options
	life context.Context // of the updates themselves, whoever asked for them
	wake chan struct{}
	room chan struct{} // for as many updates at a time

	mu    sync.Mutex // guards what follows, and the fields of entries
	lists []*entry   // in the order of the file
	gone  []*entry   // left the file while they were being updated
}

// entry is a list and how it stands.
type entry struct {
	list     List
	record   record
	unsaved  bool // record is newer than what is on disk, where it could not be written
	copy     Copy
	previous bool      // there is a version to go back to
	problem  string    // what was found wrong with what is stored
	next     time.Time // when to ask again
	running  *run
}

// run is an update that is under way. What came of it is there when done is
// closed.
type run struct {
	done     chan struct{}
	progress Progress // guarded by Updater.mu
	result   Result
}

// Result is what came of an update.
type Result struct {
	Name    string
	Changed bool   // the list has another content
	Entries int    // of its content now
	Err     error  // why it has not
	Gated   bool   // force would take it
	URL     string // where the content is from
}

// atATime is how many lists are fetched side by side.
const atATime = 3

// New returns an Updater without lists. What it does ends with life.
func New(life context.Context, o Options) *Updater {
	return &Updater{opts: o, life: life, wake: make(chan struct{}, 1), room: make(chan struct{}, atATime)}
}

// Set says which lists there are from now on. What is stored of a list that was
// not there before is mended. An update under way goes on by what it began with.
func (u *Updater) Set(lists []List) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := slices.Concat(u.lists, u.gone)
	u.lists, u.gone = nil, nil
	for _, l := range lists {
		i := slices.IndexFunc(old, func(e *entry) bool { return e.list.Name == l.Name })
		var e *entry
		if i >= 0 {
			e = old[i]
		} else {
			e = &entry{problem: storeOf(u.opts.Dir, l.Name).mend()}
			if e.problem != "" {
				u.opts.Log.Warn("a stored list was damaged", "list", l.Name, "problem", e.problem)
			}
		}
		e.list = l
		if i < 0 {
			u.look(e)
		}
		e.next = e.due(time.Now())
		u.lists = append(u.lists, e)
	}
	for _, e := range old {
		if e.running != nil && !slices.Contains(u.lists, e) {
			u.gone = append(u.gone, e) // its directory is in use: nobody else may begin there
		}
	}
	u.Poke()
}

// look reads how a list stands from what is stored.
func (u *Updater) look(e *entry) { e.look(u.opts.Dir) }

func (e *entry) look(dir string) {
	e.record, _ = storeOf(dir, e.list.Name).read() // mend has reported what is wrong with it
	e.copy = Stored(dir, e.list.Name)
	e.previous = Previous(dir, e.list.Name).Path != ""
	e.next = e.due(time.Now())
}

// Look returns how lists stand by what is stored in dir. It changes nothing.
func Look(dir string, lists []List) []Status {
	var all []Status
	for _, l := range lists {
		e := &entry{list: l}
		e.look(dir)
		e.problem = e.copy.Problem
		all = append(all, e.status())
	}
	return all
}

// Poke makes the schedule look again: a path may have opened. It never blocks.
func (u *Updater) Poke() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// First wait after a failure; each further one doubles it, up to what the list
// is asked at anyhow.
const firstWait = 30 * time.Second

// due returns when to ask for the list again.
func (e *entry) due(now time.Time) time.Time {
	every := e.list.Every
	asked := slices.ContainsFunc(e.list.urls(), func(s string) bool { return s == e.copy.Version.URL })
	var next time.Time
	switch r := e.record; {
	case r.Failures > 0:
		next = r.Tried.Add(spread(min(firstWait<<min(r.Failures-1, 20), every)))
	case r.Checked.IsZero() || !e.copy.Known || !asked || e.copy.Version.Proof != e.list.Proof.text():
		return now
	default:
		next = r.Checked.Add(spread(every))
	}
	if latest := now.Add(every); next.After(latest) {
		return latest // the clock was set back
	}
	return next
}

// spread returns a time of about d, so that not everybody asks at once.
func spread(d time.Duration) time.Duration {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	part := time.Duration(binary.BigEndian.Uint32(b[:])) % 1000
	return d - d/8 + d/8*part/1000
}

func (l List) urls() []string {
	var all []string
	for _, u := range l.URLs {
		all = append(all, u.String())
	}
	return all
}

// Run updates every list when its time has come, and its path is open, until
// ctx ends.
func (u *Updater) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.wake:
		case <-timer.C:
		}
		timer.Reset(u.startDue())
	}
}

// startDue starts what is due, and returns when the next one is.
func (u *Updater) startDue() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	wait := 24 * time.Hour
	now := time.Now()
	for _, e := range u.lists {
		switch left := e.next.Sub(now); {
		case e.running != nil || !e.list.Path.Open():
		case left > 0:
			wait = min(wait, left)
		default:
			u.start(e, false)
		}
	}
	return wait
}

// start updates a list in the background. The caller holds u.mu.
func (u *Updater) start(e *entry, force bool) *run {
	r := &run{done: make(chan struct{}), progress: Progress{Total: -1}}
	e.running = r
	a := &attempt{opts: u.opts, list: e.list, force: force}
	if e.unsaved {
		a.failures = e.record.Failures
	}
	a.told = func(p Progress) {
		u.mu.Lock()
		defer u.mu.Unlock()
		r.progress = p
	}
	go func() {
		u.room <- struct{}{}
		changed, err := a.run(u.life)
		<-u.room
		if changed {
			u.opts.Log.Info("a list has a new content", "list", a.list.Name, "entries", a.record.Versions[0].Summary.Entries)
			if err = u.opts.Changed(u.life); err != nil {
				err = fmt.Errorf("the new content of list %s is there, and not in use: %w", a.list.Name, err)
			}
		} else if err != nil && u.life.Err() == nil {
			u.opts.Log.Warn("a list was not updated", "list", a.list.Name, "err", err)
		}
		u.finish(e, r, a, changed, err)
	}()
	return r
}

func (u *Updater) finish(e *entry, r *run, a *attempt, changed bool, err error) {
	u.mu.Lock()
	u.look(e)
	if e.unsaved = a.unsaved; e.unsaved {
		e.record = a.record
		e.next = e.due(time.Now())
	}
	u.gone = slices.DeleteFunc(u.gone, func(g *entry) bool { return g == e })
	if changed {
		e.problem = ""
	}
	e.running = nil
	r.result = Result{
		Name: e.list.Name, Changed: changed, Entries: e.copy.Version.Summary.Entries, URL: e.copy.Version.URL,
		Err: err, Gated: err != nil && e.record.Gated,
	}
	u.mu.Unlock()
	close(r.done)
	u.Poke()
}

// Update asks for lists now, and waits until what they have then is in use. An
// update that is under way already is waited for, and another is started only if
// that one failed: what it failed for may be mended, or be what force is for. With
// force, a content is taken that the gates for size and age would refuse. No
// names are all lists.
func (u *Updater) Update(ctx context.Context, names []string, force bool) ([]Result, error) {
	runs, err := u.startAll(names, force)
	if err != nil {
		return nil, err
	}
	var all []Result
	for _, r := range runs {
		result, err := r.wait(ctx)
		if err == nil && result.Err != nil && r.joined {
			var again []asked
			if again, err = u.startAll([]string{result.Name}, force); err == nil {
				result, err = again[0].wait(ctx)
			}
		}
		if err != nil {
			return all, err
		}
		all = append(all, result)
	}
	return all, nil
}

// asked is a run that somebody waits for; joined if it was under way before.
type asked struct {
	*run
	joined bool
}

func (a asked) wait(ctx context.Context) (Result, error) {
	select {
	case <-a.done:
		return a.result, nil
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

func (u *Updater) startAll(names []string, force bool) ([]asked, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(names) == 0 {
		for _, e := range u.lists {
			names = append(names, e.list.Name)
		}
	}
	var chosen []*entry
	for _, name := range names {
		e, err := u.find(name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, e)
	}
	var runs []asked
	for _, e := range chosen {
		r := asked{e.running, e.running != nil}
		if !r.joined {
			r.run = u.start(e, force)
		}
		runs = append(runs, r)
	}
	return runs, nil
}

// UnknownError is the name of a list that is not fetched.
type UnknownError string

func (e UnknownError) Error() string {
	return fmt.Sprintf("no list %q is fetched", string(e))
}

func (u *Updater) find(name string) (*entry, error) {
	for _, e := range u.lists {
		if e.list.Name == name {
			return e, nil
		}
	}
	return nil, UnknownError(name)
}

// Rollback makes the previous content of a list its content, and waits until it
// is in use. The one that it leaves is not fetched again; a third one will be.
func (u *Updater) Rollback(name string) (Version, error) {
	u.mu.Lock()
	e, err := u.find(name)
	if err == nil && e.running != nil {
		err = fmt.Errorf("list %s is being updated", name)
	}
	if err != nil {
		u.mu.Unlock()
		return Version{}, err
	}
	v, err := storeOf(u.opts.Dir, name).rollback()
	u.look(e)
	e.unsaved = false
	u.mu.Unlock()
	if err != nil {
		return Version{}, fmt.Errorf("list %s: %w", name, err)
	}
	return v, u.opts.Changed(u.life) // whoever asked may have gone: it is stored, so it is used
}

// Status is how a list stands.
type Status struct {
	Name     string
	URLs     []string // without passwords and queries
	Via      string
	Every    time.Duration
	Copy     Copy // a zero Copy: there is none
	Previous bool // there is a version to go back to
	Checked  time.Time
	Tried    time.Time
	Next     time.Time
	Failure  Failure
	Waiting  bool      // for its path to open
	Progress *Progress // of an update under way
}

// Failure is why the last update failed, and what was found wrong with what is
// stored. The zero Failure is none.
type Failure struct {
	Text    string
	Gated   bool // force would take the content
	Times   int
	Problem string
	Left    bool // the newest content is one that a person went back from
}

// Status returns how every list stands, in the order of Set.
func (u *Updater) Status() []Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []Status
	for _, e := range u.lists {
		all = append(all, e.status())
	}
	return all
}

func (e *entry) status() Status {
	r := e.record
	s := Status{
		Name: e.list.Name, Via: e.list.Path.Name, Every: e.list.Every, Copy: e.copy, Previous: e.previous,
		Checked: r.Checked, Tried: r.Tried, Next: e.next, Waiting: !e.list.Path.Open(),
		Failure: Failure{Text: r.Error, Gated: r.Gated, Times: r.Failures, Problem: e.problem, Left: r.Left != ""},
	}
	for _, from := range e.list.URLs {
		s.URLs = append(s.URLs, shown(from))
	}
	if e.running != nil {
		p := e.running.progress
		s.Progress = &p
	}
	return s
}
