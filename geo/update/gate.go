package update

import (
	"errors"
	"fmt"
	"time"
)

// Summary is what a list's content amounts to.
type Summary struct {
	Kind      string `json:"kind"` // "names", "prefixes", "mmdb"
	Entries   int    `json:"entries"`
	Dropped   int    `json:"dropped"`             // lines passed over
	First     string `json:"first,omitempty"`     // the first of them, and why
	Addresses uint64 `json:"addresses,omitempty"` // v4 addresses at home that it tells of; 0 when it is not about that
}

// gatedError is why a content was refused that a person may want all the same.
type gatedError struct{ error }

func (e gatedError) Unwrap() error { return e.error }

// gate returns why next cannot take the place of now unless somebody wants it:
// a list that halved or doubled has become something else, and so have the
// addresses of a country of which more than a twentieth moved.
func gate(now, next Summary) error {
	switch {
	case now.Entries == 0:
		return nil
	case next.Entries*2 < now.Entries:
		return gatedError{fmt.Errorf("it has %d entries, and %d until now: less than half", next.Entries, now.Entries)}
	case next.Entries > now.Entries*2:
		return gatedError{fmt.Errorf("it has %d entries, and %d until now: more than twice as many", next.Entries, now.Entries)}
	}
	if was, is := now.Addresses, next.Addresses; was > 0 && (is < was-was/20 || is > was+was/20) {
		return gatedError{fmt.Errorf("it says that %d IPv4 addresses are at home, and %d did until now: more than 5 %% moved", is, was)}
	}
	return nil
}

// cut returns why a text that does not end in a whole line cannot follow one
// that did: a mirror that is wrong about the length of its file sends a part.
func cut(now Version, ends, text bool) error {
	if !now.Ends || ends || !text {
		return nil
	}
	return gatedError{errors.New("its last line has no end, which that of the list until now had: it may be cut off")}
}

// older returns why a content of this date cannot follow one of another date.
func older(newest, dated time.Time) error {
	if dated.IsZero() || !dated.Before(newest) {
		return nil
	}
	return gatedError{fmt.Errorf("it is of %s, and there was one of %s: an old list", dated.UTC().Format(time.DateTime), newest.UTC().Format(time.DateTime))}
}
