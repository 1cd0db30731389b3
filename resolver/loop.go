package resolver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

const (
	// loopDoubt is how long a question is under way until an equal one that
	// comes in may be the same, sent back.
	loopDoubt = 600 * time.Millisecond
	// loopPause is the time between two tests of the same side.
	loopPause = 10 * time.Second
	// loopPatience is how long a test waits for its reply: one packet's time.
	loopPatience = 700 * time.Millisecond
	// loopMemory is for how long a loop holds that no test has shown again.
	loopMemory = 2 * time.Minute
	tokenLen   = 32 // octets of a test's first label, in hexadecimal
)

var errCameBack = errors.New("the question came back from a server that it was sent to: a forwarding loop")

// ForwardingLoop is a server that sends what we ask it back to us.
type ForwardingLoop struct {
	Side, Server string
	From         netip.Addr // as whose question it comes back
	Since        time.Time  // it was first seen
}

// loops finds the servers that forward to us what we forward to them, directly
// or through others (SECURITY R-17). No question under way is asked twice, so
// that a loop ends where it began; but everybody in it waits in vain, and sends
// again. So, when a question comes in again while it is under way, its side is
// tested: each server is asked for a name below the question's whose first label
// nobody can guess. If that comes back, it is a loop, and from then on whoever
// sent it is told at once that its questions are our own.
type loops struct {
	pending atomic.Int32 // tests whose name may come back
	known   atomic.Int32 // len of found

	mu     sync.Mutex // guards the rest
	tests  map[string]ForwardingLoop
	tested map[string]time.Time // sides, until when not to test them again
	found  map[loopKey]seenLoop
}

type loopKey struct{ side, server string }

type seenLoop struct {
	ForwardingLoop
	last time.Time
}

// Loops returns the loops there are, in the order in which they were found.
func (r *Resolver) Loops() []ForwardingLoop {
	l := &r.flights.loops
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(time.Now())
	var all []ForwardingLoop
	for _, s := range l.found {
		all = append(all, s.ForwardingLoop)
	}
	slices.SortFunc(all, func(a, b ForwardingLoop) int { return a.Since.Compare(b.Since) })
	return all
}

// expire forgets the loops that were not seen for long.
func (l *loops) expire(now time.Time) {
	for key, s := range l.found {
		if now.Sub(s.last) > loopMemory {
			delete(l.found, key)
		}
	}
	l.known.Store(int32(len(l.found)))
}

// keep forgets the loops, and the tests under way, of servers that p does not ask
// any more: what they sent back is no question of ours from now on.
func (l *loops) keep(p *Policy) {
	gone := func(side, server string) bool {
		return !slices.ContainsFunc(p.loopable(side), func(ex upstream.Exchanger) bool { return ex.String() == server })
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for token, t := range l.tests {
		if gone(t.Side, t.Server) {
			delete(l.tests, token)
		}
	}
	for key := range l.found {
		if gone(key.side, key.server) {
			delete(l.found, key)
		}
	}
	l.known.Store(int32(len(l.found)))
	clear(l.tested) // a new server may loop as well
}

// loopable returns the servers that a side's questions go to.
func (p *Policy) loopable(side string) []upstream.Exchanger {
	all := upstream.Members(p.Sides[side].Exchanger)
	if side == Foreign {
		all = append(all, upstream.Members(p.Auto.Judge)...)
	}
	return all
}

// due reports whether side is to be tested now, and if so takes it that it is.
func (l *loops) due(side string) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.tested[side]) {
		return false
	}
	if l.tested == nil {
		l.tested = map[string]time.Time{}
	}
	l.tested[side] = now.Add(loopPause)
	return true
}

// testLoop finds out whether the servers of l's side send it back to us.
func (r *Resolver) testLoop(l lookup) {
	servers := upstream.Members(l.to.Exchanger)
	if len(servers) == 0 || !r.flights.loops.due(l.side) {
		return
	}
	for _, server := range servers {
		token := newToken()
		end := r.flights.loops.await(token, ForwardingLoop{Side: l.side, Server: server.String()})
		time.AfterFunc(loopPause, end)
		name := l.name
		for len(name)+1+tokenLen > 250 {
			name, _ = name.Parent()
		}
		msg := wire.AppendQuery(nil, dnsname.FQDN(token+"."+strings.TrimPrefix(string(name), ".")).AppendWire(nil), l.qtype, l.do, l.cd, l.options)
		r.goTest(func() {
			ctx, cancel := context.WithTimeout(context.Background(), loopPatience)
			defer cancel()
			server.Exchange(ctx, upstream.Query{Msg: msg}) // what it says is of no interest
		})
	}
}

// goTest tests a server beside the query that gave the reason. A panic costs the
// test: nobody above its goroutine would keep it from ending the process.
func (r *Resolver) goTest(test func()) {
	go func() {
		defer func() {
			if p := recover(); p != nil {
				r.log.Error("resolver: panic in the test of a server", "panic", p, "stack", string(debug.Stack()))
			}
		}()
		test()
	}()
}

// newToken returns a label that nobody can guess.
func newToken() string {
	var b [tokenLen / 2]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// await lets a question with token count as proof of loop, until end is called.
func (l *loops) await(token string, loop ForwardingLoop) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tests == nil {
		l.tests = map[string]ForwardingLoop{}
	}
	l.tests[token] = loop
	l.pending.Add(1)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.tests, token)
		l.pending.Add(-1)
	}
}

// returned answers a test that came back to us.
func (r *Resolver) returned(t *task) (outcome, bool) {
	l := &r.flights.loops
	if l.pending.Load() == 0 || len(t.name) <= tokenLen || t.name[tokenLen] != '.' {
		return outcome{}, false
	}
	loop, ok := l.proved(string(t.name[:tokenLen]), t.q.Client)
	if !ok {
		return outcome{}, false
	}
	if loop.Since.IsZero() {
		r.log.Warn("a server sends our questions back to us: a forwarding loop", "side", loop.Side, "server", loop.Server, "from", t.q.Client)
	}
	t.step().Local = "our own test of " + loop.Server + ", come back: a forwarding loop"
	return outcome{msg: message{rcode: wire.NXDomain, authority: []record{localSOA(t.name)}}}, true
}

// proved returns the loop that token proves, with when it was found if it was
// known before.
func (l *loops) proved(token string, from netip.Addr) (loop ForwardingLoop, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if loop, ok = l.tests[token]; !ok {
		return loop, false
	}
	l.expire(now)
	key := loopKey{loop.Side, loop.Server}
	old, known := l.found[key]
	loop.From, loop.Since = from, old.Since
	s := seenLoop{loop, now}
	if !known {
		s.Since = now
	}
	if l.found == nil {
		l.found = map[loopKey]seenLoop{}
	}
	l.found[key] = s
	l.known.Store(int32(len(l.found)))
	return loop, true
}

// has reports whether side has a server that is known to loop.
func (l *loops) has(side string) bool {
	return l.any(func(s ForwardingLoop) bool { return s.Side == side })
}

// from reports whether what client asks may be what we ask side.
func (l *loops) from(side string, client netip.Addr) bool {
	return l.any(func(s ForwardingLoop) bool { return s.Side == side && s.From == client })
}

// any reports whether one of the loops is as is says.
func (l *loops) any(is func(ForwardingLoop) bool) bool {
	if l.known.Load() == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(time.Now())
	for _, s := range l.found {
		if is(s.ForwardingLoop) {
			return true
		}
	}
	return false
}

// cameBack reports whether the question of l, from client, is one that its side
// is being asked, whoever changed DO and CD on the way.
func (r *Resolver) cameBack(l lookup, client netip.Addr) bool {
	if !r.flights.loops.from(l.side, client) {
		return false
	}
	for _, l.do = range []bool{false, true} {
		for _, l.cd = range []bool{false, true} {
			if l.identify(); r.flights.has(l.key) {
				r.testLoop(l)
				return true
			}
		}
	}
	return false
}
