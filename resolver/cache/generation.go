package cache

import "sync/atomic"

// Generation numbers the states of everything that an answer was decided and
// marked by: policy, paths, the sets in the kernel, and verdicts that a person
// changed (for those that answers turn, see Sealed.Turned). Whoever
// changes one of them advances it, after the change: then nothing that was
// sealed before is given any more. It is safe for concurrent use, and starts
// with its zero value.
type Generation struct{ n atomic.Uint64 }

// Now returns the number of the present state. A seal carries the one that was
// read before the answer was decided.
func (g *Generation) Now() uint64 { return g.n.Load() }

// Advance says that something changed.
func (g *Generation) Advance() { g.n.Add(1) }

// View names a set of clients, at certain listeners, that get the same
// answers. The zero View is that of everybody where no rule treats anybody apart.
type View uint16
