package upstream_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

func overTCP(t testing.TB, f *fake) upstream.Exchanger {
	return newServer(t, upstream.Config{Scheme: "tcp", Where: upstream.At(f.addr), Timeouts: quick})
}

func TestStreamIsKeptAndShared(t *testing.T) {
	f := serve(t, nil, truthTCP)
	ex := overTCP(t, f)
	for range 20 {
		want(t, ex, query(asked), right)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := ex.Exchange(testContext(t), query(asked)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := f.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestOutOfOrder has ten queries in flight on one connection and answers them
// backwards, each by its own address.
func TestOutOfOrder(t *testing.T) {
	const n = 10
	f := serve(t, nil, func(c *conn) {
		var queries [][]byte
		for len(queries) < n {
			q := c.query()
			if q == nil {
				return
			}
			queries = append(queries, q)
		}
		for i := range queries {
			q := queries[n-1-i]
			c.send(reply(q, right.Next().Next())) // another name's ID would show
			c.send(edit(reply(q, other), func(m []byte) { m[0] ^= 0xff }))
		}
		c.query()
	})
	ex := overTCP(t, f)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			q := query(string([]byte{1, byte('a' + i), 4, 't', 'e', 's', 't', 0}))
			r, err := ex.Exchange(testContext(t), q)
			if err != nil || wire.MatchReply(q.Msg, r.Msg) != wire.Matches || address(t, r.Msg) != right.Next().Next() {
				t.Errorf("query %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if f.accepted.Load() != 1 {
		t.Errorf("%d connections", f.accepted.Load())
	}
}

func TestStreamOctetByOctet(t *testing.T) {
	f := serve(t, nil, func(c *conn) {
		for q := c.query(); q != nil; q = c.query() {
			for _, b := range frame(reply(q, right)) {
				c.Write([]byte{b})
			}
		}
	})
	ex := overTCP(t, f)
	want(t, ex, query(asked), right)
	want(t, ex, query(asked), right)
}

func TestClosedConnectionFailsNoQuery(t *testing.T) {
	t.Run("between queries", func(t *testing.T) {
		closed := make(chan struct{}, 100)
		f := serve(t, nil, func(c *conn) {
			if q := c.query(); q != nil {
				c.send(reply(q, right))
			}
			c.Close()
			closed <- struct{}{}
		})
		ex := overTCP(t, f)
		for range 10 {
			want(t, ex, query(asked), right)
			<-closed
		}
	})
	t.Run("instead of a reply", func(t *testing.T) {
		var n atomic.Int32
		f := serve(t, nil, func(c *conn) {
			q := c.query()
			if n.Add(1) == 1 || q == nil {
				return
			}
			c.send(reply(q, right))
			c.query()
		})
		want(t, overTCP(t, f), query(asked), right)
	})
	t.Run("in the middle of a reply", func(t *testing.T) {
		var n atomic.Int32
		f := serve(t, nil, func(c *conn) {
			for q := c.query(); q != nil; q = c.query() {
				if n.Add(1) == 2 {
					c.Write(frame(reply(q, right))[:20])
					return
				}
				c.send(reply(q, right))
			}
		})
		ex := overTCP(t, f)
		for range 4 {
			want(t, ex, query(asked), right)
		}
	})
}

// TestSilentConnection is one whose far end has forgotten it: a new one is
// tried beside it.
func TestSilentConnection(t *testing.T) {
	var n atomic.Int32
	f := serve(t, nil, func(c *conn) {
		first := n.Add(1) == 1
		for i, q := 0, c.query(); q != nil; i, q = i+1, c.query() {
			if !first || i == 0 {
				c.send(reply(q, right))
			}
		}
	})
	ex := overTCP(t, f)
	for range 3 {
		want(t, ex, query(asked), right)
	}
	if f.accepted.Load() != 2 {
		t.Errorf("%d connections", f.accepted.Load())
	}
}

// (SECURITY R-19)
func TestHopelessStreamCostsLittle(t *testing.T) {
	for name, handle := range map[string]tcpHandler{
		"closes at once":      func(*conn) {},
		"closes after query":  func(c *conn) { c.query() },
		"one octet":           func(c *conn) { c.query(); c.Write([]byte{0}) },
		"frame of 3 octets":   func(c *conn) { c.query(); c.Write([]byte{0, 3, 1, 2, 3}); c.query() },
		"garbage for ever":    func(c *conn) { c.query(); garbage(c) },
		"other question":      func(c *conn) { c.send(edit(reply(c.query(), other), func(m []byte) { m[13] = 'x' })); c.query() },
		"QR=0":                func(c *conn) { c.send(c.query()); c.query() },
		"malformed":           func(c *conn) { c.send(edit(reply(c.query(), other), func(m []byte) { m[7] = 9 })); c.query() },
		"truncated":           func(c *conn) { c.send(edit(reply(c.query(), other), func(m []byte) { m[2] |= 2 })); c.query() },
		"more than 16 KiB":    func(c *conn) { c.send(append(reply(c.query(), other), make([]byte, 17<<10)...)); c.query() },
		"bare REFUSED":        func(c *conn) { c.send(edit(rcode(c.query(), 5)[:12], func(m []byte) { m[5] = 0 })); c.query() },
		"silent, then closes": func(c *conn) { c.query(); c.query() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, nil, handle)
			ex := overTCP(t, f)
			r, err := ex.Exchange(testContext(t), query(asked))
			if err == nil || len(r.Tries) != 1 || r.Tries[0].Err == nil {
				t.Fatalf("%v, tries %+v", err, r.Tries)
			}
			if f.accepted.Load() > 3 || f.queriesTCP.Load() > 6 {
				t.Errorf("%d connections, %d queries", f.accepted.Load(), f.queriesTCP.Load())
			}
		})
	}
}

// garbage writes replies with IDs of nobody until the client goes.
func garbage(c *conn) {
	msg := frame(bytes.Repeat([]byte{0x81}, 40))
	for {
		if _, err := c.Write(msg); err != nil {
			return
		}
	}
}

func TestLongReplyOfALongType(t *testing.T) {
	f := serve(t, nil, func(c *conn) {
		q := c.query()
		msg := rcode(q, 0)
		for range 100 { // 100 records of 512 octets
			msg = append(msg, 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 2, 0)
			msg = append(msg, 255)
			msg = append(msg, make([]byte, 255)...)
			msg = append(msg, 255)
			msg = append(msg, make([]byte, 255)...)
		}
		msg[7] = 100
		c.send(msg)
		c.query()
	})
	q := upstream.Query{Msg: wire.AppendQuery(nil, []byte(asked), wire.TypeTXT, false, false, nil)}
	r, err := overTCP(t, f).Exchange(testContext(t), q)
	if err != nil || len(r.Msg) < 50000 {
		t.Fatalf("%v, %d octets", err, len(r.Msg))
	}
}

// TestIdleConnectionIsClosed waits for the server to see the end.
func TestIdleConnectionIsClosed(t *testing.T) {
	ended := make(chan struct{})
	f := serve(t, nil, func(c *conn) {
		truthTCP(c)
		close(ended)
	})
	short := quick
	short.Idle = 50 * time.Millisecond
	ex := newServer(t, upstream.Config{Scheme: "tcp", Where: upstream.At(f.addr), Timeouts: short})
	want(t, ex, query(asked), right)
	select {
	case <-ended:
	case <-testContext(t).Done():
		t.Fatal("still open")
	}
}

// TestConnectingIsShared has many queries wait for one slow connection, and
// the one that opened it leave.
func TestConnectingIsShared(t *testing.T) {
	f := serve(t, nil, truthTCP)
	started, proceed := make(chan struct{}, 10), make(chan struct{})
	ex := newServer(t, upstream.Config{Scheme: "tcp", Where: upstream.At(f.addr),
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			started <- struct{}{}
			select {
			case <-proceed:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			return dial(ctx, network, address)
		}})
	ctx, leave := context.WithCancel(testContext(t))
	gone := make(chan error, 1)
	go func() {
		_, err := ex.Exchange(ctx, query(asked))
		gone <- err
	}()
	<-started
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := ex.Exchange(testContext(t), query(asked)); err != nil {
				t.Error(err)
			}
		})
	}
	leave()
	if err := <-gone; err == nil {
		t.Error("answered before it was connected")
	}
	close(proceed)
	all.Wait()
	if n := f.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// The far end of a connection that many queries share goes silent. One new
// connection does for all of them, not one each.
func TestForgottenConnectionIsReplacedOnce(t *testing.T) {
	var dials atomic.Int32
	f := serve(t, nil, func(c *conn) {
		if q := c.query(); q != nil {
			c.send(reply(q, right))
		}
		for q := c.query(); q != nil; q = c.query() {
			if dials.Load() > 1 {
				c.send(reply(q, right))
			}
		}
	})
	ex := newServer(t, upstream.Config{Scheme: "tcp", Where: upstream.At(f.addr), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, address)
	}})
	want(t, ex, query(asked), right)
	var all sync.WaitGroup
	for range 60 { // as many as one connection carries before another is opened
		all.Go(func() {
			if _, err := ex.Exchange(testContext(t), query(asked)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := dials.Load(); n > 5 {
		t.Errorf("%d connections for 60 queries, want at most 5", n)
	}
}

// A stream may be given up while it is still being dialled; the race detector
// looks on.
func TestRetiredWhileDialling(t *testing.T) {
	f := serve(t, nil, truthTCP)
	first := make(chan struct{})
	var once sync.Once
	ex := newServer(t, upstream.Config{Scheme: "tcp", Where: upstream.At(f.addr), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		once.Do(func() { close(first) })
		// As long as the patience with a connection that seemed to be open.
		<-time.After(time.Second)
		return dial(ctx, network, address)
	}})
	var all sync.WaitGroup
	ask := func() {
		if _, err := ex.Exchange(testContext(t), query(asked)); err != nil {
			t.Error(err)
		}
	}
	all.Go(ask)
	<-first
	for range 40 {
		all.Go(ask)
	}
	all.Wait()
}
