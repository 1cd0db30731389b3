package nft

import (
	"time"

	"smartdns/routing"
)

// MarksPerOwner is how many marks one owner has at most at a time: whoever
// answers another address to each question fills no set (SECURITY N-13).
const MarksPerOwner = 512

// recountPer is the time between two counts for each claim that is counted: a
// thousandth of it is spent on counting.
const recountPer = 10 * time.Microsecond

// A quota counts the marks that each owner asked for. Marks that ended since,
// or failed, are in it until the next count, which is when an owner has too
// many.
type quota struct {
	used    map[routing.Owner]int
	counted time.Duration // when, since the ledger's base
}

// admit reports whether an owner may have these marks, and takes note of those
// that it does not have yet. Renewing is always allowed; nobody, Owner 0, has
// any number.
func (l *Ledger) admit(now time.Time, owner routing.Owner, marks []routing.Mark) bool {
	if owner == 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := now.Sub(l.base)
	fresh := 0
	for _, m := range marks {
		if k, ok := l.keyLocked(m.Addr, m.Path); ok && l.claims[k].until <= at {
			fresh++
		}
	}
	if fresh > 0 && l.owners.used[owner]+fresh > MarksPerOwner {
		if at-l.owners.counted < time.Duration(len(l.claims))*recountPer {
			return false
		}
		if l.recountLocked(at); l.owners.used[owner]+fresh > MarksPerOwner {
			return false
		}
	}
	l.owners.used[owner] += fresh
	return true
}

// recountLocked counts the living marks of every owner.
func (l *Ledger) recountLocked(at time.Duration) {
	clear(l.owners.used)
	for _, c := range l.claims {
		if c.owner != 0 && c.until > at {
			l.owners.used[c.owner]++
		}
	}
	l.owners.counted = at
}
