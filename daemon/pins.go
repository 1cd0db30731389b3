package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/fnv"
	"iter"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"smartdns/resolver/policy"
	"smartdns/routing"
)

// pins are the names that rules pin to each path.
type pins map[routing.Path]pinned

// pinned is what one path's are.
type pinned struct {
	others  [sha256.Size]byte // the rules of others that may take names from them
	entries []uint64          // hashes of what they match, sorted
}

// hold reports whether every name that was pinned to a path still is.
func (p pins) hold(was pins, path routing.Path) bool {
	before, now := was[path], p[path]
	if before.others != now.others {
		return false
	}
	for _, e := range before.entries {
		if _, ok := slices.BinarySearch(now.entries, e); !ok {
			return false
		}
	}
	return true
}

func (p pinned) equal(q pinned) bool {
	return p.others == q.others && slices.Equal(p.entries, q.entries)
}

// ruleEntries is what the entries of one rule are, those of lists too.
type ruleEntries struct {
	via    routing.Path
	sum    hash.Hash
	hashes []uint64 // of a rule that pins
}

func (r *ruleEntries) add(e policy.Entry) {
	var b [256]byte
	line := append(b[:0], byte(e.Kind))
	what := e.Text
	if e.Kind == policy.Suffix || e.Kind == policy.Full {
		what = string(e.Name)
	}
	line = append(binary.AppendUvarint(line, uint64(len(what))), what...)
	if e.Except {
		line = append(line, 0)
	}
	r.sum.Write(line)
	if r.via != "" {
		h := fnv.New64a()
		h.Write(line)
		r.hashes = append(r.hashes, h.Sum64())
	}
}

func (r *ruleEntries) watch(entries iter.Seq[policy.Entry]) iter.Seq[policy.Entry] {
	return func(yield func(policy.Entry) bool) {
		for e := range entries {
			r.add(e)
			if !yield(e) {
				return
			}
		}
	}
}

// watching returns rules whose entries are looked at while they are read once,
// and what gives the pins after that. A file that pins nothing costs nothing.
func watching(rules []policy.NameRule) (watched []policy.NameRule, result func() pins) {
	last := -1
	for i, r := range rules {
		if r.Rule.Via != "" {
			last = i
		}
	}
	watched = slices.Clone(rules)
	seen := make([]*ruleEntries, last+1)
	for i := range seen {
		seen[i] = &ruleEntries{via: rules[i].Rule.Via, sum: sha256.New()}
		for _, e := range rules[i].Entries {
			seen[i].add(e)
		}
		watched[i].Lists = slices.Clone(rules[i].Lists)
		for j := range watched[i].Lists {
			watched[i].Lists[j].Entries = seen[i].watch(watched[i].Lists[j].Entries)
		}
	}
	return watched, func() pins {
		all := pins{}
		for _, r := range seen {
			if _, done := all[r.via]; r.via != "" && !done {
				all[r.via] = pinnedTo(r.via, seen)
			}
		}
		return all
	}
}

// pinnedTo gathers what rules pin to a path.
func pinnedTo(path routing.Path, rules []*ruleEntries) pinned {
	var p pinned
	all, others := sha256.New(), []byte(nil)
	own := uint32(0) // rules of this path so far: which of them come after another
	for _, r := range rules {
		if r.via != path {
			all.Write(r.sum.Sum(binary.BigEndian.AppendUint32(nil, own)))
			continue
		}
		own++
		others = all.Sum(nil) // only those before the last of ours matter
		p.entries = append(p.entries, r.hashes...)
	}
	p.others = [sha256.Size]byte(others)
	slices.Sort(p.entries)
	p.entries = slices.Clip(slices.Compact(p.entries))
	return p
}

// settle brings marks and flows to what a reload says. It takes the marks from
// the sets whose addresses would now be another path's: the verdict or the rule
// that put them there is no more. An answer that still ties an address to that
// path brings it back. What a rule for names put there stays as long as all the
// names that it pinned still are.
func (e *engine) settle(ctx context.Context, before *Parts) {
	now := e.parts
	if e.table == nil || !rewritten(before, now) && maps.EqualFunc(before.Pins, now.Pins, pinned.equal) && reflect.DeepEqual(before.Sets, now.Sets) {
		return
	}
	all, err := e.table.Marks(ctx)
	if err != nil {
		e.log.Warn("reading the marks after a reload", "err", err)
		return
	}
	had, has := marked{}, marked{}
	for _, m := range all {
		had.add(m)
		if !turned(m, before, now) {
			has.add(m)
			continue
		}
		_, err := e.table.Marker().Forget(ctx, m.Addr, m.Path)
		e.sealed.Generation().Advance() // an answer may have been sealed by it
		if err != nil {
			e.log.Warn("dropping a mark after a reload", "addr", m.Addr.String(), "err", err)
		}
	}
	if rewritten(before, now) {
		mac := func(a netip.Addr) routing.MAC { return e.who.client(netip.AddrPort{}, a).MAC }
		e.repairFlows(ctx, decided{before, had, mac}, decided{now, has, mac})
	}
}

func sameOwn(a, b Tunnel) bool { return a.Path == b.Path && slices.Equal(a.own(), b.own()) }

// turned reports whether a mark of before would not be made now.
func turned(m routing.Mark, before, now *Parts) bool {
	if p, _ := now.pathOf(now.Geo.Lookup(m.Addr), m.Addr); p == m.Path {
		return false
	}
	was, _ := before.pathOf(before.Geo.Lookup(m.Addr), m.Addr)
	return was == m.Path || !now.Pins.hold(before.Pins, m.Path)
}
