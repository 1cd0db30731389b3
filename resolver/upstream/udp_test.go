package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

// TestBadPacketFirst sends one bad packet before the right answer, 23 kinds of
// them (SECURITY.md section 2): the right answer must win every time.
// (SECURITY S-05, S-07)
func TestBadPacketFirst(t *testing.T) {
	elsewhere := listenFrom(t, "127.0.0.2:0")
	otherPort := listenFrom(t, "127.0.0.1:0")
	lie := func(query []byte) []byte { return reply(query, other) }
	end := func(m []byte) int { return wire.HeaderLen + len(wire.Question(m)) }
	cases := []struct {
		name string
		bad  func(query []byte) [][]byte
	}{
		{"runt", one(func(q []byte) []byte { return lie(q)[:3] })},
		{"empty", one(func([]byte) []byte { return nil })},
		{"wrong ID", one(func(q []byte) []byte { return edit(lie(q), func(m []byte) { m[1] ^= 1 }) })},
		{"wrong ID 100 times", func(q []byte) (all [][]byte) {
			for i := range 100 {
				all = append(all, edit(lie(q), func(m []byte) { m[0], m[1] = m[0]^0x80, byte(i) }))
			}
			return all
		}},
		{"wrong port", nil},
		{"wrong address", nil},
		{"right ID, broken body", one(func(q []byte) []byte { return lie(q)[:len(lie(q))-7] })},
		{"wrong name", one(func(q []byte) []byte { return edit(lie(q), func(m []byte) { m[13] = 'x' }) })},
		{"wrong type", one(func(q []byte) []byte { return edit(lie(q), func(m []byte) { m[end(m)-3] = 28 }) })},
		{"wrong class", one(func(q []byte) []byte { return edit(lie(q), func(m []byte) { m[end(m)-1] = 3 }) })},
		{"no question", one(func(q []byte) []byte {
			m := append(lie(q)[:12:12], "\x03www\x07example\x00\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\x01\x02\x03\x04"...)
			m[5] = 0
			return m
		})},
		{"two questions", one(func(q []byte) []byte {
			m := append(rcode(q, 0), wire.Question(q)...)
			m[5] = 2
			return m
		})},
		{"QR=0", one(func(q []byte) []byte { return edit(lie(q), func(m []byte) { m[2] &^= 0x80 }) })},
		{"echo", one(func(q []byte) []byte { return q })},
		{"opcode 5", one(func(q []byte) []byte { return edit(lie(q), func(m []byte) { m[2] |= 5 << 3 }) })},
		{"header only", one(func(q []byte) []byte { return edit(lie(q)[:12], func(m []byte) { m[5], m[7] = 0, 0 }) })},
		{"lying counts", one(func(q []byte) []byte { return edit(lie(q), func(m []byte) { m[7] = 3 }) })},
		{"trailing octets", one(func(q []byte) []byte { return append(lie(q), 0) })},
		{"FORMERR", one(func(q []byte) []byte { return rcode(q, 1) })},
		{"SERVFAIL", one(func(q []byte) []byte { return rcode(q, 2) })},
		{"REFUSED", one(func(q []byte) []byte { return rcode(q, 5) })},
		{"truncated", one(func(q []byte) []byte { return edit(rcode(q, 0), func(m []byte) { m[2] |= 2 }) })},
		{"case flipped", one(func(q []byte) []byte { return edit(lie(q), func(m []byte) { m[13] ^= 0x20 }) })},
	}
	if len(cases) != 23 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := serve(t, func(w client, query []byte) {
				switch {
				case c.bad != nil:
					for _, b := range c.bad(query) {
						w.send(b)
					}
				case c.name == "wrong port":
					otherPort.WriteToUDPAddrPort(lie(query), w.from)
				default:
					elsewhere.WriteToUDPAddrPort(lie(query), w.from)
				}
				w.send(reply(query, right))
			}, truthTCP)
			r := want(t, spoofable(t, f), query(asked), right)
			if r.Suspicious {
				t.Error("suspicious without Suspect")
			}
		})
	}
}

func one(f func([]byte) []byte) func([]byte) [][]byte {
	return func(q []byte) [][]byte { return [][]byte{f(q)} }
}

// (SECURITY S-03)
func TestWrongIDFloodEndsOverTCP(t *testing.T) {
	f := serve(t, func(w client, query []byte) {
		for range 100 {
			w.send(edit(reply(query, other), func(m []byte) { m[1] ^= 0xff }))
		}
	}, truthTCP)
	ex := spoofable(t, f)
	r := want(t, ex, query(asked), right)
	if last := r.Tries[len(r.Tries)-1]; last.Proto != "tcp" || !strings.Contains(r.Tries[0].Note, "wrong ID") {
		t.Errorf("tries %+v", r.Tries)
	}
	if s := upstream.Health(ex)[0]; s.SpoofSuspect != 1 || !s.Up || s.Failures != 0 {
		t.Errorf("status %+v", s)
	}
}

// (SECURITY S-04; with a thousand queries in lab/conformance)
func TestWrongIDWithoutTCPStillAnswers(t *testing.T) {
	refused := make(chan struct{})
	var once sync.Once
	f := serve(t, func(w client, query []byte) {
		w.send(edit(reply(query, other), func(m []byte) { m[1] ^= 0xff }))
		go func() {
			<-refused // for the first query, after it was
			w.send(reply(query, right))
		}()
	}, nil)
	ex := newServer(t, upstream.Config{
		Scheme: "udp", Where: upstream.At(f.addr), Spoofable: true,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if network == "tcp" {
				defer once.Do(func() { close(refused) })
			}
			return dial(ctx, network, address)
		},
	})
	for range 20 {
		want(t, ex, query(asked), right)
	}
}

// (SECURITY P-09)
func TestTruncatedGoesOverTCP(t *testing.T) {
	cut := func(w client, query []byte) { w.send(edit(rcode(query, 0), func(m []byte) { m[2] |= 2 })) }
	t.Run("answered", func(t *testing.T) {
		f := serve(t, cut, truthTCP)
		want(t, spoofable(t, f), query(asked), right)
	})
	t.Run("longer than asked for", func(t *testing.T) {
		f := serve(t, func(w client, query []byte) { w.send(append(reply(query, other), make([]byte, 2000)...)) }, truthTCP)
		want(t, spoofable(t, f), query(asked), right)
	})
	for name, tcp := range map[string]tcpHandler{"refused": nil, "silent": silentTCP, "closed": func(*conn) {}} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, cut, tcp)
			r, err := spoofable(t, f).Exchange(testContext(t), query(asked))
			if err == nil || len(r.Tries) != 2 {
				t.Fatalf("%v, tries %+v", err, r.Tries)
			}
		})
	}
}

// (SECURITY F-07)
func TestFORMERRIsAskedWithoutOPT(t *testing.T) {
	old := func(bare bool) udpHandler {
		return func(w client, query []byte) {
			switch {
			case !wire.HasOPT(query):
				w.send(reply(query, right))
			case bare:
				w.send(edit(rcode(query, 1)[:12], func(m []byte) { m[5] = 0 }))
			default:
				w.send(rcode(query, 1))
			}
		}
	}
	for _, open := range []bool{true, false} {
		for _, bare := range []bool{true, false} {
			f := serve(t, old(bare), nil)
			ex := newServer(t, upstream.Config{Scheme: "udp", Where: upstream.At(f.addr), Spoofable: open, Timeouts: quick})
			want(t, ex, query(asked), right)
			if n := f.queriesUDP.Load(); n != 2 {
				t.Errorf("%d packets", n)
			}
		}
	}
	f := serve(t, nil, func(c *conn) {
		for q := c.query(); q != nil; q = c.query() {
			if wire.HasOPT(q) {
				c.send(rcode(q, 1))
			} else {
				c.send(reply(q, right))
			}
		}
	})
	want(t, newServer(t, upstream.Config{Scheme: "tcp", Where: upstream.At(f.addr), Timeouts: quick}), query(asked), right)
}

// (SECURITY S-20)
func TestForgedFORMERRDisablesNothing(t *testing.T) {
	f := serve(t, func(w client, query []byte) {
		w.send(rcode(query, 1))
		w.send(rcode(query, 5))
		w.send([]byte("garbage"))
		w.send(reply(query, right))
	}, truthTCP)
	ex := spoofable(t, f)
	for range 50 {
		want(t, ex, query(asked), right)
	}
	// Every query was first sent with its OPT.
	seen, first := map[string]bool{}, 0
	for _, p := range f.packets() {
		if !seen[p.from.String()] && wire.HasOPT(p.msg) {
			first++
		}
		seen[p.from.String()] = true
	}
	if first != len(seen) {
		t.Errorf("%d of %d queries began with an OPT", first, len(seen))
	}
	if s := upstream.Health(ex)[0]; !s.Up || s.Failures != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestErrorCodeIsReturnedWhenNothingBetterComes(t *testing.T) {
	for _, code := range []byte{2, 4, 5, 9} {
		f := serve(t, func(w client, query []byte) { w.send(rcode(query, code)) }, nil)
		r, err := spoofable(t, f).Exchange(testContext(t), query(asked))
		if err != nil || wire.RCode(r.Msg) != uint16(code) {
			t.Errorf("rcode %d: %v, % x", code, err, r.Msg)
		}
	}
}

// preserve, lower and flip are what servers do to the case of a name.
// (SECURITY S-08)
func TestCaseOfTheName(t *testing.T) {
	lower := func(m []byte) {
		name := m[12 : 12+len(asked)]
		copy(name, bytes.ToLower(name))
	}
	flip := func(m []byte) {
		for i, c := range m[12 : 12+len(asked)] {
			if c |= 0x20; 'a' <= c && c <= 'z' {
				m[12+i] ^= 0x20
			}
		}
	}
	for name, change := range map[string]func([]byte){"lower": lower, "flip": flip, "preserve": func([]byte) {}} {
		for _, tcp := range []tcpHandler{truthTCP, nil} {
			t.Run(name, func(t *testing.T) {
				f := serve(t, func(w client, query []byte) { w.send(edit(reply(query, right), change)) }, tcp)
				ex := spoofable(t, f)
				for range 10 {
					want(t, ex, query(asked), right)
				}
				spellings := map[string]bool{}
				for _, p := range f.packets()[:3] {
					spellings[string(wire.Question(p.msg))] = true
				}
				if name == "preserve" && (len(spellings) < 2 || f.accepted.Load() != 0) {
					t.Errorf("spellings %v, %d connections", spellings, f.accepted.Load())
				}
				if before := f.queriesTCP.Load(); name != "preserve" && tcp != nil && (before == 0 || before > 4) {
					t.Errorf("%d queries over TCP: the server is not exempt", before)
				}
			})
		}
	}
}

func TestNoCaseGamesInsideATunnel(t *testing.T) {
	f := serve(t, func(w client, query []byte) {
		w.send(edit(reply(query, right), func(m []byte) { copy(m[12:], bytes.ToLower(m[12:12+len(asked)])) }))
	}, nil)
	ex := newServer(t, upstream.Config{Scheme: "udp", Where: upstream.At(f.addr), Timeouts: quick})
	want(t, ex, query(asked), right)
	if got := wire.Question(f.packets()[0].msg); !bytes.HasPrefix(got, []byte(asked)) {
		t.Errorf("asked for %q", got)
	}
}

func TestSuspiciousReplyIsHeld(t *testing.T) {
	suspect := func(_ string, msg []byte) bool { return bytes.HasSuffix(msg, other.AsSlice()) }
	q := query(asked)
	q.Suspect, q.Hold = suspect, 200*time.Millisecond

	t.Run("a better one comes", func(t *testing.T) {
		f := serve(t, func(w client, query []byte) {
			w.send(reply(query, other))
			w.send(reply(query, other))
			w.send(reply(query, right))
		}, nil)
		if r := want(t, spoofable(t, f), q, right); r.Suspicious {
			t.Error("still suspicious")
		}
	})
	t.Run("none comes", func(t *testing.T) {
		f := serve(t, func(w client, query []byte) { w.send(reply(query, other)) }, nil)
		start := time.Now()
		r := want(t, spoofable(t, f), q, other)
		if !r.Suspicious || time.Since(start) < q.Hold {
			t.Errorf("suspicious %v after %s", r.Suspicious, time.Since(start))
		}
	})
	t.Run("not where nobody can forge", func(t *testing.T) {
		f := serve(t, func(w client, query []byte) { w.send(reply(query, other)) }, truthTCP)
		slow := q
		slow.Hold = time.Hour
		for _, scheme := range []string{"udp", "tcp"} {
			ex := newServer(t, upstream.Config{Scheme: scheme, Where: upstream.At(f.addr), Timeouts: quick})
			slow.Suspect = func(string, []byte) bool { return true }
			if _, r := ask(t, ex, slow); !r.Suspicious {
				t.Errorf("%s: not suspicious", scheme)
			}
		}
	})
}

// (SECURITY F-05)
func TestLostPacketIsSentAgain(t *testing.T) {
	var n atomic.Int32
	f := serve(t, func(w client, query []byte) {
		if n.Add(1) >= 3 {
			w.send(reply(query, right))
		}
	}, nil)
	r := want(t, spoofable(t, f), query(asked), right)
	if last := r.Tries[len(r.Tries)-1]; last.Proto != "udp" {
		t.Errorf("tries %+v", r.Tries)
	}
	seen := f.packets()
	first, last := seen[0], seen[len(seen)-1]
	if first.from != last.from || !bytes.Equal(first.msg, last.msg) {
		t.Error("sent again from another port or under another ID")
	}
}

// (SECURITY F-09)
func TestServerWithTCPOnly(t *testing.T) {
	t.Run("udp refused", func(t *testing.T) {
		want(t, spoofable(t, serve(t, nil, truthTCP)), query(asked), right)
	})
	t.Run("udp silent", func(t *testing.T) {
		want(t, spoofable(t, serve(t, silentUDP, truthTCP)), query(asked), right)
	})
}

// (SECURITY R-19)
func TestSilentServerCostsAtMostSixPackets(t *testing.T) {
	f := serve(t, silentUDP, silentTCP)
	ex := spoofable(t, f)
	r, err := ex.Exchange(testContext(t), query(asked))
	if err == nil || len(r.Tries) == 0 || r.Tries[len(r.Tries)-1].Err == nil {
		t.Fatalf("%v, tries %+v", err, r.Tries)
	}
	if n := f.queriesUDP.Load() + f.queriesTCP.Load(); n > 6 || n < 4 || f.accepted.Load() > 3 {
		t.Errorf("%d packets, %d connections", n, f.accepted.Load())
	}
	if s := upstream.Health(ex)[0]; s.Failures != 1 || s.LastError == "" || s.Queries != 1 || !s.Up {
		t.Errorf("status %+v", s)
	}
}

func TestExchangeEndsWithItsContext(t *testing.T) {
	for _, scheme := range []string{"udp", "tcp"} {
		arrived := make(chan struct{}, 10)
		f := serve(t,
			func(client, []byte) { arrived <- struct{}{} },
			func(c *conn) { c.query(); arrived <- struct{}{}; c.query() })
		ex := newServer(t, upstream.Config{Scheme: scheme, Where: upstream.At(f.addr), Timeouts: upstream.Timeouts{Total: time.Hour, Try: time.Hour}})
		ctx, cancel := context.WithCancel(testContext(t))
		go func() {
			<-arrived
			cancel()
		}()
		if _, err := ex.Exchange(ctx, query(asked)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", scheme, err)
		}
		if s := upstream.Health(ex)[0]; s.Failures != 0 {
			t.Errorf("%s: blamed for a client that left: %+v", scheme, s)
		}
	}
}

func TestQueryIsNeverChanged(t *testing.T) {
	f := serve(t, truthUDP, truthTCP)
	for _, scheme := range []string{"udp", "tcp"} {
		q := query(asked)
		before := bytes.Clone(q.Msg)
		ask(t, newServer(t, upstream.Config{Scheme: scheme, Where: upstream.At(f.addr), Spoofable: true}), q)
		if !bytes.Equal(q.Msg, before) {
			t.Errorf("%s: query changed", scheme)
		}
	}
	ex := newServer(t, upstream.Config{Scheme: "udp", Where: upstream.At(f.addr)})
	for _, msg := range [][]byte{nil, make([]byte, 12), query(asked).Msg[:20]} {
		if _, err := ex.Exchange(testContext(t), upstream.Query{Msg: msg}); err == nil {
			t.Errorf("asked % x", msg)
		}
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	addr := netip.MustParseAddrPort("192.0.2.1:53")
	for want, c := range map[string]upstream.Config{
		"scheme": {Scheme: "gopher", Where: upstream.At(addr), Dial: dial},
		"port":   {Scheme: "udp", Where: upstream.At(netip.AddrPortFrom(addr.Addr(), 0)), Dial: dial},
		"dial":   {Scheme: "udp", Where: upstream.At(addr)},
	} {
		if _, err := upstream.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	ex := newServer(t, upstream.Config{Scheme: "tls", Where: upstream.At(addr)})
	if ex.String() != "tls://192.0.2.1:53" {
		t.Errorf("called %s", ex)
	}
}
