// Package work has what queries share so that each of them costs little:
// goroutines and deadlines.
package work

import "sync"

// maxIdle is how many goroutines of a crew wait for work.
const maxIdle = 256

// Crew runs functions in goroutines that are kept for the next ones. A new one
// would grow its stack anew for each query, which costs more than to start it.
// Its methods are safe for concurrent use. The zero Crew is ready.
type Crew struct {
	mu     sync.Mutex // guards following
	idle   []chan func()
	closed bool
}

// Go runs f in a goroutine of its own.
func (c *Crew) Go(f func()) {
	c.mu.Lock()
	n := len(c.idle) - 1
	if n < 0 {
		c.mu.Unlock()
		go c.work(f)
		return
	}
	next := c.idle[n] // that worked last, so that its stack is still as it was
	c.idle = c.idle[:n]
	c.mu.Unlock()
	next <- f
}

func (c *Crew) work(f func()) {
	next := make(chan func(), 1)
	for ok := true; ok; f, ok = <-next {
		f()
		if !c.wait(next) {
			return
		}
	}
}

// wait reports whether there is room for one more that waits for work.
func (c *Crew) wait(next chan func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= maxIdle {
		return false
	}
	c.idle = append(c.idle, next)
	return true
}

// Close ends the goroutines that wait for work, and others when they are done.
// Go still works.
func (c *Crew) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, next := range c.idle {
		close(next)
	}
	c.idle = nil
}
