package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"smartdns/routing"
)

// A loss is a claim that somebody else's change may have taken from the kernel.
type loss struct {
	claim
	gone bool // it did: flows may have been decided without it
}

// Reset voids every claim: somebody else changed the sets. Those that live on
// are lost until the kernel is known to have them.
func (l *Ledger) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Since(l.base)
	for k, c := range l.claims {
		if c.until > now {
			lost := l.lost[k]
			l.lost[k] = loss{claim{max(c.until, lost.until), c.owner}, lost.gone}
		}
	}
	clear(l.claims)
	l.epoch++
	l.complete = false
}

// clear forgets everything: the sets are gone because we say so.
func (l *Ledger) clear() {
	l.Reset()
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.lost)
}

// foundLocked takes note of an element that the kernel has now. It is no
// longer lost if it was there all the time, for as long as it should be.
func (l *Ledger) foundLocked(m pending) {
	lost, ok := l.lost[m.key]
	switch {
	case !ok:
	case !m.found:
		lost.gone = true
		l.lost[m.key] = lost
	case !lost.gone && m.now+m.life+rounding >= lost.until:
		delete(l.lost, m.key)
	}
}

// wanted returns the lost marks that the kernel is not known to have, by set.
func (l *Ledger) wanted() (epoch uint64, all []pending) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := time.Since(l.base)
	for k, m := range l.lost {
		if p, ok := l.wantedLocked(k, m, now); ok {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, comparePending)
	return l.epoch, all
}

// still returns those of the marks that are wanted now.
func (l *Ledger) still(marks []pending) (epoch uint64, out []pending) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := time.Since(l.base)
	for _, m := range marks {
		if lost, ok := l.lost[m.key]; ok {
			if p, ok := l.wantedLocked(m.key, lost, now); ok {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, comparePending)
	return l.epoch, out
}

func (l *Ledger) wantedLocked(k claimKey, m loss, now time.Duration) (pending, bool) {
	c, known := l.claims[k]
	if m.until <= now || known && c.until+rounding >= m.until {
		return pending{}, false
	}
	return pending{key: k, now: now, life: m.until - now, owner: m.owner, fresh: !known && l.complete, found: known}, true
}

// lostFrom returns the lost marks of a set that is not there: whatever was
// decided since was decided without them.
func (l *Ledger) lostFrom(set string) (marks []pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Since(l.base)
	for k, m := range l.lost {
		if l.setName(k) != set || m.until <= now {
			continue
		}
		m.gone = true
		l.lost[k] = m
		marks = append(marks, pending{key: k, now: now, life: m.until - now, owner: m.owner})
	}
	return marks
}

// gone returns the addresses that were without a tunnel's mark for a while, with
// the path that wins.
func (l *Ledger) gone() map[netip.Addr]routing.Path {
	l.mu.RLock()
	defer l.mu.RUnlock()
	first := map[netip.Addr]uint8{}
	for k, m := range l.lost {
		if m.gone && l.paths[k.path] != routing.Direct {
			a := k.netip()
			if i, ok := first[a]; !ok || k.path < i {
				first[a] = k.path
			}
		}
	}
	out := map[netip.Addr]routing.Path{}
	for a, i := range first {
		out[a] = l.paths[i]
	}
	return out
}

// settle says that everything lost is back, unless claims became void since
// epoch.
func (l *Ledger) settle(epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch == l.epoch {
		clear(l.lost)
	}
}

// restore brings back what somebody else took from the sets. It returns the
// epoch in which it did.
func (k *Marker) restore() (epoch uint64, err error) {
	epoch, all := k.ledger.wanted()
	for part := range slices.Chunk(all, marksPerCommit) {
		if current, err := k.restorePart(part); err != nil || current != epoch {
			return epoch, err // whoever changed it again makes us come back
		}
	}
	return epoch, nil
}

func (k *Marker) restorePart(part []pending) (epoch uint64, err error) {
	k.commits.Lock()
	defer k.commits.Unlock()
	epoch, k.batch = k.ledger.still(part)
	if len(k.batch) == 0 {
		return epoch, nil
	}
	return epoch, k.send(epoch)
}

// heal fills the ledger after somebody else changed the sets, and brings back
// what was lost. A flow that went direct because its address had no mark for a
// while is then ended: its next packet is that of a new flow. (What was direct
// before there was a mark cannot be told from it.)
func (t *Table) heal() error {
	if err := t.marks.fill(t.ledger); err != nil {
		return fmt.Errorf("reading the marks in the kernel: %w", err)
	}
	if _, complete := t.ledger.state(); !complete {
		return nil // the sets are not there: the next Set makes us come back
	}
	epoch, err := t.marker.restore()
	if err != nil {
		return err
	}
	if gone := t.ledger.gone(); len(gone) > 0 {
		field, marks := t.ledger.tunnelMarks()
		to := map[netip.Addr]uint32{}
		for a, p := range gone {
			to[a] = marks[p]
		}
		for _, mark := range []uint32{0, field.Value(routing.MarkDirect)} {
			if _, err := turnFlows(t.flows, whichFlows{mark: mark, mask: uint32(field)}, uint32(field), func(f Flow) (uint32, bool) {
				value, ok := to[f.To]
				return value, ok
			}); err != nil {
				return fmt.Errorf("ending flows that began without their marks: %w", err)
			}
		}
	}
	t.ledger.settle(epoch)
	return nil
}
