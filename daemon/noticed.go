package daemon

import (
	"sync"
	"time"

	"smartdns/web/api"
)

// noticed remembers since when status has shown the conditions that are found
// only by looking for them.
type noticed struct {
	mu    sync.Mutex
	first map[string]time.Time // by what the condition says
}

// date gives each condition without a time the one at which it was first among
// those of a call; who is not among them is forgotten.
func (n *noticed) date(all []api.Condition, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := map[string]time.Time{}
	for i := range all {
		c := &all[i]
		if !c.Since.IsZero() {
			continue
		}
		c.Since = now
		if first, ok := n.first[c.What]; ok {
			c.Since = first
		}
		next[c.What] = c.Since
	}
	n.first = next
}
