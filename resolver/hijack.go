package resolver

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

const (
	// hijackPause is the time between two tests of the same side, while it is
	// asked: what it begins to do is known after a minute.
	hijackPause = 50 * time.Second
	// hijackMemory is for how long a finding holds that no test has shown again.
	hijackMemory = 3 * time.Minute
	// hijackPatience is how long a test waits for each of its two replies.
	hijackPatience = 5 * time.Second
	// maxHijackAddrs is how many addresses of one server are remembered.
	maxHijackAddrs = 16
)

// A Hijack is a server that answers names that do not exist: a provider that
// sells mistyped names, or a network that shows its own page first.
type Hijack struct {
	Side, Server string
	Addrs        []netip.Addr // what it answers with
	Since        time.Time    // it was first seen
}

// hijacks finds the servers that answer names that do not exist. While a side
// is asked whose answers anybody could change, each of its servers is asked
// once a minute for two names that nobody can have registered. Where both have
// addresses, these say nothing of any name: an answer of that side that holds
// one means NXDOMAIN, is not marked and judges nothing (SECURITY F-08). What a
// server of one side says changes no answer of another.
type hijacks struct {
	known atomic.Int32 // len of found

	mu     sync.Mutex           // guards the rest
	tested map[string]time.Time // sides, until when not to test them again
	found  map[loopKey]seenHijack
}

type seenHijack struct {
	Hijack
	last time.Time
}

// Hijacks returns the servers there are, in the order in which they were found.
func (r *Resolver) Hijacks() []Hijack {
	h := &r.servers.hijacks
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	var all []Hijack
	for key, s := range h.found {
		if now.Sub(s.last) > hijackMemory {
			delete(h.found, key)
			continue
		}
		all = append(all, s.Hijack)
	}
	h.known.Store(int32(len(h.found)))
	slices.SortFunc(all, func(a, b Hijack) int { return a.Since.Compare(b.Since) })
	return all
}

// holds reports whether m, an answer of side, holds an address that a server of
// that side answers everything with.
func (h *hijacks) holds(side string, m message) bool {
	if h.known.Load() == 0 {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for key, s := range h.found {
		if key.side != side || now.Sub(s.last) > hijackMemory {
			continue
		}
		for _, f := range m.addresses() {
			if slices.Contains(s.Addrs, f.addr) {
				return true
			}
		}
	}
	return false
}

// due reports whether side is to be tested now, and if so takes it that it is.
func (h *hijacks) due(side string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.tested[side]) {
		return false
	}
	if h.tested == nil {
		h.tested = map[string]time.Time{}
	}
	h.tested[side] = now.Add(hijackPause)
	return true
}

// saw takes note of what a test of a server found: nothing, or the addresses.
// It reports whether that is new.
func (h *hijacks) saw(key loopKey, addrs []netip.Addr, now time.Time) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, known := h.found[key]
	had := len(s.Addrs)
	if len(addrs) == 0 {
		delete(h.found, key)
		s.Addrs = nil
	} else {
		if h.found == nil {
			h.found = map[loopKey]seenHijack{}
		}
		if !known {
			s.Hijack = Hijack{Side: key.side, Server: key.server, Since: now}
		}
		// One that takes turns has more than it shows at once.
		for _, a := range addrs {
			if !slices.Contains(s.Addrs, a) && len(s.Addrs) < maxHijackAddrs {
				s.Addrs = append(slices.Clone(s.Addrs), a)
			}
		}
		s.last = now
		h.found[key] = s
	}
	h.known.Store(int32(len(h.found)))
	return len(s.Addrs) != had
}

// keep forgets what servers did that p does not ask any more.
func (h *hijacks) keep(p *Policy) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.found {
		if !slices.ContainsFunc(upstream.Members(p.Sides[key.side].Exchanger), func(ex upstream.Exchanger) bool { return ex.String() == key.server }) {
			delete(h.found, key)
		}
	}
	h.known.Store(int32(len(h.found)))
	clear(h.tested) // a new server is tested with its first answer
}

// testHijack finds out, beside the query that asks, whether the servers of l's
// side answer names that do not exist.
func (r *Resolver) testHijack(l *lookup) {
	side := l.pol.Sides[l.side]
	if !l.pol.Poison.Probe || side.Trusted || side.Private || !r.servers.hijacks.due(l.side, time.Now()) {
		return
	}
	for _, server := range upstream.Members(side.Exchanger) {
		key := loopKey{l.side, server.String()}
		r.goTest(func() {
			var all []netip.Addr
			for _, top := range []string{"com", "net"} {
				name := dnsname.FQDN(newToken() + "." + top + ".")
				addrs, err := invented(server, name)
				if err != nil {
					return // that it does not answer says nothing
				}
				if len(addrs) == 0 {
					all = nil
					break
				}
				all = append(all, addrs...)
			}
			if r.servers.hijacks.saw(key, all, time.Now()) {
				r.sealed.Generation().Advance() // what was sealed by another judgement
			}
		})
	}
}

// invented asks a server for the addresses of a name that does not exist.
func invented(server upstream.Exchanger, name dnsname.FQDN) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), hijackPatience)
	defer cancel()
	msg := wire.AppendQuery(nil, name.AppendWire(nil), dns.TypeA, false, false, nil)
	reply, err := server.Exchange(ctx, upstream.Query{Msg: msg})
	if err != nil {
		return nil, err
	}
	m, err := parse(reply.Msg, name, dns.TypeA, false)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, f := range m.addresses() {
		addrs = append(addrs, f.addr)
	}
	return addrs, nil
}
