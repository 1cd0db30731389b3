// Package resolvertest has the fakes that tests of the resolver need, and runs
// conversations with it from files.
package resolvertest

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"smartdns/geo"
	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// Exchanger is an upstream.Exchanger made of a function.
type Exchanger struct {
	Name       string
	OnExchange func(context.Context, upstream.Query) (upstream.Reply, error)
}

// Exchange calls OnExchange.
func (e *Exchanger) Exchange(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
	return e.OnExchange(ctx, q)
}

func (e *Exchanger) String() string { return e.Name }

// Marker is a resolver.Marker that remembers.
type Marker struct {
	mu    sync.Mutex // guards the rest
	marks []routing.Mark
	err   error
}

// Mark remembers marks, or returns the error that was set, or ctx's.
func (m *Marker) Mark(ctx context.Context, _ routing.Owner, marks []routing.Mark) (time.Time, error) {
	if ctx.Err() != nil {
		return time.Time{}, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return time.Time{}, m.err
	}
	until := time.Now().Add(100 * 24 * time.Hour)
	for _, k := range marks {
		if end := time.Now().Add(k.Life); end.Before(until) {
			until = end
		}
	}
	m.marks = append(m.marks, marks...)
	return until, nil
}

// Take returns the marks since the last Take.
func (m *Marker) Take() []routing.Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	marks := m.marks
	m.marks = nil
	return marks
}

// Fail makes Mark return err; nil ends that.
func (m *Marker) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// Geo is a resolver.Classifier: these prefixes are home, special addresses are
// what package geo says, and all others are abroad.
type Geo []netip.Prefix

// Classify returns the verdict for a.
func (g Geo) Classify(a netip.Addr) geo.Verdict {
	switch kind, prefix := geo.Special(a); kind {
	case geo.SpecialPrivate:
		return geo.Verdict{Region: geo.Private, List: "private", Prefix: prefix}
	case geo.SpecialBogon:
		return geo.Verdict{Region: geo.Unknown, List: "bogon", Prefix: prefix}
	}
	for i, p := range g {
		if p.Contains(a) {
			return geo.Verdict{Region: geo.Home, List: "home", Line: i + 1, Prefix: p}
		}
	}
	return geo.Verdict{Region: geo.Abroad}
}

// Addrs is a resolver.AddrSet.
type Addrs []netip.Addr

// Contains reports whether a is one of them.
func (s Addrs) Contains(a netip.Addr) bool {
	for _, x := range s {
		if x == a {
			return true
		}
	}
	return false
}
