package upstream_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/upstream"
)

// pipes is a network on which the right answer comes from some addresses, and
// nobody is at the others.
type pipes struct {
	mu    sync.Mutex
	alive map[string]bool
	dials []string
}

func (p *pipes) dial(_ context.Context, _, address string) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dials = append(p.dials, address)
	if !p.alive[address] {
		return nil, errors.New("nobody is there")
	}
	near, far := net.Pipe()
	go truthTCP(&conn{Conn: far, f: new(fake)})
	return near, nil
}

// took returns where connections were made to since the last call.
func (p *pipes) took() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.dials
	p.dials = nil
	return d
}

// A server's name is looked up when it is needed, again an hour after that,
// beside the queries, and at once when its address is dead: then the query that
// found out is answered from the new one.
func TestServersNameIsLookedUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const a, b, c = "192.0.2.1", "192.0.2.2", "192.0.2.3"
		p := pipes{alive: map[string]bool{a + ":853": true, b + ":853": true}}
		var names book
		names.set(a)
		var changes []string
		where := upstream.Named("dns.test", 853, nil, names.lookup, func(addrs []netip.AddrPort) { changes = append(changes, addrs[0].Addr().String()) })
		ex := newServer(t, upstream.Config{Scheme: "tcp", Where: where, Dial: p.dial})
		check := func(when string, lookups int, dials ...string) {
			t.Helper()
			want(t, ex, query(asked), right)
			synctest.Wait()
			if got := p.took(); !slices.Equal(got, dials) || int(names.lookups.Load()) != lookups {
				t.Errorf("%s: connections to %v, want %v; %d lookups, want %d", when, got, dials, names.lookups.Load(), lookups)
			}
		}
		check("first", 1, a+":853")
		check("at once", 1)
		names.set(b)
		<-time.After(59 * time.Minute)
		check("after 59 minutes", 1, a+":853") // the old connection was idle for too long
		<-time.After(2 * time.Minute)
		check("after an hour", 2, a+":853") // nobody waits for the look-up
		<-time.After(time.Minute)
		check("then", 2, b+":853")

		p.mu.Lock()
		p.alive = map[string]bool{c + ":853": true}
		p.mu.Unlock()
		names.set(c)
		<-time.After(time.Minute)
		check("when it has moved", 3, b+":853", c+":853")
		if !slices.Equal(changes, []string{a, b, c}) {
			t.Errorf("told of %v", changes)
		}
		<-time.After(time.Minute) // connections end
	})
}

// A name that cannot be looked up any more keeps the address it had.
func TestAddressOutlivesItsLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipes{alive: map[string]bool{"192.0.2.1:853": true}}
		var names book
		names.set("192.0.2.1")
		ex := newServer(t, upstream.Config{Scheme: "tcp", Where: upstream.Named("dns.test", 853, nil, names.lookup, nil), Dial: p.dial})
		want(t, ex, query(asked), right)
		names.entry.Store(nil)
		for range 3 {
			<-time.After(61 * time.Minute)
			want(t, ex, query(asked), right)
			synctest.Wait()
		}
		if n := names.lookups.Load(); n != 4 {
			t.Errorf("looked up %d times, want once an hour", n)
		}
		<-time.After(time.Minute)
	})
}
