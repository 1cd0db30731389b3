package nft

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// setOf returns the name of the set of a path's marks.
func setOf(p routing.Path, f family) string { return ident(string(p)) + f.suffix }

// markVerb is what a message does to elements of a set.
type markVerb uint8

const (
	addMarks    markVerb = iota // those that are there stay as they are
	createMarks                 // those that are there are an error
	deleteMarks                 // those that are not there are an error
	getMarks
)

func (v markVerb) message() (typ, flags uint16) {
	switch v {
	case deleteMarks:
		return unix.NFT_MSG_DELSETELEM, 0
	case getMarks:
		return unix.NFT_MSG_GETSETELEM, 0
	case createMarks:
		return unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	return unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE
}

// writeMarks writes one message about elements of a set.
func writeMarks(m *messages, v markVerb, set string, marks []pending) {
	m.nft(v.message())
	m.str(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	m.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	list := m.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for i := range marks {
		at := m.nest(unix.NFTA_LIST_ELEM)
		m.key(marks[i].key.bytes())
		if life := marks[i].life; life > 0 && v <= createMarks {
			m.u64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(max(life.Milliseconds(), 1)))
		}
		m.close(at)
	}
	m.close(list)
	m.end()
}

func (k *claimKey) bytes() []byte {
	if k.is4 {
		return k.addr[:4]
	}
	return k.addr[:]
}

// getMark asks for one element: how long it lives on, 0 = for ever.
func getMark(c *conn, m *messages, set string, key claimKey) (left time.Duration, ok bool, err error) {
	err = c.dump(m, func(m *messages) {
		writeMarks(m, getMarks, set, []pending{{key: key}})
	}, func(_ uint16, body []byte) error {
		if len(body) >= genLen {
			list(body[genLen:], func(_ element, l time.Duration) { left, ok = l, true })
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return left, ok, err
}

// kept are the marks of a set that is made anew.
type kept struct {
	set   string
	marks []pending
}

func (k kept) emit(m *messages) {
	for part := range slices.Chunk(k.marks, elementsPerMessage) {
		writeMarks(m, addMarks, k.set, part)
	}
}

// keep reads the marks of the sets that p goes on using.
func (r *reader) keep(p program, have snapshot) ([]kept, error) {
	var out []kept
	for _, s := range p.sets {
		if k, ok := have.sets[s.name]; !ok || !s.marks || k.magic != s.kind.magic || k.flags&unix.NFT_SET_TIMEOUT == 0 {
			continue
		}
		k := kept{set: s.name}
		err := r.elements(s.name, func(e element, left time.Duration) {
			k.marks = append(k.marks, pending{key: claimKey{addr: e.key, is4: s.kind.length == 4}, life: left})
		})
		if err != nil {
			return nil, fmt.Errorf("reading set %s: %w", s.name, err)
		}
		if len(k.marks) > 0 {
			out = append(out, k)
		}
	}
	return out, nil
}

// fill reads the kernel's marks into the ledger. Without all of the sets, which
// somebody else has deleted, it is not complete.
func (r *reader) fill(l *Ledger) error {
	epoch, complete := l.state()
	if complete {
		return nil
	}
	l.mu.RLock()
	sets, now := slices.Clone(l.sets), time.Since(l.base)
	l.mu.RUnlock()
	for i, names := range sets {
		for j, name := range names {
			var found []pending
			err := r.elementsOnce(name, func(e element, left time.Duration) {
				if left > 0 {
					found = append(found, pending{key: claimKey{e.key, j == 0, uint8(i)}, now: now, life: left, found: true})
				}
			})
			switch {
			case errors.Is(err, unix.ENOENT):
				return nil
			case err != nil && err != errInterrupted: // our own marks interrupt it; one that was missed is found when it is added
				return fmt.Errorf("reading set %s: %w", name, err)
			}
			for part := range slices.Chunk(found, elementsPerMessage) {
				l.record(epoch, part)
			}
		}
	}
	l.filled(epoch)
	return nil
}
