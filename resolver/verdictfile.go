package resolver

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"smartdns/geo"
	"smartdns/resolver/dnsname"
)

// Verdicts are written as text: a line with the time of writing, and one per
// verdict, the longest unused first.
//
//	written 1795377600
//	learned home 1795300000 1795370000 12 1 www.example.com 39.156.66.10, for a client in 114.240.0.0/24
//
// A verdict has the Unix seconds at which it was learned and last used, its
// hits, its confirmations, its name, and the evidence up to the end of the line.

const maxWhy = 200

// floor is the latest time that a file knows of: no clock that shows less is
// right (a router without a battery starts in 1970).
type floor struct {
	wall time.Time
	at   time.Duration // since began
}

// wall returns the time of now, as far as it is known.
func (l *Learned) wall(now time.Duration) time.Time {
	known := l.floor.wall.Add(now - l.floor.at)
	if t := time.Now(); t.After(known) {
		return t
	}
	return known
}

// Write writes the learned verdicts, or the pins, that still decide.
func (l *Learned) Write(w io.Writer, pins bool) error {
	l.mu.Lock()
	now := l.now()
	wall := l.wall(now)
	var all []entry
	for _, at := range l.names {
		if e := at.Value.(*entry); (e.rank == rankPinned) == pins && !e.ended(now) {
			all = append(all, *e)
		}
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.used, b.used), strings.Compare(string(a.name), string(b.name)))
	})
	out := bufio.NewWriter(w)
	kind := "learned"
	if pins {
		kind = "pinned"
	}
	unix := func(d time.Duration) int64 { return max(0, wall.Add(d-now).Unix()) }
	fmt.Fprintf(out, "written %d\n", wall.Unix())
	for _, e := range all {
		fmt.Fprintf(out, "%s %s %d %d %d %d %s %s\n", kind, e.region, unix(e.learned), unix(e.used), e.hits, e.confirmed, e.name, e.why)
	}
	return out.Flush()
}

// Read enters the verdicts that Write wrote. Their ages go on from the time of
// writing, and by no less than nothing where the clock shows an earlier one. A
// text that is not Write's is an error and enters nothing.
func (l *Learned) Read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Scan()
	seconds, ok := strings.CutPrefix(lines.Text(), "written ")
	if !ok {
		return errors.New("line 1: it does not say when it was written")
	}
	written, err := unixSeconds(seconds)
	if err != nil {
		return fmt.Errorf("line 1: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	wall := l.wall(now)
	if written.After(wall) {
		wall = written
	}
	var all []*entry
	for number := 2; lines.Scan(); number++ {
		e, err := readEntry(lines.Text(), wall, now)
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		all = append(all, e)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	l.floor = floor{wall, now}
	for _, e := range all {
		if _, old := l.find(e.name); (old == nil || old.rank != rankPinned) && !e.ended(now) {
			l.enter(e)
		}
	}
	return nil
}

// readEntry reads a line. wall and now are the same instant.
func readEntry(line string, wall time.Time, now time.Duration) (*entry, error) {
	f := strings.SplitN(line, " ", 8)
	if len(f) != 8 {
		return nil, errors.New("it has not 8 fields")
	}
	e := &entry{why: strings.Clone(f[7])}
	switch f[0] {
	case "learned":
	case "pinned":
		e.rank = rankPinned
	default:
		return nil, fmt.Errorf("%q is neither learned nor pinned", f[0])
	}
	switch f[1] {
	case geo.Home.String():
		e.region = geo.Home
	case geo.Abroad.String():
		e.region = geo.Abroad
	default:
		return nil, fmt.Errorf("%q is neither home nor abroad", f[1])
	}
	learned, err := unixSeconds(f[2])
	used, err2 := unixSeconds(f[3])
	hits, err3 := strconv.ParseUint(f[4], 10, 64)
	confirmed, err4 := strconv.ParseUint(f[5], 10, 32)
	name, err5 := dnsname.Parse(f[6])
	if err := cmp.Or(err, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	if len(e.why) > maxWhy || strings.ContainsFunc(e.why, func(c rune) bool { return c < ' ' || c > '~' }) {
		return nil, errors.New("its evidence is no text of ours")
	}
	e.name, e.hits, e.confirmed = name, hits, uint32(confirmed)
	e.learned = now - max(0, wall.Sub(learned))
	e.used = now - max(0, wall.Sub(used))
	e.tried = e.learned
	if e.rank == rankNew && hits > 1 {
		e.rank = rankUsed
	}
	return e, nil
}

func unixSeconds(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return time.Time{}, fmt.Errorf("%q is no time", s)
	}
	return time.Unix(n, 0), nil
}
