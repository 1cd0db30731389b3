package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

func TestThousandEqualQueriesAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{name: "s", delay: time.Second, addr: right}
		ex := upstream.Coalesce(s)
		var answered atomic.Int32
		var all sync.WaitGroup
		for i := range 1000 {
			all.Go(func() {
				name := []byte(asked)
				wire.Randomize0x20(name, []byte{byte(i), byte(i >> 8)})
				q := query(string(name))
				wire.SetID(q.Msg, uint16(i))
				r, err := ex.Exchange(t.Context(), q)
				if err != nil || wire.MatchReply(q.Msg, r.Msg) != wire.Matches || len(r.Tries) != 1 {
					t.Errorf("query %d: %v, % x", i, err, r.Msg)
					return
				}
				answered.Add(1)
				clear(r.Msg) // it is ours
			})
		}
		all.Wait()
		if s.asked.Load() != 1 || answered.Load() != 1000 {
			t.Errorf("asked %d times, %d answered", s.asked.Load(), answered.Load())
		}
		timed(t, ex)
		if s.asked.Load() != 2 {
			t.Error("a reply was kept")
		}
	})
}

func TestDifferentQueriesAreNotOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{name: "s", delay: time.Second, addr: right}
		ex := upstream.Coalesce(s)
		name := []byte(asked)
		ecs := wire.AppendECS(nil, netip.MustParsePrefix("202.96.128.0/22"))
		queries := [][]byte{
			wire.AppendQuery(nil, name, wire.TypeA, false, false, nil),
			wire.AppendQuery(nil, name, wire.TypeAAAA, false, false, nil),
			wire.AppendQuery(nil, name, wire.TypeA, true, false, nil),
			wire.AppendQuery(nil, name, wire.TypeA, false, true, nil),
			wire.AppendQuery(nil, name, wire.TypeA, false, false, ecs),
			wire.AppendQuery(nil, []byte("\x07example\x00"), wire.TypeA, false, false, nil),
		}
		var all sync.WaitGroup
		for _, msg := range append(queries, queries...) {
			all.Go(func() {
				if _, err := ex.Exchange(t.Context(), upstream.Query{Msg: bytes.Clone(msg)}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := int(s.asked.Load()); n != len(queries) {
			t.Errorf("%d questions asked %d times", len(queries), n)
		}
	})
}

func TestLeaderLeavingFailsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{name: "s", delay: time.Second, addr: right}
		ex := upstream.Coalesce(s)
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := ex.Exchange(ctx, query(asked)); !errors.Is(err, context.Canceled) {
				t.Errorf("leader: %v", err)
			}
		})
		synctest.Wait()
		for range 10 {
			all.Go(func() {
				if _, err := ex.Exchange(t.Context(), query(asked)); err != nil {
					t.Errorf("follower: %v", err)
				}
			})
		}
		synctest.Wait()
		leave()
		all.Wait()
		if s.asked.Load() != 1 {
			t.Errorf("asked %d times", s.asked.Load())
		}
	})
}

func TestQueryEndsWhenAllHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{name: "s", delay: time.Hour, addr: right}
		ex := upstream.Coalesce(s)
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if _, err := ex.Exchange(ctx, query(asked)); err == nil {
					t.Error("answered")
				}
			})
		}
		all.Wait()
		synctest.Wait() // the server's Exchange has ended, else synctest.Test fails
		s.delay = 0
		timed(t, ex)
		if s.asked.Load() != 2 {
			t.Errorf("asked %d times", s.asked.Load())
		}
	})
}

func TestCoalescedErrorReachesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		ex := upstream.Coalesce(&scripted{name: "s", delay: time.Second, err: down})
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if r, err := ex.Exchange(t.Context(), query(asked)); !errors.Is(err, down) || len(r.Tries) != 1 {
					t.Errorf("%v, %+v", err, r)
				}
			})
		}
		all.Wait()
		if _, err := ex.Exchange(t.Context(), upstream.Query{Msg: []byte("x")}); err == nil {
			t.Error("a query without a question was asked")
		}
	})
}
