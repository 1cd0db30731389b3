package nft

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"smartdns/routing"
)

// A Ledger knows which address is tied to which path until when, so that an
// address the kernel already has costs no system call. It is a cache of the
// kernel's sets: it starts empty and is filled from them. Its methods may be
// called concurrently.
type Ledger struct {
	mu        sync.RWMutex // guards the rest
	base      time.Time    // claims count from here
	field     routing.Field
	values    map[routing.Path]uint32 // the tunnels' marks; never changed, only replaced
	paths     []routing.Path
	sets      [][2]string // of each path: v4, v6; changes only while the Marker commits nothing
	claims    map[claimKey]claim
	lost      map[claimKey]loss // see Reset
	epoch     uint64            // advances when claims became void
	complete  bool              // every mark in the kernel is here
	conflicts uint64
	owners    quota
	sweepAt   int // number of claims at which the dead ones are removed
}

type claimKey struct {
	addr [16]byte
	is4  bool
	path uint8 // index of paths
}

// claim has no pointers, so that the garbage collector skips the whole map.
type claim struct {
	until time.Duration // since base
	owner routing.Owner
}

// An Entry is one mark.
type Entry struct {
	Addr  netip.Addr
	Path  routing.Path
	Until time.Time
	Owner routing.Owner
}

// A Conflict is an address with marks for several paths. The first of them
// wins: the tunnels stand before direct.
type Conflict struct {
	Addr  netip.Addr
	Paths []routing.Path
}

const (
	firstSweep = 4096
	// A claim is remembered so long after its end: the kernel's clock may say
	// that its element is still there, and adding that would not renew it.
	afterlife = time.Minute
)

func newLedger() *Ledger {
	return &Ledger{base: time.Now(), claims: map[claimKey]claim{}, lost: map[claimKey]loss{}, owners: quota{used: map[routing.Owner]int{}}, sweepAt: firstSweep}
}

func (k claimKey) netip() netip.Addr {
	if k.is4 {
		return netip.AddrFrom4([4]byte(k.addr[:4]))
	}
	return netip.AddrFrom16(k.addr)
}

// setPaths gives the paths in the order in which they win. Claims of paths
// that are no more are dropped, lost ones too.
func (l *Ledger) setPaths(paths []routing.Path, field routing.Field, values []uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.field, l.values = field, map[routing.Path]uint32{}
	for i, v := range values { // direct, the last path, has none
		l.values[paths[i]] = v
	}
	if slices.Equal(paths, l.paths) {
		return
	}
	l.claims, l.lost = renumber(l.claims, l.paths, paths), renumber(l.lost, l.paths, paths)
	l.paths, l.sets = slices.Clone(paths), nil
	for _, p := range paths {
		l.sets = append(l.sets, [2]string{setOf(p, v4()), setOf(p, v6())})
	}
	l.epoch++
	l.complete = false
}

// renumber returns the map with the paths' new numbers as keys.
func renumber[C any](m map[claimKey]C, from, to []routing.Path) map[claimKey]C {
	out := make(map[claimKey]C, len(m))
	for k, c := range m {
		if i := slices.Index(to, from[k.path]); i >= 0 {
			k.path = uint8(i)
			out[k] = c
		}
	}
	return out
}

// setName returns the set of a key. Its caller holds the Marker's commits.
func (l *Ledger) setName(k claimKey) string {
	if k.is4 {
		return l.sets[k.path][0]
	}
	return l.sets[k.path][1]
}

// tunnelMarks returns the field of marks, and each tunnel's value of it.
func (l *Ledger) tunnelMarks() (routing.Field, map[routing.Path]uint32) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.field, l.values
}

// keys returns a key for every path that a could be tied to.
func (l *Ledger) keys(a netip.Addr, only ...routing.Path) []claimKey {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []claimKey
	for i, p := range l.paths {
		if len(only) == 0 || slices.Contains(only, p) {
			out = append(out, claimKey{keyOf(a), a.Is4(), uint8(i)})
		}
	}
	return out
}

// keyLocked returns the key of a mark; ok is false for a path without sets.
func (l *Ledger) keyLocked(a netip.Addr, p routing.Path) (k claimKey, ok bool) {
	i := slices.Index(l.paths, p)
	if i < 0 {
		return k, false
	}
	return claimKey{keyOf(a), a.Is4(), uint8(i)}, true
}

// lasts reports whether the kernel has every mark for long enough, and until
// when the first of them ends.
func (l *Ledger) lasts(now time.Time, marks []routing.Mark) (until time.Time, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	at := now.Sub(l.base)
	first := time.Duration(-1)
	for _, m := range marks {
		k, ok := l.keyLocked(m.Addr, m.Path)
		if !ok {
			return until, false
		}
		c, ok := l.claims[k]
		if !ok || !enough(c.until-at, m.Life) {
			return until, false
		}
		if first < 0 || c.until < first {
			first = c.until
		}
	}
	return l.base.Add(first), true
}

// record adds claims that the kernel has taken, unless claims became void
// since epoch. It never shortens a claim.
func (l *Ledger) record(epoch uint64, marks []pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch != l.epoch {
		return
	}
	for _, m := range marks {
		c, known := l.claims[m.key]
		if !known || c.until < m.now {
			l.noteConflictLocked(m.key, m.now)
		}
		owner := m.owner
		if owner == 0 {
			owner = c.owner // the kernel, read in the background, knows none
		}
		l.claims[m.key] = claim{max(c.until, m.now+m.life), owner}
		l.foundLocked(m)
	}
	l.sweepLocked(marks)
}

func (l *Ledger) noteConflictLocked(k claimKey, now time.Duration) {
	mine := k.path
	for i := range l.paths {
		k.path = uint8(i)
		if c, ok := l.claims[k]; ok && k.path != mine && c.until > now {
			l.conflicts++
			return
		}
	}
}

func (l *Ledger) sweepLocked(marks []pending) {
	if len(l.claims) < l.sweepAt || len(marks) == 0 {
		return
	}
	for k, c := range l.claims {
		if c.until+afterlife < marks[0].now {
			delete(l.claims, k)
		}
	}
	l.recountLocked(marks[0].now)
	l.sweepAt = max(firstSweep, 2*len(l.claims))
}

// state returns the epoch, and whether every mark in the kernel is known.
func (l *Ledger) state() (epoch uint64, complete bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.epoch, l.complete
}

// filled says that all of the kernel's marks were recorded in that epoch.
func (l *Ledger) filled(epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complete = l.complete || epoch == l.epoch
}

// forget drops claims, also lost ones.
func (l *Ledger) forget(keys []claimKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		delete(l.claims, k)
		delete(l.lost, k)
	}
	l.epoch++ // a fill may have read them before
	l.complete = false
}

// Elsewhere reports whether a living mark that is known ties a to another path
// than p, or will again in a moment.
func (l *Ledger) Elsewhere(a netip.Addr, p routing.Path) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := time.Since(l.base)
	for i, path := range l.paths {
		k := claimKey{keyOf(a), a.Is4(), uint8(i)}
		if path != p && max(l.claims[k].until, l.lost[k].until) > now {
			return true
		}
	}
	return false
}

// List returns the living marks that are known, by address, then by path in
// the order in which they win.
func (l *Ledger) List() []Entry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := time.Since(l.base)
	type found struct {
		key claimKey
		claim
	}
	var all []found
	for k, c := range l.claims {
		if c.until > now {
			all = append(all, found{k, c})
		}
	}
	slices.SortFunc(all, func(a, b found) int {
		if c := a.key.netip().Compare(b.key.netip()); c != 0 {
			return c
		}
		return int(a.key.path) - int(b.key.path)
	})
	out := make([]Entry, 0, len(all))
	for _, f := range all {
		out = append(out, Entry{f.key.netip(), l.paths[f.key.path], l.base.Add(f.until), f.owner})
	}
	return out
}

// Conflicts returns the addresses that have living marks for several paths,
// and how often a new mark met one for another path since the start.
func (l *Ledger) Conflicts() (now []Conflict, total uint64) {
	for _, e := range l.List() {
		if n := len(now); n > 0 && now[n-1].Addr == e.Addr {
			now[n-1].Paths = append(now[n-1].Paths, e.Path)
			continue
		}
		now = append(now, Conflict{e.Addr, []routing.Path{e.Path}})
	}
	now = slices.DeleteFunc(now, func(c Conflict) bool { return len(c.Paths) < 2 })
	l.mu.RLock()
	defer l.mu.RUnlock()
	return now, l.conflicts
}
