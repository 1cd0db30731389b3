package resolver

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/wire"
)

var errOverload = errors.New("too many queries are waiting")

// slots counts the queries that wait for upstreams.
type slots struct {
	limits Limits
	mu     sync.Mutex // guards the rest
	total  int
	client map[netip.Addr]int
}

// take reports whether client may wait.
func (s *slots) take(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= s.limits.InFlight || s.client[client] >= s.limits.PerClient {
		return false
	}
	if s.client == nil {
		s.client = map[netip.Addr]int{}
	}
	s.total++
	s.client[client]++
	return true
}

// give ends a wait.
func (s *slots) give(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.client[client]--; s.client[client] == 0 {
		delete(s.client, client)
	}
}

// zoneOf returns the zone that name's questions count for: what somebody
// registered, as its last two labels have it, or three where a country sells
// names below com, co and their like.
func zoneOf(name dnsname.FQDN) string {
	var last, second, third dnsname.FQDN
	for at, ok := name, true; ok && at != "."; at, ok = at.Parent() {
		last, second, third = at, last, second
	}
	// last is the top level.
	if third != "" && len(last) == len("cn.") && len(second)-len(last) <= len("com.") {
		return string(third)
	}
	if second != "" {
		return string(second)
	}
	return string(last)
}

const (
	// maxParsing is how many octets the replies being read may take together,
	// whoever sends them (SECURITY section 6.2).
	maxParsing = 32 << 20
	// parsedRecord is what the names of one record take at most beside its
	// message: as text and in wire form.
	parsedRecord = 2048
)

// parsing counts the memory of replies being read.
type parsing struct{ used atomic.Int64 }

// take reports whether a reply of size octets may be read now; release, when
// it has been. Its records are more than its octets: 12 of them are one whose
// names stand elsewhere in the message.
func (p *parsing) take(size int) (release func(), ok bool) {
	cost := int64(size + min(size/12, wire.MaxRecords)*parsedRecord)
	if p.used.Add(cost) > maxParsing {
		p.used.Add(-cost)
		return nil, false
	}
	return func() { p.used.Add(-cost) }, true
}
