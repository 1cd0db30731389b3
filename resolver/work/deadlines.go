package work

import (
	"context"
	"sync"
	"time"
)

// share is the part of their life by which contexts may end early, so that many
// queries share one.
const share = 50

// Deadlines gives out contexts that end after the same time. It is safe for
// concurrent use.
type Deadlines struct {
	parent context.Context
	life   time.Duration

	mu     sync.Mutex // guards following
	now    context.Context
	cancel context.CancelFunc // of now, which is never ended before its time
	until  time.Time          // when the next one is made
}

// NewDeadlines returns a Deadlines whose contexts end with parent, and after
// life or up to 2 % sooner.
func NewDeadlines(parent context.Context, life time.Duration) *Deadlines {
	return &Deadlines{parent: parent, life: life}
}

// Context returns a context that began not long ago.
func (d *Deadlines) Context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := time.Now(); !t.Before(d.until) {
		d.now, d.cancel = context.WithTimeout(d.parent, d.life)
		d.until = t.Add(d.life / share)
	}
	return d.now
}
