package resolver

import (
	"container/list"
	"errors"
	"sync"
	"time"

	"smartdns/geo"
	"smartdns/resolver/dnsname"
)

// Verdict is what auto knows about a name before it is asked.
type Verdict struct {
	Name      dnsname.FQDN
	Region    geo.Region    // Home or Abroad
	Why       string        // the evidence, for people
	Pinned    bool          // a person said so: no answer changes it, and it never ends
	Age       time.Duration // since it was learned, last judged or pinned; use does not renew it
	Idle      time.Duration // since it last decided, or Age where it never did
	Hits      uint64        // how often it decided
	Confirmed uint32        // how many later judgements said the same: the confidence
}

const (
	// verdictLife is the age at which a verdict that is in use is judged again.
	verdictLife = 7 * 24 * time.Hour
	// verdictIdle is how long a verdict is kept that decides nothing.
	verdictIdle = 7 * 24 * time.Hour
	// verdictRetry is how long a judgement that came to nothing is not tried again.
	verdictRetry = time.Hour
	// verdictBytes is what a verdict takes beside its texts: itself, its list
	// element, its place in the map.
	verdictBytes = 250
)

// ErrTooManyPins means that pins alone would fill the memory for verdicts.
var ErrTooManyPins = errors.New("the pins fill the memory for verdicts; forget some of them first")

// Learned keeps a verdict per name. It is safe for concurrent use.
//
// It is bounded by bytes. Names that were met once go before those that were
// asked for again, and of each the one that was longest without use goes first:
// so many names that somebody makes up push out each other, not those in use.
// Pins never go.
type Learned struct {
	limit int
	began time.Time // what ages are counted from: no jump of the clock changes one

	mu    sync.Mutex // guards the rest
	names map[dnsname.FQDN]*list.Element
	ranks [3]rank
	bytes int
	edits uint64
	floor floor
}

// rank is the entries that one rule of eviction holds for, the last used first.
type rank struct {
	list.List
	bytes int
}

const (
	rankNew = iota
	rankUsed
	rankPinned
)

// entry is a verdict as it is kept. Its times count from Learned.began.
type entry struct {
	name      dnsname.FQDN
	why       string
	learned   time.Duration
	used      time.Duration
	tried     time.Duration // when it was last said to be due
	hits      uint64
	confirmed uint32
	region    geo.Region
	rank      uint8
}

func (e *entry) size() int { return verdictBytes + len(e.name) + len(e.why) }

// NewLearned returns a Learned that takes about limit bytes.
func NewLearned(limit int) *Learned {
	return &Learned{limit: max(limit, 4<<10), began: time.Now(), names: map[dnsname.FQDN]*list.Element{}}
}

func (l *Learned) now() time.Duration { return time.Since(l.began) }

// Use returns the verdict for name and counts a hit. Due says that it is old
// enough to be judged again while it decides; it says so to one caller an hour.
// A verdict that decided nothing for 7 days is not returned.
func (l *Learned) Use(name dnsname.FQDN) (v Verdict, due, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, e := l.find(name)
	now := l.now()
	if e == nil || e.ended(now) {
		return Verdict{}, false, false
	}
	if e.rank == rankNew && e.hits > 0 {
		at = l.move(at, rankUsed)
	}
	l.ranks[e.rank].MoveToFront(at)
	v = e.verdict(now)
	e.hits++
	e.used = now
	v.Hits++
	if e.rank != rankPinned && v.Age >= verdictLife && now-e.tried >= verdictRetry {
		e.tried = now
		due = true
	}
	return v, due, true
}

func (l *Learned) find(name dnsname.FQDN) (*list.Element, *entry) {
	at, ok := l.names[name]
	if !ok {
		return nil, nil
	}
	return at, at.Value.(*entry)
}

func (e *entry) ended(now time.Duration) bool {
	return e.rank != rankPinned && now-e.used >= verdictIdle
}

func (e *entry) verdict(now time.Duration) Verdict {
	return Verdict{
		Name: e.name, Region: e.region, Why: e.why, Pinned: e.rank == rankPinned,
		Age: now - e.learned, Idle: now - e.used, Hits: e.hits, Confirmed: e.confirmed,
	}
}

// Learn enters a judgement of now. One that says what an old verdict says
// confirms it; a pin stays what it is. It reports whether the verdict was another
// one until now.
func (l *Learned) Learn(name dnsname.FQDN, region geo.Region, why string) (turned bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	at, e := l.find(name)
	switch {
	case e == nil || e.rank != rankPinned && e.ended(now):
		l.enter(&entry{name: name, region: region, why: why, learned: now, used: now, tried: now})
	case e.rank == rankPinned:
		return false
	case e.region == region && now-e.learned < verdictLife:
		return false // two queries judged it at once
	case e.region == region:
		next := *e
		next.why, next.learned, next.confirmed = why, now, e.confirmed+1
		l.replace(at, &next)
	default:
		turned = true
		l.enter(&entry{name: name, region: region, why: why, learned: now, used: now, tried: now})
	}
	l.edits++
	return turned
}

// Pin makes region the verdict for name, whatever answers say, until somebody
// forgets it.
func (l *Learned) Pin(name dnsname.FQDN, region geo.Region) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	e := &entry{name: name, region: region, why: pinnedWhy, learned: now, used: now, rank: rankPinned}
	if _, old := l.find(name); (old == nil || old.rank != rankPinned) && l.ranks[rankPinned].bytes+e.size() > l.limit/2 {
		return ErrTooManyPins
	}
	l.enter(e)
	l.edits++
	return nil
}

const pinnedWhy = "pinned"

// Forget drops the verdict for name, pinned or not, and reports whether there
// was one.
func (l *Learned) Forget(name dnsname.FQDN) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, e := l.find(name)
	if e == nil {
		return false
	}
	l.remove(at)
	l.edits++
	return true
}

// ForgetUnder drops what was learned about suffix and all names under it, and
// returns how many verdicts went, and how many stay as they are pinned.
func (l *Learned) ForgetUnder(suffix dnsname.FQDN) (gone, pinned int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, at := range l.names {
		switch {
		case !suffix.Contains(name):
		case at.Value.(*entry).rank == rankPinned:
			pinned++
		default:
			l.remove(at)
			gone++
		}
	}
	if gone > 0 {
		l.edits++
	}
	return gone, pinned
}

// contradict drops the verdict for name since an answer contradicts it, and
// reports whether it did: a pin stays.
func (l *Learned) contradict(name dnsname.FQDN) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, e := l.find(name)
	if e == nil || e.rank == rankPinned {
		return false
	}
	l.remove(at)
	l.edits++
	return true
}

// All returns every verdict that still decides, in no order.
func (l *Learned) All() []Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	all := make([]Verdict, 0, len(l.names))
	for _, at := range l.names {
		if e := at.Value.(*entry); !e.ended(now) {
			all = append(all, e.verdict(now))
		}
	}
	return all
}

// Bytes returns about how much memory the verdicts take, and how much they may.
func (l *Learned) Bytes() (used, limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes, l.limit
}

// Edits counts how often verdicts were entered or dropped. Hits do not count.
func (l *Learned) Edits() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.edits
}

// enter puts e in front of its rank, in place of another of its name, and makes
// room.
func (l *Learned) enter(e *entry) {
	if at, _ := l.find(e.name); at != nil {
		l.remove(at)
	}
	l.names[e.name] = l.ranks[e.rank].PushFront(e)
	l.account(e.rank, e.size())
	l.shrink()
}

// replace puts e where another of its name and rank is.
func (l *Learned) replace(at *list.Element, e *entry) {
	l.account(e.rank, e.size()-at.Value.(*entry).size())
	at.Value = e
	l.shrink()
}

func (l *Learned) remove(at *list.Element) {
	e := at.Value.(*entry)
	l.ranks[e.rank].Remove(at)
	l.account(e.rank, -e.size())
	delete(l.names, e.name)
}

func (l *Learned) move(at *list.Element, to uint8) *list.Element {
	e := at.Value.(*entry)
	l.remove(at)
	e.rank = to
	at = l.ranks[to].PushFront(e)
	l.names[e.name] = at
	l.account(to, e.size())
	return at
}

func (l *Learned) account(rank uint8, bytes int) {
	l.ranks[rank].bytes += bytes
	l.bytes += bytes
}

// shrink drops verdicts until the rest fits. A fifth of the room is for names
// that were met once, that they get a chance to be met again.
func (l *Learned) shrink() {
	for l.bytes > l.limit {
		from := &l.ranks[rankNew]
		if from.bytes <= l.limit/5 && l.ranks[rankUsed].Len() > 0 {
			from = &l.ranks[rankUsed]
		}
		last := from.Back()
		if last == nil {
			return
		}
		l.remove(last)
	}
}
