package routing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Kernel is the kernel, as far as routing goes.
type Kernel interface {
	// Observe returns what of ours is there, and the facts around it. The links
	// with the indexes in devices are ours whatever else they show.
	Observe(ctx context.Context, devices []int) (State, Facts, error)
	// Apply makes the steps in order. A step that fails does not stop those
	// after it, unless they would fail for the same reason.
	Apply(ctx context.Context, steps []Step) error
	// Events gets a value after something in Observe's answer may have changed.
	// It never blocks the kernel: events that nobody took are one event. It is
	// closed when there will be no more.
	Events() <-chan struct{}
}

// How a Reconciler paces itself.
const (
	debounce     = 100 * time.Millisecond // between looks at the kernel
	fightWindow  = 10 * time.Second
	fightRepairs = 5               // in fightWindow; more is a fight
	retryFailed  = 2 * time.Second // after an error
	resync       = time.Minute     // without any event: some sysctls have none
	settlePasses = 4               // a step may undo another: a first address takes the routes with it
)

// ErrUnsettled means that the kernel accepted every step and still is not as
// wanted.
var ErrUnsettled = errors.New("the kernel does not keep what it accepts")

// Status is what a Reconciler knows. It is a value that nobody changes.
type Status struct {
	Facts      Facts
	State      State       // as last observed
	Conditions []Condition // empty: all is well
	Repairs    uint64      // how often somebody else's change was undone
}

// Reconciler keeps the kernel as an Input wants it. Its methods are safe for
// concurrent use.
type Reconciler struct {
	kernel  Kernel
	log     *slog.Logger
	status  atomic.Pointer[Status]
	changed chan struct{}

	mu      sync.Mutex // guards following
	in      *Input     // nil before the first Set
	devices []int
	want    State       // as last planned
	repairs []time.Time // within fightWindow
	total   uint64
	fight   bool
	failed  failure
}

// failure is how the last attempt ended; the zero value means well.
type failure struct {
	err   error
	left  []Step // what could not be done
	retry time.Time
}

// NewReconciler returns a Reconciler of k. It changes nothing before Set.
func NewReconciler(k Kernel, log *slog.Logger) *Reconciler {
	r := &Reconciler{kernel: k, log: log, changed: make(chan struct{}, 1)}
	r.status.Store(&Status{})
	return r
}

// Status returns what is known now.
func (r *Reconciler) Status() *Status { return r.status.Load() }

// Changed gets a value after Status changed. It is for one reader.
func (r *Reconciler) Changed() <-chan struct{} { return r.changed }

// Set makes the kernel as in wants it, and returns the steps that it took, or
// tried to take if there is an error. With
// the zero Input it removes everything of ours, whoever put it there. After an
// error, Run keeps trying.
func (r *Reconciler) Set(ctx context.Context, in Input) ([]Step, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A link that is ours no longer is one last time, so that it is cleaned.
	devices := in.devices()
	r.devices = slices.Clone(devices)
	if r.in != nil {
		r.devices = append(r.devices, r.in.devices()...)
	}
	r.in = &in
	steps, err := r.settle(ctx)
	r.devices = devices
	return steps, err
}

// Look reads what of the kernel is there, and makes it the Status. It is for a
// start, which has to know before it sets anything.
func (r *Reconciler) Look(ctx context.Context) (State, Facts, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.look(ctx)
}

func (r *Reconciler) look(ctx context.Context) (State, Facts, error) {
	have, facts, err := r.kernel.Observe(ctx, r.devices)
	err = observing(err)
	r.publish(have, facts, err)
	return have, facts, err
}

// Run repairs the kernel after each of its events until ctx ends. Before the
// first Set it only follows the facts.
func (r *Reconciler) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-r.kernel.Events():
			if !ok {
				return errors.New("following kernel events: no more events")
			}
		case <-timer.C:
		}
		timer.Reset(r.pass(ctx))
		// Whatever comes now is one event with what comes right after it.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(debounce):
		}
	}
}

// pass looks at the kernel and repairs it if that is due. It returns when to
// look again if there is no event.
func (r *Reconciler) pass(ctx context.Context) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.in == nil {
		_, _, err := r.look(ctx)
		return wait(err)
	}
	have, facts, err := r.kernel.Observe(ctx, r.devices)
	if err != nil {
		r.publish(have, facts, observing(err))
		return retryFailed
	}
	now := time.Now()
	r.repairs = slices.DeleteFunc(r.repairs, func(t time.Time) bool { return now.Sub(t) >= fightWindow })
	want := Plan(*r.in, facts)
	left := Diff(want, have)
	if len(left) == 0 {
		r.failed = failure{}
		r.fight = r.fight && len(r.repairs) > 0
		r.publish(have, facts, nil)
		switch {
		case r.fight:
			return r.room(now)
		case len(facts.Stuck) > 0:
			return retryFailed // no event tells when somebody sets it
		}
		return resync
	}
	if r.failed.err != nil && now.Before(r.failed.retry) && reflect.DeepEqual(left, r.failed.left) {
		r.publish(have, facts, r.failed.err)
		return r.failed.retry.Sub(now)
	}
	// Only a change that we did not want is a repair: a new default route
	// changes the plan itself, and what failed was never there.
	if r.failed.err == nil && reflect.DeepEqual(want, r.want) {
		if len(r.repairs) >= fightRepairs {
			r.fight = true
			r.publish(have, facts, nil)
			return r.room(now)
		}
		r.repairs = append(r.repairs, now)
		r.total++
	}
	steps, err := r.settle(ctx)
	if len(steps) > 0 {
		r.log.Warn("repaired the kernel's routing", "steps", len(steps), "first", steps[0].String())
	}
	return wait(err)
}

// room returns how long it is until another repair is allowed.
func (r *Reconciler) room(now time.Time) time.Duration {
	return max(fightWindow-now.Sub(r.repairs[0]), debounce)
}

func wait(err error) time.Duration {
	if err != nil {
		return retryFailed
	}
	return resync
}

// settle observes, plans and applies until nothing is left to do, with r.mu
// held.
func (r *Reconciler) settle(ctx context.Context) ([]Step, error) {
	done, left, err := r.attempt(ctx)
	r.failed = failure{err: err, left: left, retry: time.Now().Add(retryFailed)}
	return done, err
}

// attempt is settle; left are the steps that failed.
func (r *Reconciler) attempt(ctx context.Context) (done, left []Step, err error) {
	for pass := 0; ; pass++ {
		have, facts, err := r.kernel.Observe(ctx, r.devices)
		if err != nil {
			err = observing(err)
			r.publish(have, facts, err)
			return done, nil, err
		}
		r.want = Plan(*r.in, facts)
		steps := Diff(r.want, have)
		if len(steps) > 0 && pass == settlePasses {
			err = fmt.Errorf("%w: still to do: %s", ErrUnsettled, steps[0])
		}
		if len(steps) == 0 || err != nil {
			r.publish(have, facts, err)
			return done, steps, err
		}
		for _, s := range steps {
			r.log.Debug("[#] " + s.String())
		}
		if err := r.kernel.Apply(ctx, steps); err != nil {
			err = fmt.Errorf("applying routing: %w", err)
			r.publish(have, facts, err)
			return append(done, steps...), steps, err
		}
		done = append(done, steps...)
	}
}

type observeError struct{ error }

func (e observeError) Unwrap() error { return e.error }

func observing(err error) error {
	if err == nil {
		return nil
	}
	return observeError{fmt.Errorf("observing the kernel's routing: %w", err)}
}

// publish makes a new Status, with r.mu held.
func (r *Reconciler) publish(have State, facts Facts, err error) {
	s := &Status{Facts: facts, State: have, Repairs: r.total}
	old := r.status.Load()
	if r.in != nil {
		s.Conditions = Conflicts(*r.in, facts)
	}
	if r.fight {
		s.Conditions = append(s.Conditions, Condition{Kind: Fighting, Text: fmt.Sprintf(
			"something keeps undoing our routing: more than %d repairs in %s; now repairing slowly, the locks stay", fightRepairs, fightWindow)})
	}
	if _, ok := errors.AsType[observeError](err); ok {
		s.Facts, s.State = old.Facts, old.State
		s.Conditions = append(s.Conditions, Condition{Kind: ObserveFailed, Text: err.Error()})
	} else if err != nil {
		s.Conditions = append(s.Conditions, Condition{Kind: ApplyFailed, Text: err.Error()})
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if o := slices.IndexFunc(old.Conditions, func(o Condition) bool { return o.Kind == c.Kind && o.Text == c.Text }); o >= 0 {
			c.Since = old.Conditions[o].Since
			continue
		}
		c.Since = time.Now()
		r.log.Warn(c.Text, "condition", string(c.Kind))
	}
	if reflect.DeepEqual(s, old) {
		return
	}
	r.status.Store(s)
	select {
	case r.changed <- struct{}{}:
	default: // somebody will look anyway
	}
}

func (in Input) devices() []int {
	var d []int
	for _, t := range in.Tunnels {
		if t.Index != 0 {
			d = append(d, t.Index)
		}
	}
	return d
}
