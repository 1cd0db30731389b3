// Package list reads data lists: domain rules and address prefixes, line by
// line, from an io.Reader. It knows nothing of what the lists are for.
//
// A parser yields a [Line] for everything that a list says. What it cannot use
// is yielded too, as [Bad] or [Dropped], so that nothing disappears silently;
// an error ends the iteration and means that the file as a whole is no list.
package list

import (
	"fmt"
	"iter"
	"net/netip"

	"smartdns/resolver/dnsname"
)

// LineKind is what a Line says.
type LineKind uint8

// The kinds of line.
const (
	Bad     LineKind = iota // not understood: Err says what would be right
	Dropped                 // understood, and left out on purpose: Err says why
	Suffix                  // Name and all names below it
	Full                    // Name alone
	Keyword                 // names that contain Text, which is lower case
	Regexp                  // names (lower case, no last dot) that the RE2 expression Text matches
	Prefix                  // the addresses of Prefix

	// Exceptions: what they match is not in this list, unless a longer name or
	// prefix of the list says that it is.
	ExceptSuffix // Name and all names below it
	ExceptFull   // Name alone
	ExceptPrefix // the addresses of Prefix
)

// Line is one thing that a list says. One line of the file can yield several
// of the same Number: a dnsmasq line names several domains, a range of
// addresses is several prefixes.
type Line struct {
	Number int // in the file, from 1
	Kind   LineKind
	Name   dnsname.FQDN // Suffix, Full, and their exceptions; Dropped where it is a name that was left out
	Text   string       // Keyword, Regexp
	Prefix netip.Prefix // Prefix, ExceptPrefix: masked, never v4-mapped; Dropped likewise
	Err    error        // Bad, Dropped: a *LineError
}

// LineError is why one line is Bad or Dropped.
type LineError struct {
	Number int    // of the line, from 1
	Text   string // the line, cut to 80 octets
	Reason string // what is wrong, or what would be right
}

func (e *LineError) Error() string {
	return fmt.Sprintf("line %d: %q: %s", e.Number, e.Text, e.Reason)
}

// FileError is why a whole file was refused.
type FileError struct {
	Number int    // of the line that decided, from 1; 0 when it was the file as a whole
	Reason string // what is wrong, or what would be right
	First  error  // the first bad line, where bad lines are the reason
}

func (e *FileError) Error() string {
	switch {
	case e.First != nil:
		return fmt.Sprintf("%s; the first: %v", e.Reason, e.First)
	case e.Number > 0:
		return fmt.Sprintf("line %d: %s", e.Number, e.Reason)
	}
	return e.Reason
}

// Unwrap returns the first bad line.
func (e *FileError) Unwrap() error { return e.First }

// Tally counts what a parser yielded.
type Tally struct {
	Used    int   // lines that said something, a range or a dnsmasq line once per Line
	Excepts int   // of these the exceptions
	Dropped int   // Dropped lines
	Bad     int   // Bad lines
	First   error // the first Dropped or Bad line; nil when there was none
}

// Watch returns lines unchanged and counts them into t as they pass.
func (t *Tally) Watch(lines iter.Seq2[Line, error]) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		for l, err := range lines {
			if err == nil {
				t.add(l)
			}
			if !yield(l, err) {
				return
			}
		}
	}
}

func (t *Tally) add(l Line) {
	switch l.Kind {
	case Bad:
		t.Bad++
	case Dropped:
		t.Dropped++
	case ExceptSuffix, ExceptFull, ExceptPrefix:
		t.Used++
		t.Excepts++
	default:
		t.Used++
	}
	if t.First == nil {
		t.First = l.Err
	}
}
