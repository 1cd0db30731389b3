package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// marksPerCommit bounds one transaction.
const marksPerCommit = 1000

// A Marker ties addresses to paths in the kernel. Its methods may be called
// concurrently: requests that wait while the kernel is busy with others become
// one transaction.
type Marker struct {
	c        *conn // the socket that owns the table
	ledger   *Ledger
	requests chan *request
	stop     chan struct{}
	stopped  chan struct{} // nobody answers requests any more
	added    chan struct{} // addresses have become a tunnel's

	commits sync.Mutex // held while kernel and ledger change together
	m       messages   // guarded by commits
	batch   []pending  // guarded by commits

	admitted []*request // of the requests that run answers

	events sync.Mutex // held while events of others are looked at
	watch  *Watch     // nil while nobody else can change the table; guarded by events

	pool sync.Pool
}

// A request is one answer's marks: the kernel takes all of them or none.
type request struct {
	marks []routing.Mark
	owner routing.Owner
	until time.Time
	err   error
	done  chan struct{}
}

// pending is an element on its way to the kernel.
type pending struct {
	key   claimKey
	now   time.Duration // when it was asked for, since the ledger's base
	life  time.Duration
	owner routing.Owner
	fresh bool // the kernel does not have it
	found bool // the kernel had it
}

func newMarker(c *conn, l *Ledger) *Marker {
	return &Marker{c: c, ledger: l, requests: make(chan *request, marksPerCommit), stop: make(chan struct{}), stopped: make(chan struct{}), added: make(chan struct{}, 1),
		pool: sync.Pool{New: func() any { return &request{done: make(chan struct{}, 1)} }}}
}

// Mark ties every address to its path, and returns when the kernel has
// acknowledged it, with the time at which the first of the marks ends: no TTL
// of the answer may go beyond it. Life is what routing.MarkLife returns. A mark
// is renewed when less than that is left, or half an hour where Life is the
// hour that every TTL up to 50 minutes gets. Other marks are left alone, and
// none is ever shortened. With an error none of the marks that were missing is
// there: errors.Is ErrFull, ErrQuota, ErrClosed, or the context's.
//
// An address may have marks for several paths: that of the tunnel that comes
// first in the file wins, direct wins over none. The marks are made on behalf of
// owner, who has at most MarksPerOwner of them. Owner 0 has any number.
func (k *Marker) Mark(ctx context.Context, owner routing.Owner, marks []routing.Mark) (until time.Time, err error) {
	if len(marks) == 0 {
		return time.Time{}, nil
	}
	if until, ok := k.ledger.lasts(time.Now(), marks); ok && !k.heed() {
		return until, nil
	}
	r := k.pool.Get().(*request)
	r.marks, r.owner = append(r.marks[:0], marks...), owner
	select {
	case k.requests <- r:
	case <-k.stop:
		return time.Time{}, ErrClosed
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	select {
	case <-r.done:
	case <-k.stopped:
		return time.Time{}, ErrClosed
	case <-ctx.Done():
		return time.Time{}, ctx.Err() // r stays with the committer
	}
	until, err = r.until, r.err
	k.pool.Put(r)
	return until, err
}

// heed voids the ledger when somebody else changed the table before now, and
// reports whether somebody did.
func (k *Marker) heed() bool {
	k.events.Lock()
	defer k.events.Unlock()
	if k.watch == nil || !k.watch.Foreign() {
		return false
	}
	k.ledger.Reset()
	return true
}

// setWatch says whether others can change the table.
func (k *Marker) setWatch(w *Watch) {
	k.events.Lock()
	defer k.events.Unlock()
	k.watch = w
}

// run commits until stop is closed.
func (k *Marker) run() {
	defer close(k.stopped)
	var waiting []*request
	for {
		select {
		case r := <-k.requests:
			waiting = k.collect(append(waiting[:0], r))
			k.commitAll(waiting)
		case <-k.stop:
			k.refuse()
			return
		}
	}
}

// collect takes everything that waits, up to the size of a transaction.
func (k *Marker) collect(waiting []*request) []*request {
	n := len(waiting[0].marks)
	for n < marksPerCommit {
		select {
		case r := <-k.requests:
			waiting = append(waiting, r)
			n += len(r.marks)
		default:
			return waiting
		}
	}
	return waiting
}

// refuse answers whatever was sent before stop.
func (k *Marker) refuse() {
	for {
		select {
		case r := <-k.requests:
			r.until, r.err = time.Time{}, ErrClosed
			r.done <- struct{}{}
		default:
			return
		}
	}
}

// commitAll makes one transaction of the requests. The kernel refuses it whole
// when one element is bad: then each request gets a transaction of its own.
func (k *Marker) commitAll(waiting []*request) {
	now := time.Now()
	k.admitted = k.admitted[:0]
	for _, r := range waiting {
		if r.err = nil; !k.ledger.admit(now, r.owner, r.marks) {
			r.err = ErrQuota
			continue
		}
		k.admitted = append(k.admitted, r)
	}
	err := k.commit(k.admitted)
	for _, r := range k.admitted {
		r.err = err
		if err != nil && len(k.admitted) > 1 {
			r.err = k.commit([]*request{r})
		}
	}
	now = time.Now()
	for _, r := range waiting {
		if r.until = (time.Time{}); r.err == nil {
			r.until = k.ledger.first(now, r.marks)
		}
		r.done <- struct{}{}
	}
}

func (k *Marker) commit(waiting []*request) error {
	k.commits.Lock()
	defer k.commits.Unlock()
	k.heed()
	epoch, complete, err := k.ledger.missing(time.Now(), waiting, &k.batch)
	if err != nil || len(k.batch) == 0 {
		return err
	}
	if !complete {
		k.lengthen()
	}
	return k.send(epoch)
}

// send makes a transaction of the batch. Its caller holds commits.
func (k *Marker) send(epoch uint64) error {
	emit := func(m *messages) { k.ledger.emit(m, k.batch) }
	err := k.c.transact(&k.m, emit)
	if errors.Is(err, unix.EEXIST) {
		// Somebody else has just added one: in a shared table they may.
		for i := range k.batch {
			k.batch[i].fresh = false
		}
		k.lengthen()
		err = k.c.transact(&k.m, emit)
	}
	if err != nil {
		return explain(fmt.Sprintf("marking %d addresses", len(k.batch)), err)
	}
	k.ledger.record(epoch, k.batch)
	k.tellNew()
	return nil
}

// tellNew says that addresses are a tunnel's that were not. Its caller holds
// commits.
func (k *Marker) tellNew() {
	if slices.ContainsFunc(k.batch, func(p pending) bool { return !p.found && k.ledger.isTunnels(p.key) }) {
		select {
		case k.added <- struct{}{}:
		default:
		}
	}
}

// lengthen keeps a mark that the ledger does not know, of an earlier run of the
// program or of an admin, from being shortened.
func (k *Marker) lengthen() {
	for i := range k.batch {
		p := &k.batch[i]
		if left, ok, err := getMark(k.c, &k.m, k.ledger.setName(p.key), p.key); err == nil && ok {
			p.life, p.found = max(p.life, left), true
		}
	}
}

// Forget removes the marks of an address from the kernel, those for the given
// paths or, without any, all; it reports whether there were any. Flows keep
// their path.
func (k *Marker) Forget(ctx context.Context, a netip.Addr, only ...routing.Path) (bool, error) {
	k.commits.Lock()
	defer k.commits.Unlock()
	keys := k.ledger.keys(a, only...)
	k.ledger.forget(keys)
	// Whoever fills the ledger meanwhile may read what is about to go.
	defer k.ledger.forget(keys)
	found := false
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		set := k.ledger.setName(key)
		err := k.c.transact(&k.m, func(m *messages) { writeMarks(m, deleteMarks, set, []pending{{key: key}}) })
		switch {
		case err == nil:
			found = true
		case !errors.Is(err, unix.ENOENT):
			return found, explain("forgetting "+a.String(), err)
		}
	}
	return found, nil
}

// first returns when the first of the marks ends.
func (l *Ledger) first(now time.Time, marks []routing.Mark) time.Time {
	l.mu.RLock()
	defer l.mu.RUnlock()
	first := time.Duration(-1)
	for _, m := range marks {
		// The claim is missing when it became void since the commit; the
		// caller's generation tells it so.
		until := now.Sub(l.base)
		if k, ok := l.keyLocked(m.Addr, m.Path); ok {
			if c, ok := l.claims[k]; ok {
				until = c.until
			}
		}
		if first < 0 || until < first {
			first = until
		}
	}
	return l.base.Add(first)
}

// missing collects what the kernel has to be told for the requests, each
// element once, sorted by set. An address that a complete ledger does not know
// is not in the kernel.
func (l *Ledger) missing(now time.Time, waiting []*request, batch *[]pending) (epoch uint64, complete bool, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	at := now.Sub(l.base)
	out := (*batch)[:0]
	for _, r := range waiting {
		for _, m := range r.marks {
			key, ok := l.keyLocked(m.Addr, m.Path)
			if !ok {
				return 0, false, fmt.Errorf("marking %s: no sets for the path %q", m.Addr, m.Path)
			}
			c, known := l.claims[key]
			if !enough(c.until-at, m.Life) {
				out = append(out, pending{key, at, max(elementLife(m.Life), c.until-at), r.owner, !known && l.complete, known})
			}
		}
	}
	slices.SortFunc(out, comparePending)
	out = slices.CompactFunc(out, func(a, b pending) bool { return a.key == b.key })
	*batch = out
	return l.epoch, l.complete, nil
}

// comparePending sorts by set, what may be there before what is new, and the
// longest life of an address first.
func comparePending(a, b pending) int {
	switch {
	case a.key.path != b.key.path:
		return int(a.key.path) - int(b.key.path)
	case a.key.is4 != b.key.is4:
		if a.key.is4 {
			return -1
		}
		return 1
	case a.fresh != b.fresh:
		if b.fresh {
			return -1
		}
		return 1
	}
	if c := slices.Compare(a.key.addr[:], b.key.addr[:]); c != 0 {
		return c
	}
	return int(b.life - a.life)
}

// emit writes the elements. A plain re-add does not refresh an element before
// Linux 6.12, and with an equal timeout not after it: so every element that may
// be there is added, deleted and added again, in one transaction. One that is
// there although it should not be is an error, EEXIST.
func (l *Ledger) emit(m *messages, batch []pending) {
	for len(batch) > 0 {
		n, old := 0, 0
		for n < len(batch) && batch[n].key.path == batch[0].key.path && batch[n].key.is4 == batch[0].key.is4 {
			if n++; !batch[n-1].fresh {
				old = n
			}
		}
		set := l.setName(batch[0].key)
		if old > 0 {
			writeMarks(m, addMarks, set, batch[:old])
			writeMarks(m, deleteMarks, set, batch[:old])
			writeMarks(m, addMarks, set, batch[:old])
		}
		if old < n {
			writeMarks(m, createMarks, set, batch[old:n])
		}
		batch = batch[n:]
	}
}
