package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab/netnstest"
	"smartdns/resolver/cache"
	"smartdns/resolver/server"
	"smartdns/resolver/wire"
)

// sealedServer answers www.example.com by the fast lane, with TTL 300; the
// handler, which answers all else, gives 60.
func sealedServer(t *testing.T, watch func() (server.Watch, error), addrs ...string) (*server.Server, *cache.Sealed) {
	t.Helper()
	s, _ := start(t, echoA, server.DefaultLimits())
	sealed := cache.NewSealed(0, &cache.Generation{})
	s.SetLane(server.Lane{Sealed: sealed, Watch: watch})
	var all []netip.AddrPort
	for _, a := range addrs {
		all = append(all, netip.MustParseAddrPort(a))
	}
	if err := s.Listen(all); err != nil {
		t.Fatal(err)
	}
	seal(t, sealed, "www.example.com.")
	return s, sealed
}

func seal(t *testing.T, s *cache.Sealed, name string) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.Response, m.Compress = true, true
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}, A: net.IPv4(192, 0, 2, 1)}}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if !s.Put(cache.Seal{Msg: wire.AppendOPT(b, false, -1, ""), Life: time.Hour, Generation: s.Generation().Now()}) {
		t.Fatalf("%s is not sealed", name)
	}
}

func TestSealedAnswersNeverReachTheHandler(t *testing.T) {
	addAddr(t, "lo", "198.18.7.1/32")
	s, sealed := sealedServer(t, nil, "127.0.0.1:5340", "[::1]:5340", "0.0.0.0:5341", "[::]:5341")
	s.Allow([]netip.Prefix{netip.MustParsePrefix("198.18.7.0/24")})
	to := []string{"127.0.0.1:5340", "[::1]:5340", "198.18.7.1:5341", "127.0.0.9:5341", "[::1]:5341"}
	for _, a := range to {
		m, err := exchange(t, "udp", "", a, query("wWw.eXample.com"))
		if err != nil || len(m.Answer) != 1 || m.Answer[0].Header().Ttl != 300 || m.Answer[0].Header().Name != "wWw.eXample.com." {
			t.Errorf("%s: %v, %v", a, m, err)
		}
	}
	if st := s.Stats(); st.Sealed != uint64(len(to)) || st.UDP != st.Sealed {
		t.Errorf("%+v, want %d by the fast lane", st, len(to))
	}
	for what, msg := range map[string][]byte{"another name": query("example.com"), "another view of time": nil} {
		if msg == nil {
			sealed.Generation().Advance()
			msg = query("www.example.com")
		}
		m, err := exchange(t, "udp", "", to[0], msg)
		if err != nil || len(m.Answer) != 1 || m.Answer[0].Header().Ttl != 60 {
			t.Errorf("%s: %v, %v; want the handler's answer", what, m, err)
		}
		if what == "another view of time" {
			seal(t, sealed, "www.example.com.")
		}
	}
}

// Whatever the accept function does not let in, the fast lane never sees.
func TestNothingMalformedGetsASealedAnswer(t *testing.T) {
	addAddr(t, "lo", "198.18.7.2/32")
	s, _ := sealedServer(t, nil, "0.0.0.0:5342")
	good := query("www.example.com")
	change := func(f func(b []byte) []byte) []byte { return f(append([]byte(nil), good...)) }
	set := func(at int, v byte) []byte { return change(func(b []byte) []byte { b[at] = v; return b }) }
	c, err := net.Dial("udp", "127.0.0.1:5342")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := uint64(0)
	for _, msg := range [][]byte{
		set(2, 0x81), set(2, 0x21), set(5, 2), set(5, 0), set(7, 1), set(9, 1), set(11, 1), set(len(good)-1, 3), set(len(good)-3, 252),
		change(func(b []byte) []byte { return append(b, 0) }), change(func(b []byte) []byte { return b[:len(b)-1] }), good[:12], good[:5], {0},
		change(func(b []byte) []byte { b[12] = 0xc0; return b }), make([]byte, 1400),
	} {
		if _, err := c.Write(msg); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if m, err := exchange(t, "udp", "198.18.7.2", "198.18.7.2:5342", good); err != nil || m.Rcode != dns.RcodeRefused {
		t.Errorf("a stranger got %v, %v", m, err)
	}
	if m, err := exchange(t, "udp", "", "127.0.0.1:5342", good); err != nil || len(m.Answer) != 1 {
		t.Errorf("%v, %v", m, err)
	}
	for st := s.Stats(); ; st = s.Stats() {
		if st.Rejected+st.Dropped >= n {
			if st.Sealed != 1 || st.UDP != 1 {
				t.Errorf("%+v, want one accepted query", st)
			}
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("%+v, want %d rejected", st, n)
		}
	}
}

// fakeWatch tells of a change once.
type fakeWatch struct{ changed *atomic.Bool }

func (w fakeWatch) Foreign() bool { return w.changed.Swap(false) }
func (w fakeWatch) Close() error  { return nil }

func TestNoSealedAnswerOvertakesAChangeOfTheSets(t *testing.T) {
	var changed atomic.Bool
	_, sealed := sealedServer(t, func() (server.Watch, error) { return fakeWatch{&changed}, nil }, "127.0.0.1:5343")
	for i := range 100 {
		for _, want := range []uint32{300, 60} {
			m, err := exchange(t, "udp", "", "127.0.0.1:5343", query("www.example.com"))
			if err != nil || m.Answer[0].Header().Ttl != want {
				t.Fatalf("round %d: %v, %v; want TTL %d", i, m, err, want)
			}
			changed.Store(want == 300)
		}
		seal(t, sealed, "www.example.com.")
	}
}

// The fast lane answers over streams as over UDP, and nothing sealed is given
// there either once somebody changed the sets.
func TestSealedAnswersOverStreams(t *testing.T) {
	netnstest.Require(t)
	cert, roots := shown(t)
	s := server.New(handler(echoA), server.DefaultLimits(), slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	var changed atomic.Bool
	sealed := cache.NewSealed(0, &cache.Generation{})
	s.SetLane(server.Lane{Sealed: sealed, Watch: func() (server.Watch, error) { return fakeWatch{&changed}, nil }})
	plain := netip.MustParseAddrPort("127.0.0.1:5347")
	if err := errors.Join(s.Listen([]netip.AddrPort{plain}), s.ListenSecure(server.Secure{
		TLS:         []netip.AddrPort{netip.MustParseAddrPort(dotAddr)},
		HTTPS:       []netip.AddrPort{netip.MustParseAddrPort(dohAddr)},
		Certificate: cert,
	})); err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
	tcp, err := dns.DialTimeout("tcp", plain.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	tcp.SetDeadline(time.Now().Add(20 * time.Second))
	over := func(c *dns.Conn) func([]byte) (*dns.Msg, error) {
		return func(q []byte) (*dns.Msg, error) {
			if _, err := c.Write(q); err != nil {
				return nil, err
			}
			return c.ReadMsg()
		}
	}
	web := webClient(t, config, true)
	for transport, ask := range map[string]func([]byte) (*dns.Msg, error){
		"tcp": over(tcp), "tls": over(&dns.Conn{Conn: dialTLS(t, dotAddr, config)}),
		"https": func(q []byte) (*dns.Msg, error) {
			r, b := get(t, web, encoded(q))
			m := new(dns.Msg)
			if got := r.Header.Get("Cache-Control"); got != "max-age=300" && got != "max-age=60" {
				t.Errorf("Cache-Control %q", got)
			}
			return m, m.Unpack(b)
		},
	} {
		for round, want := range []uint32{300, 300, 60} {
			if round == 0 {
				seal(t, sealed, "www.example.com.")
			}
			changed.Store(want == 60)
			before := s.Stats().Sealed
			m, err := ask(query("wWw.example.com"))
			if err != nil || len(m.Answer) != 1 || m.Answer[0].Header().Ttl != want || m.Question[0].Name != "wWw.example.com." {
				t.Fatalf("%s, round %d: %v, %v; want TTL %d", transport, round, m, err, want)
			}
			if got := s.Stats().Sealed - before; got != map[uint32]uint64{300: 1, 60: 0}[want] {
				t.Errorf("%s, round %d: counted %d", transport, round, got)
			}
		}
	}
}

// What a socket holds when it is closed is answered, whoever hammers it, and
// closing neither hangs nor loses count.
func TestStopUnderLoad(t *testing.T) {
	s, _ := sealedServer(t, nil, "127.0.0.1:5344", "[::1]:5344")
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var answered atomic.Uint64
	enough := make(chan struct{})
	for i, to := range []string{"127.0.0.1:5344", "[::1]:5344", "127.0.0.1:5344"} {
		clients.Go(func() {
			c, err := net.Dial("udp", to)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			b := make([]byte, 1500)
			for n := 0; ctx.Err() == nil; n++ {
				name := "www.example.com"
				if n%10 == i {
					name = fmt.Sprintf("n%d.example.com", n)
				}
				if _, err := c.Write(query(name)); err != nil {
					return // nobody listens any more
				}
				if _, err := c.Read(b); err != nil {
					return
				}
				if answered.Add(1) == 2000 {
					close(enough)
				}
			}
		})
	}
	<-enough
	before := s.Stats()
	s.Close()
	cancel()
	clients.Wait()
	after := s.Stats()
	if after.Sealed < before.Sealed || after.UDP < answered.Load() || after.Receives == 0 || after.Receives > after.UDP || after.Sends > after.Sealed {
		t.Errorf("before %+v, after %+v, %d answers seen", before, after, answered.Load())
	}
}
