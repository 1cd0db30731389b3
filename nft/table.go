package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// Mode says who may change our table.
type Mode uint8

// The values of [routing] table.
const (
	Owned  Mode = iota // only we, where the kernel can do that (Linux 6.9)
	Shared             // root, too; Lost tells
)

// Options are how a Table works.
type Options struct {
	Mode   Mode
	Logger *slog.Logger // nil = silent
}

// A Table is table inet smartdns of the network namespace in which it was
// opened. Its methods may be called concurrently.
type Table struct {
	log    *slog.Logger
	marker *Marker
	ledger *Ledger
	lost   chan struct{}
	tasks  tasks
	known  atomic.Pointer[contents] // nil: nothing
	sockets

	mu    sync.Mutex // guards the rest and holds off a second Set
	flags uint32     // the table's
	watch *Watch     // the goroutine's that feeds lost
	m     messages
	made  map[string]made // the static sets of the last ruleset
	woken bool            // conntrack has been told of the connections from before us
	owed  []flowStep      // flows that the table of now has no room for, and that go on
}

// sockets are those of a Table.
type sockets struct {
	owner *conn   // changes the table; in mode Owned the kernel refuses every other
	state *reader // observes for Set
	marks *reader // reads sets of marks, which takes long
	flows *conn   // talks to conntrack
}

// tasks are the goroutines of a Table.
type tasks struct {
	sync.WaitGroup
	once   sync.Once
	refill chan struct{}
}

// Open prepares to work on the table, and changes nothing yet. What an earlier
// run of the program left there is adopted by the first Set. Close must be
// called.
func Open(ctx context.Context, o Options) (*Table, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t := &Table{log: o.Logger, ledger: newLedger(), lost: make(chan struct{}, 1), flags: flagOwner | flagPersist}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	t.tasks.refill = make(chan struct{}, 1)
	if err := t.dial(); err != nil {
		t.closeSockets()
		return nil, err
	}
	t.marker = newMarker(t.owner, t.ledger)
	if o.Mode == Shared {
		if err := t.share(); err != nil {
			t.closeSockets()
			return nil, err
		}
	}
	t.tasks.Go(t.marker.run)
	t.tasks.Go(t.refill)
	t.tasks.Go(t.reviseFlows)
	return t, nil
}

func (t *sockets) dial() (err error) {
	if t.owner, err = dial(unix.NETLINK_NETFILTER); err != nil {
		return explain("using nftables", err)
	}
	t.owner.room(16<<20, 4<<20)
	if t.flows, err = dial(unix.NETLINK_NETFILTER); err != nil {
		return explain("using conntrack", err)
	}
	for _, r := range []**reader{&t.state, &t.marks} {
		c, err := dial(unix.NETLINK_NETFILTER)
		if err != nil {
			return explain("using nftables", err)
		}
		*r = &reader{c: c}
	}
	// The cheapest question tells whether nf_tables is there and we may ask.
	err = t.state.c.dump(&t.state.m, func(m *messages) {
		m.begin(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, 0)
		m.end()
	}, func(uint16, []byte) error { return nil })
	return explainAbsence(err)
}

// explainAbsence says what the kernel's answer to the first question means.
func explainAbsence(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w (%w)", ErrUnsupported, err)
	}
	return explain("using nftables", err)
}

// share makes the table one that others may change.
func (t *Table) share() error {
	w, err := newWatch(t.owner.port)
	if err != nil {
		return err
	}
	mine, err := newWatch(t.owner.port)
	if err != nil {
		w.Close()
		return err
	}
	t.flags, t.watch = 0, w
	t.marker.setWatch(mine)
	t.tasks.Go(func() {
		for w.wait() == nil {
			t.ledger.Reset()
			t.notice()
			select {
			case t.lost <- struct{}{}:
			default:
			}
		}
	})
	return nil
}

// notice asks for the ledger to be filled.
func (t *Table) notice() {
	select {
	case t.tasks.refill <- struct{}{}:
	default:
	}
}

// healAgain is how long after a failure.
const healAgain = 2 * time.Second

// refill heals the ledger in the background whenever it was emptied.
func (t *Table) refill() {
	var again <-chan time.Time
	failed := ""
	for {
		select {
		case <-t.tasks.refill:
		case <-again:
		case <-t.marker.stop:
			return
		}
		err := t.heal()
		if again = nil; err == nil {
			failed = ""
			continue
		}
		again = time.After(healAgain)
		if text := err.Error(); text != failed {
			failed = text
			t.log.Warn("bringing the marks back; until then every address is renewed with its next answer", "err", err)
		}
	}
}

// Close ends the goroutines and closes the sockets. The table stays, and can
// then be changed by anybody.
func (t *Table) Close() error {
	t.tasks.once.Do(func() { close(t.marker.stop) })
	t.mu.Lock()
	w := t.watch
	t.mu.Unlock()
	var err error
	if w != nil {
		err = w.Close()
	}
	t.tasks.Wait()
	t.marker.events.Lock()
	if t.marker.watch != nil {
		err = errors.Join(err, t.marker.watch.Close())
		t.marker.watch = nil
	}
	t.marker.events.Unlock()
	return errors.Join(err, t.closeSockets())
}

func (t *sockets) closeSockets() error {
	var errs []error
	for _, c := range []*conn{t.owner, t.flows} {
		if c != nil {
			errs = append(errs, c.close())
		}
	}
	for _, r := range []*reader{t.state, t.marks} {
		if r != nil {
			errs = append(errs, r.c.close())
		}
	}
	return errors.Join(errs...)
}

// Marker returns the one that adds marks to t.
func (t *Table) Marker() *Marker { return t.marker }

// Ledger returns the one that knows t's marks.
func (t *Table) Ledger() *Ledger { return t.ledger }

// Lost tells that somebody else changed the table: call Set again. Several
// changes may make one signal. It never tells anything about an owned table.
func (t *Table) Lost() <-chan struct{} { return t.lost }

// owned reports whether nobody else can change the table once Set succeeded.
func (t *Table) owned() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flags&flagOwner != 0
}

// Watch returns a Watch of the caller's own. That of an owned table never
// notices anything and costs nothing.
func (t *Table) Watch() (*Watch, error) {
	if t.owned() {
		return &Watch{}, nil
	}
	return newWatch(t.owner.port)
}

// Diff returns what Set would change now. It reads the table of another
// running program too, which Set would not touch.
func (t *Table) Diff(ctx context.Context, want Ruleset) ([]routing.Step, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.compile(want)
	if err = errors.Join(ctx.Err(), err); err != nil {
		return nil, err
	}
	todo, _, err := t.plan(p, false)
	if err == nil && todo.rebuilds {
		t.marker.commits.Lock()
		todo, _, err = t.plan(p, true)
		t.marker.commits.Unlock()
	}
	if err != nil {
		return nil, err
	}
	return todo.steps(), nil
}

// Set brings the table to want in one transaction, keeps the marks, and
// returns what it changed: nothing when want is there already. Chains and sets
// that are right are not touched. The kernel takes all of a transaction or
// none; after an error the table is as it was before.
//
// The first Set also gives the host's established TCP connections their
// conntrack entries, so that they go on by the main routing table.
func (t *Table) Set(ctx context.Context, want Ruleset) ([]routing.Step, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.compile(want)
	if err = errors.Join(ctx.Err(), err); err != nil {
		return nil, err
	}
	steps, err := t.set(p)
	if errors.Is(err, unix.EOPNOTSUPP) && t.flags&flagOwner != 0 {
		t.log.Info("this kernel cannot protect our table from others (Linux 6.9 can); watching it instead")
		if err := t.share(); err != nil {
			return nil, err
		}
		steps, err = t.set(p)
	}
	return steps, err
}

// compile is want's method of that name, with the sets of the last one.
func (t *Table) compile(want Ruleset) (program, error) {
	from := stock{t.made, map[string]made{}}
	p, err := want.compile(from)
	t.made = from.next
	return p, err
}

func (t *Table) set(p program) ([]routing.Step, error) {
	t.marker.heed()
	todo, have, err := t.plan(p, false)
	if err == nil && have.owner != 0 && have.owner != t.owner.port {
		err = fmt.Errorf("%w (netlink port %d, mostly its process id)", ErrForeign, have.owner)
	}
	if err != nil {
		return nil, err
	}
	done, err := t.adopt(todo, have)
	if err != nil {
		return done, err
	}
	if len(done) > 0 {
		if todo, have, err = t.plan(p, false); err != nil {
			return done, err
		}
	}
	if len(todo.table) > 0 && !have.hooked() {
		first, err := t.activate(have, p)
		done = append(done, first...)
		if err != nil {
			return done, err
		}
		if todo, _, err = t.plan(p, false); err != nil {
			return done, err
		}
	}
	todo, err = t.apply(p, todo)
	if err != nil {
		return done, err
	}
	// From here on the kernel has it, whatever fails.
	for _, s := range todo.table {
		done = append(done, s)
	}
	if len(todo.table) > 0 {
		err = t.prove(p)
	}
	ended, ferr := t.endFlows(todo.flows)
	return append(done, ended...), errors.Join(err, ferr)
}

// look reads the table. A mark that is made meanwhile interrupts the reading
// of a long set: if that happens all the time, marks wait, unless the caller
// holds their commits already.
func (t *Table) look(by *reader, held bool, known contents) (snapshot, error) {
	have, err := by.snapshot(known)
	if errors.Is(err, errInterrupted) && !held {
		t.marker.commits.Lock()
		have, err = by.snapshot(known)
		t.marker.commits.Unlock()
	}
	return have, explain("reading table inet "+TableName, err)
}

// plan observes and compares. held says that the caller holds the commits of
// marks.
func (t *Table) plan(p program, held bool) (plan, snapshot, error) {
	have, err := t.look(t.state, held, t.knows())
	if err != nil {
		return plan{}, have, err
	}
	var back []kept
	rebuild := have.exists && p.mustRebuild(have, t.flags)
	if rebuild && held {
		if back, err = t.state.keep(p, have); err != nil {
			return plan{}, have, err
		}
	}
	for _, s := range p.sets {
		if _, ok := have.sets[s.name]; s.marks && !ok {
			if k := (kept{s.name, t.ledger.lostFrom(s.name)}); len(k.marks) > 0 {
				back = append(back, k)
			}
		}
	}
	todo := p.roomFor(back).diff(have, t.flags, t.owner.port, back)
	todo.rebuilds = rebuild
	todo.flows = append(todo.flows, t.owed...)
	return todo, have, nil
}

// apply makes the transaction while no mark is on its way, and returns what it
// did.
func (t *Table) apply(p program, todo plan) (plan, error) {
	t.marker.commits.Lock()
	defer t.marker.commits.Unlock()
	if todo.rebuilds {
		// What was acknowledged since the marks were read would be missing.
		var err error
		if todo, _, err = t.plan(p, true); err != nil {
			return todo, err
		}
	}
	if todo.fills {
		t.known.Store(nil)
	}
	if len(todo.table) > 0 {
		if err := t.transact(todo.table); err != nil {
			return todo, err
		}
	}
	if todo.empties {
		t.ledger.Reset()
	}
	t.ledger.setPaths(p.paths, p.field, p.marks)
	t.notice()
	return todo, nil
}

// endFlows ends flows. Those that go on because it failed are tried again by
// the next Set.
func (t *Table) endFlows(flows []flowStep) (done []routing.Step, err error) {
	t.owed = nil
	var errs []error
	for _, f := range flows {
		if err := deleteFlows(t.flows, f.mark, uint32(f.field)); err != nil {
			t.owed = append(t.owed, f)
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
			continue
		}
		done = append(done, f)
	}
	return done, errors.Join(errs...)
}

func (t *Table) transact(steps []step) error {
	firsts := make([]uint32, len(steps))
	err := t.owner.transact(&t.m, func(m *messages) {
		for i, s := range steps {
			firsts[i] = m.n
			s.emit(m)
		}
	})
	if r, ok := errors.AsType[refusal](err); ok {
		if i := stepOf(firsts, r); i >= 0 {
			return explain(steps[i].text, err)
		}
	}
	return explain("changing table inet "+TableName, err)
}

// prove reads back what only fails silently: how many elements long sets have,
// and that every rule is there.
func (t *Table) prove(p program) error {
	want := p.contents()
	have, err := t.look(t.state, false, want)
	if err != nil {
		return err
	}
	for _, s := range p.sets {
		if n := len(want[s.name]); !s.marks && n != len(have.sets[s.name].elements) {
			return fmt.Errorf("set %s has %d of %d elements in the kernel", s.name, len(have.sets[s.name].elements), n)
		}
	}
	t.learn(want)
	for _, c := range p.chains {
		if n := len(have.chains[c.name].rules); n != len(c.rules) {
			return fmt.Errorf("chain %s has %d of %d rules in the kernel", c.name, n, len(c.rules))
		}
	}
	return nil
}

// Delete removes the table with everything in it, whoever made it, and returns
// what it changed. A table of another running program is left alone: ErrForeign.
func (t *Table) Delete(ctx context.Context) ([]routing.Step, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	have, err := t.state.table()
	switch {
	case err != nil:
		return nil, explain("reading table inet "+TableName, err)
	case !have.exists:
		return nil, nil
	case have.owner != 0 && have.owner != t.owner.port:
		return nil, fmt.Errorf("%w (netlink port %d, mostly its process id)", ErrForeign, have.owner)
	}
	t.marker.commits.Lock()
	defer t.marker.commits.Unlock()
	gone := step{"nft delete table inet " + TableName, deleteTable}
	t.known.Store(nil)
	if err := t.transact([]step{gone}); err != nil {
		return nil, err
	}
	t.ledger.clear()
	return []routing.Step{gone}, nil
}

// A State is what people want to know about the table.
type State struct {
	Exists   bool
	Owner    uint32             // netlink port of the program that owns the table; 0 = nobody
	Sets     map[string]int     // elements per set; a range in a static set counts as one
	Sizes    map[string]uint32  // how many marks there is room for, per set of marks
	Counters map[string]Counter // new_PATH flows; stray_, rejected_, locked_PATH, inbound, invalid, spoofed packets
}

// Observe asks the kernel. It takes long (0.5 s per 100,000 marks) where the
// kernel does not count elements itself.
func (t *Table) Observe(ctx context.Context) (State, error) {
	if err := ctx.Err(); err != nil {
		return State{}, err
	}
	have, err := t.look(t.marks, false, t.knows())
	if err != nil {
		return State{}, err
	}
	s := State{Exists: have.exists, Owner: have.owner, Sets: map[string]int{}, Sizes: map[string]uint32{}, Counters: have.counters}
	for name, k := range have.sets {
		for _, e := range k.elements {
			if !e.end {
				s.Sets[name]++
			}
		}
		if k.flags&unix.NFT_SET_TIMEOUT == 0 {
			s.Sets[name] += 0
			continue
		}
		s.Sizes[name] = k.size
		if s.Sets[name] = k.count; k.count < 0 {
			s.Sets[name] = 0
			if err := t.marks.elementsOnce(name, func(element, time.Duration) { s.Sets[name]++ }); err != nil && err != errInterrupted {
				return s, explain("reading set "+name, err)
			}
		}
	}
	return s, nil
}

// Marks lists the marks in the kernel, with what is left of their lives; 0 =
// for ever, which only an admin can have made. The order is that of the paths,
// then of the addresses. Marks that are made or end meanwhile may be missing.
func (t *Table) Marks(ctx context.Context) ([]routing.Mark, error) {
	var out []routing.Mark
	for _, p := range t.paths() {
		for _, f := range families() {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			from := len(out)
			err := t.marks.elementsOnce(setOf(p, f), func(e element, left time.Duration) {
				out = append(out, routing.Mark{Addr: claimKey{addr: e.key, is4: f.size == 4}.netip(), Path: p, Life: left})
			})
			if err != nil && err != errInterrupted { // by marks made meanwhile
				return nil, explain("reading set "+setOf(p, f), err)
			}
			slices.SortFunc(out[from:], func(a, b routing.Mark) int { return a.Addr.Compare(b.Addr) })
		}
	}
	return out, nil
}

// Element asks the kernel whether an address has a mark for a path, and how
// long it lives on; 0 = for ever.
func (t *Table) Element(ctx context.Context, a netip.Addr, p routing.Path) (left time.Duration, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	left, ok, err = getMark(t.marks.c, &t.marks.m, setOf(p, familyOf(a)), claimKey{addr: keyOf(a), is4: a.Is4()})
	return left, ok, explain("asking for "+a.String(), err)
}

func (t *Table) paths() []routing.Path {
	t.ledger.mu.RLock()
	defer t.ledger.mu.RUnlock()
	return slices.Clone(t.ledger.paths)
}

// adopt makes a table that a run of before left this one's. Linux takes no new
// chains in the transaction that does.
func (t *Table) adopt(todo plan, have snapshot) ([]routing.Step, error) {
	if !have.exists || todo.rebuilds || t.flags&flagOwner == 0 || have.owner == t.owner.port {
		return nil, nil
	}
	mine := addTable(t.flags)
	if err := t.transact([]step{mine}); err != nil {
		return nil, err
	}
	return []routing.Step{mine}, nil
}
