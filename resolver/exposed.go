package resolver

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"smartdns/resolver/dnsname"
)

// exposedSlots is how many names are remembered as counted, in 4 bytes each.
const exposedSlots = 1 << 14

// exposed counts the names that are in no list and that the domestic side, and
// so the ISP, was asked about. It remembers a name by its hash until another
// takes its slot, after which it would count once more.
type exposed struct {
	count atomic.Uint64
	mu    sync.Mutex // guards the rest
	seed  maphash.Seed
	slots []uint32
}

func (e *exposed) add(name dnsname.FQDN) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.slots == nil {
		e.seed, e.slots = maphash.MakeSeed(), make([]uint32, exposedSlots)
	}
	h := maphash.String(e.seed, string(name))
	mark := uint32(h>>32) | 1
	slot := &e.slots[h%exposedSlots]
	if *slot != mark {
		*slot = mark
		e.count.Add(1)
	}
}
