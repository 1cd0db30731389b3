package upstream_test

import (
	"fmt"
	"sync"
	"testing"

	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

// Where nobody can forge a reply, queries share a few sockets, each under an ID
// of its own; a reply in another's place is nobody's.
func TestQueriesShareSocketsWhereNobodyCanSpoof(t *testing.T) {
	var mu sync.Mutex
	var held []byte
	f := serve(t, func(w client, q []byte) {
		mu.Lock()
		defer mu.Unlock()
		w.send(edit(reply(q, other), func(m []byte) { wire.SetID(m, wire.ID(m)+1) })) // of another query, or of none
		if held == nil {                                                              // out of order
			held = reply(q, right)
			return
		}
		w.send(reply(q, right))
		w.send(held)
		held = nil
	}, truthTCP)
	ex := newServer(t, upstream.Config{Scheme: "udp", Where: upstream.At(f.addr)})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() { want(t, ex, query(fmt.Sprintf("\x04n%03d\x07example\x00", i)), right) })
	}
	all.Wait()
	ports, ids := map[uint16]bool{}, map[uint16]bool{}
	for _, p := range f.packets() {
		ports[p.from.Port()] = true
		ids[wire.ID(p.msg)] = true
	}
	if len(ports) > 4 || len(ids) < 95 {
		t.Errorf("%d ports and %d IDs", len(ports), len(ids))
	}
}

// A socket on which nothing came is not used again.
func TestSilentSharedSocketIsLeft(t *testing.T) {
	first := make(chan uint16, 1)
	f := serve(t, func(w client, q []byte) {
		select {
		case first <- w.from.Port():
		default:
		}
		port := <-first
		first <- port
		if w.from.Port() != port {
			w.send(reply(q, right))
		}
	}, truthTCP)
	ex := newServer(t, upstream.Config{Scheme: "udp", Where: upstream.At(f.addr), Timeouts: quick})
	if r := want(t, ex, query(asked), right); r.Tries[len(r.Tries)-1].Proto != "tcp" {
		t.Errorf("%+v", r.Tries)
	}
	if r := want(t, ex, query(asked), right); len(r.Tries) != 1 || r.Tries[0].Proto != "udp" {
		t.Errorf("%+v", r.Tries)
	}
}
