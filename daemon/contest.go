package daemon

import (
	"errors"
	"slices"
	"time"
)

// contest keeps us from fighting at full speed with somebody who changes our
// nftables table whenever we put it back.
type contest struct{ changes []time.Time } // within contestWindow

const (
	contestWindow = 10 * time.Second
	contestLimit  = 5 // changes in it; more is a contest
	contestPause  = 250 * time.Millisecond
)

var errContest = errors.New(`somebody keeps changing our nftables table, and we keep putting it back; find out who, or write table = "owned" under [routing]`)

// changed takes note that somebody changed the table. It returns how long to
// leave the next change alone.
func (c *contest) changed(now time.Time) (pause time.Duration) {
	c.changes = append(c.changes, now)
	if c.err(now) != nil {
		return contestPause
	}
	return 0
}

// err is errContest while there is one.
func (c *contest) err(now time.Time) error {
	c.changes = slices.DeleteFunc(c.changes, func(t time.Time) bool { return now.Sub(t) >= contestWindow })
	if len(c.changes) > contestLimit {
		return errContest
	}
	return nil
}
