package upstream_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

// scripted is an Exchanger in virtual time.
type scripted struct {
	name  string
	delay time.Duration
	addr  netip.Addr
	code  byte
	err   error
	dead  bool
	asked atomic.Int32
}

func (s *scripted) String() string { return s.name }

func (s *scripted) Exchange(ctx context.Context, q upstream.Query) (upstream.Reply, error) {
	s.asked.Add(1)
	start, dead := time.Now(), s.dead
	answer := time.NewTimer(s.delay)
	defer answer.Stop()
	if dead {
		answer.Reset(5 * time.Second)
	}
	try := upstream.Try{Server: s.name, Proto: "udp"}
	var err error
	select {
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-answer.C:
		if err = s.err; dead {
			err = errors.New("no reply")
		}
	}
	try.Took, try.Err = time.Since(start), err
	r := upstream.Reply{Tries: []upstream.Try{try}}
	switch {
	case err != nil:
	case s.code != 0:
		r.Msg = rcode(q.Msg, s.code)
	default:
		r.Msg = reply(q.Msg, s.addr)
	}
	return r, err
}

// timed exchanges a query and returns what came and how long it took.
func timed(t *testing.T, ex upstream.Exchanger) (upstream.Reply, time.Duration) {
	t.Helper()
	start := time.Now()
	r, err := ex.Exchange(t.Context(), query(asked))
	if err != nil {
		t.Fatalf("%v, tries %+v", err, r.Tries)
	}
	return r, time.Since(start)
}

// pass lets virtual time go by.
func pass(d time.Duration) { <-time.After(d) }

func pair() (near, far *scripted, members []upstream.Exchanger) {
	near = &scripted{name: "near", delay: 10 * time.Millisecond, addr: right}
	far = &scripted{name: "far", delay: 30 * time.Millisecond, addr: other}
	return near, far, []upstream.Exchanger{near, far}
}

func TestGroupAsksTheFastest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far, members := pair()
		g := upstream.Group([]upstream.Exchanger{members[1], members[0]}, upstream.Fastest)
		for range 20 {
			timed(t, g)
		}
		if near.asked.Load() != 19 || far.asked.Load() != 1 {
			t.Errorf("near %d, far %d", near.asked.Load(), far.asked.Load())
		}
		if g.String() != "far near" {
			t.Errorf("called %q", g)
		}
	})
}

func TestGroupInOrderAndRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far, _ := pair()
		g := upstream.Group([]upstream.Exchanger{far, near}, upstream.InOrder)
		for range 5 {
			if r, _ := timed(t, g); address(t, r.Msg) != other {
				t.Error("not the first")
			}
		}
		if near.asked.Load() != 0 {
			t.Errorf("near was asked %d times", near.asked.Load())
		}
		g = upstream.Group([]upstream.Exchanger{far, near}, upstream.Race)
		r, took := timed(t, g)
		if address(t, r.Msg) != right || took != near.delay || near.asked.Load() != 1 {
			t.Errorf("race: %s", took)
		}
		if len(r.Tries) != 2 || r.Tries[0].Server != "far" || r.Tries[1].Server != "near" || r.Tries[0].Note == "" {
			t.Errorf("tries %+v", r.Tries)
		}
		synctest.Wait()
		pass(time.Second) // the loser ends
	})
}

// F-01: one slow query, then none; the server is found again within 10 s
// (SECURITY F-01).
func TestGroupWithADeadServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far, members := pair()
		g := upstream.Group(members, upstream.Fastest)
		timed(t, g)
		near.dead = true
		died, slow := time.Now(), 0
		for range 200 {
			r, took := timed(t, g)
			if took > 2*far.delay {
				slow++
			}
			if took > time.Second || address(t, r.Msg) != other {
				t.Fatalf("%s, tries %+v", took, r.Tries)
			}
			pass(100 * time.Millisecond)
		}
		if slow > 1 {
			t.Errorf("%d slow queries", slow)
		}
		if s := upstream.Health(g); s[0].Up || s[0].Server != "near" || s[0].LastError == "" || !s[1].Up {
			t.Errorf("status %+v", s)
		} else if s[0].DownSince.Before(died) || s[0].DownSince.After(died.Add(10*time.Second)) || !s[1].DownSince.IsZero() {
			t.Errorf("dead for %s, status %+v", time.Since(died), s)
		}
		if n := near.asked.Load(); n > 10 {
			t.Errorf("the dead server was asked %d times in 20 s", n)
		}
		near.dead = false
		for back := time.Now(); !upstream.Health(g)[0].Up; pass(100 * time.Millisecond) {
			timed(t, g)
			if time.Since(back) > 10*time.Second {
				t.Fatal("not back after 10 s")
			}
		}
		if s := upstream.Health(g)[0]; !s.DownSince.IsZero() {
			t.Errorf("it is back: %+v", s)
		}
		if _, took := timed(t, g); took != near.delay {
			t.Errorf("the fastest is not asked again: %s", took)
		}
		pass(10 * time.Second)
	})
}

// (SECURITY F-02, F-07)
func TestGroupFailsOverAtOnce(t *testing.T) {
	for name, bad := range map[string]struct {
		code byte
		err  error
	}{
		"error":    {err: errors.New("connection refused")},
		"SERVFAIL": {code: 2}, "REFUSED": {code: 5}, "NOTAUTH": {code: 9},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := &scripted{name: "bad", code: bad.code, err: bad.err, delay: time.Millisecond}
				_, far, _ := pair()
				g := upstream.Group([]upstream.Exchanger{first, far}, upstream.InOrder)
				r, took := timed(t, g)
				if address(t, r.Msg) != other || took != first.delay+far.delay {
					t.Errorf("%s, tries %+v", took, r.Tries)
				}
				if len(r.Tries) != 2 || r.Tries[0].Server != "bad" || r.Tries[1].Server != "far" {
					t.Errorf("tries %+v", r.Tries)
				}
			})
		})
	}
}

func TestGroupThatHasNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := &scripted{name: "one", err: errors.New("refused")}
		two := &scripted{name: "two", err: errors.New("unreachable")}
		g := upstream.Group([]upstream.Exchanger{one, two}, upstream.Fastest)
		r, err := g.Exchange(t.Context(), query(asked))
		if err == nil || !strings.Contains(err.Error(), "one: refused") || !strings.Contains(err.Error(), "two: unreachable") || len(r.Tries) != 2 {
			t.Errorf("%v, tries %+v", err, r.Tries)
		}
		one.err, one.code = nil, 2
		r, err = g.Exchange(t.Context(), query(asked))
		if err != nil || wire.RCode(r.Msg) != wire.ServFail || len(r.Tries) != 2 {
			t.Errorf("%v, tries %+v", err, r.Tries)
		}
		one.dead, two.dead = true, true
		start := time.Now()
		if _, err := g.Exchange(t.Context(), query(asked)); err == nil || time.Since(start) > 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
		defer cancel()
		start = time.Now()
		if _, err := g.Exchange(ctx, query(asked)); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 40*time.Millisecond {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		synctest.Wait()
	})
}

func TestNXDOMAINIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		no := &scripted{name: "no", code: 3}
		near, _, _ := pair()
		r, _ := timed(t, upstream.Group([]upstream.Exchanger{no, near}, upstream.InOrder))
		if wire.RCode(r.Msg) != wire.NXDomain || near.asked.Load() != 0 {
			t.Errorf("% x, %d asked", r.Msg, near.asked.Load())
		}
	})
}

func TestGroupOfOneIsThatOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, _, _ := pair()
		g := upstream.Group([]upstream.Exchanger{near}, upstream.Race)
		if _, took := timed(t, g); took != near.delay || g.String() != near.String() {
			t.Errorf("%s after %s", g, took)
		}
		near.dead = true
		if _, err := g.Exchange(t.Context(), query(asked)); err == nil || !strings.HasPrefix(err.Error(), near.String()+": ") {
			t.Errorf("an error that does not say whose it is: %v", err)
		}
		if upstream.Health(g) != nil {
			t.Error("a stranger has a status")
		}
	})
}

// The rest uses real sockets: a server in trouble tells the group before it
// has given up itself.
func TestGroupOverSockets(t *testing.T) {
	good := serve(t, truthUDP, truthTCP)
	for name, bad := range map[string]*fake{
		"refused":           serve(t, nil, nil),
		"silent":            serve(t, silentUDP, silentTCP),
		"garbage":           serve(t, func(w client, _ []byte) { w.send([]byte("garbage")) }, nil),
		"SERVFAIL":          serve(t, func(w client, q []byte) { w.send(rcode(q, 2)) }, nil),
		"FORMERR":           serve(t, func(w client, q []byte) { w.send(rcode(q, 1)) }, nil),
		"truncated, no tcp": serve(t, func(w client, q []byte) { w.send(edit(rcode(q, 0), func(m []byte) { m[2] |= 2 })) }, nil),
	} {
		t.Run(name, func(t *testing.T) {
			g := upstream.Group([]upstream.Exchanger{
				newServer(t, upstream.Config{Scheme: "udp", Where: upstream.At(bad.addr), Spoofable: true}),
				newServer(t, upstream.Config{Scheme: "udp", Where: upstream.At(good.addr), Spoofable: true}),
			}, upstream.InOrder)
			r := want(t, g, query(asked), right)
			if len(r.Tries) < 2 || r.Tries[0].Server == r.Tries[len(r.Tries)-1].Server {
				t.Errorf("tries %+v", r.Tries)
			}
		})
	}
}

func TestGroupSpendsAtMostSixPackets(t *testing.T) {
	var fakes []*fake
	var members []upstream.Exchanger
	for range 3 {
		f := serve(t, silentUDP, silentTCP)
		fakes = append(fakes, f)
		members = append(members, spoofable(t, f))
	}
	if _, err := upstream.Group(members, upstream.Fastest).Exchange(testContext(t), query(asked)); err == nil {
		t.Error("answered")
	}
	packets, connections := int32(0), int32(0)
	for _, f := range fakes {
		packets += f.queriesUDP.Load() + f.queriesTCP.Load()
		connections += f.accepted.Load()
		if f.queriesUDP.Load() == 0 {
			t.Error("one was never asked")
		}
	}
	if packets > 6 || connections > 3 {
		t.Errorf("%d packets, %d connections", packets, connections)
	}
}

// A server whose packets are lost now and then, so that another one overtakes
// it, is slow and not down: who was not waited for has not failed.
func TestGroupBlamesNobodyForALostPacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range []upstream.Mode{upstream.Fastest, upstream.Race} {
			near, _, members := pair()
			g := upstream.Group(members, mode)
			timed(t, g)
			for range 10 {
				near.delay = 810 * time.Millisecond // sent again
				timed(t, g)
				pass(time.Second)
				near.delay = 10 * time.Millisecond
				timed(t, g)
				pass(time.Minute)
			}
			if s := upstream.Health(g)[0]; s.Failures != 0 || !s.Up {
				t.Errorf("mode %d: %+v", mode, s)
			}
			near.dead = true
			for range 10 {
				timed(t, g)
				pass(3 * time.Second)
			}
			if s := upstream.Health(g)[0]; s.Failures == 0 || s.Up {
				t.Errorf("mode %d: a server that is silent for good is up: %+v", mode, s)
			}
		}
		pass(10 * time.Second)
	})
}
