package server_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/geo"
	"smartdns/lab/netnstest"
	"smartdns/resolver"
	"smartdns/resolver/cache"
	"smartdns/resolver/policy"
	"smartdns/resolver/server"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
	"smartdns/routing"
)

// The tests of this file are rows of a catalogue of attacks and conformance
// checks, by their numbers; they run the whole query path over real sockets.

// stack is a listener in front of a resolver in front of one honest server.
type stack struct {
	at    string
	asked atomic.Int64 // questions that reached the server

	handler resolverHandler
}

type resolverHandler struct{ r *resolver.Resolver }

func (h resolverHandler) Answer(ctx context.Context, dst []byte, q wire.Query, from server.Client) []byte {
	return h.r.Answer(ctx, dst, q, policy.Client{Addr: from.Addr.Addr()}, from.Transport)
}

type verdicts struct{ t *geo.Table }

func (v verdicts) Classify(a netip.Addr) geo.Verdict { return v.t.Lookup(a) }

func newStack(t *testing.T, answer func(q *dns.Msg) *dns.Msg) *stack {
	t.Helper()
	netnstest.Require(t)
	s := &stack{at: "127.0.0.1:5310"}
	mux := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		s.asked.Add(1)
		m := answer(q)
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			size := dns.MinMsgSize
			if o := q.IsEdns0(); o != nil {
				size = int(o.UDPSize())
			}
			m.Truncate(size)
		}
		w.WriteMsg(m)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	back := l.Addr().String()
	pc, err := net.ListenPacket("udp", back)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []*dns.Server{{Listener: l, Handler: mux}, {PacketConn: pc, Handler: mux}} {
		go d.ActivateAndServe() // the sockets are open: what is asked waits for it
	}
	t.Cleanup(func() { l.Close(); pc.Close() })
	var dialer net.Dialer
	ex, err := upstream.New(upstream.Config{Scheme: "udp", Where: upstream.At(netip.MustParseAddrPort(back)), Dial: dialer.DialContext, Spoofable: true})
	if err != nil {
		t.Fatal(err)
	}
	names, err := policy.NewNames([]policy.NameRule{
		{Rule: policy.Rule{Index: 0, Action: policy.Local, Answer: policy.Answer{Kind: policy.AnswerBlock}}, Entries: []policy.Entry{{Kind: policy.Suffix, Name: "blocked.example."}}},
		{Rule: policy.Rule{Index: 1, Action: policy.AskSide, Side: resolver.Foreign}, Entries: []policy.Entry{{Kind: policy.All}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := policy.NewAddresses([]policy.AddressSpec{{Rule: policy.AddressRule{Via: routing.Direct}, All: true}})
	if err != nil {
		t.Fatal(err)
	}
	b := geo.NewBuilder("CN")
	if err := b.AddEmbedded(); err != nil {
		t.Fatal(err)
	}
	r := resolver.New(resolver.Config{
		Policy: &resolver.Policy{
			Names: names, Addresses: addresses, Geo: verdicts{b.Table()}, Auto: resolver.Auto{Mode: resolver.ForeignOnly},
			Sides: map[string]resolver.Side{resolver.Foreign: {Exchanger: ex, Path: routing.Direct, Spoofable: true}},
		},
		Cache: cache.New(8 << 20), Learned: resolver.NewLearned(100),
	})
	s.handler = resolverHandler{r}
	srv := server.New(s.handler, server.DefaultLimits(), slog.New(slog.DiscardHandler))
	t.Cleanup(srv.Close)
	if err := srv.Listen([]netip.AddrPort{netip.MustParseAddrPort(s.at)}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stack) ask(t *testing.T, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	a, err := exchange(t, network, "", s.at, b)
	if err != nil {
		t.Fatalf("%s over %s: %v", m.Question[0].Name, network, err)
	}
	return a
}

// sized answers aN.example with TXT data so that the packed answer, without
// OPT, has N octets.
func sized(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	var n int
	if _, err := fmt.Sscanf(strings.ToLower(q.Question[0].Name), "a%d.example.", &n); err != nil {
		return m
	}
	m.Compress = true
	h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}
	for n -= m.Len(); n > 0; {
		const head = 12 // a compressed name, type, class, TTL, length
		size := min(n, 4000)
		if left := n - size; left > 0 && left < head+2 {
			size -= head + 2
		}
		n -= size
		data := size - head
		var txt []string
		for data > 0 {
			k := min(data-1, 255)
			txt = append(txt, strings.Repeat(string(rune('a'+len(m.Answer))), k))
			data -= k + 1
			if data == 1 { // no room for a string of its own
				txt[len(txt)-1] = txt[len(txt)-1][:k-1]
				data++
			}
		}
		m.Answer = append(m.Answer, &dns.TXT{Hdr: h, Txt: txt})
	}
	return m
}

// (SECURITY P-08)
func TestRowP08AnswerFitsWhatTheClientTakes(t *testing.T) {
	s := newStack(t, sized)
	for _, size := range []int{511, 512, 513, 1231, 1232, 1233, 4096, 16000} {
		for _, bufsize := range []uint16{0, 512, 1232, 4096, 65535} {
			q := new(dns.Msg).SetQuestion(fmt.Sprintf("a%d.example.", size), dns.TypeTXT)
			limit, opt := 512, 0
			if bufsize > 0 {
				q.SetEdns0(bufsize, false)
				limit, opt = min(int(bufsize), 1232), 11
			}
			b, _ := q.Pack()
			c, err := net.Dial("udp", s.at)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(5 * time.Second))
			c.Write(b)
			reply := make([]byte, 65535)
			n, err := c.Read(reply)
			c.Close()
			if err != nil {
				t.Fatalf("%d octets to a client of %d: %v", size, bufsize, err)
			}
			cut := binary.BigEndian.Uint16(reply[2:])&0x0200 != 0
			if n > limit || cut != (size+opt > limit) {
				t.Errorf("%d octets to a client of %d: got %d octets, TC %t; want at most %d", size, bufsize, n, cut, limit)
			}
			if full := s.ask(t, "tcp", q); full.Truncated || full.Len() < size {
				t.Errorf("%d octets over TCP: got %d, TC %t", size, full.Len(), full.Truncated)
			}
		}
	}
}

// dangerous is a message that nobody has an answer to.
type dangerous struct {
	name  string
	m     *dns.Msg
	rcode []int
}

// refused reports whether a is how d should be answered.
func (d dangerous) refused(a *dns.Msg) bool {
	return slices.Contains(d.rcode, a.Rcode) && len(a.Answer) == 0
}

func dangerousMessages() []dangerous {
	var all []dangerous
	for _, op := range []int{dns.OpcodeUpdate, dns.OpcodeNotify, dns.OpcodeStatus, 15} {
		m := new(dns.Msg).SetQuestion("a600.example.", dns.TypeSOA)
		m.Opcode = op
		all = append(all, dangerous{fmt.Sprintf("opcode %d", op), m, []int{dns.RcodeNotImplemented}})
	}
	for _, typ := range []uint16{dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILA, dns.TypeMAILB, dns.TypeTKEY, dns.TypeTSIG, dns.TypeOPT} {
		all = append(all, dangerous{dns.TypeToString[typ], new(dns.Msg).SetQuestion("a600.example.", typ),
			[]int{dns.RcodeRefused, dns.RcodeNotImplemented, dns.RcodeFormatError}})
	}
	for _, class := range []uint16{dns.ClassANY, dns.ClassCHAOS, dns.ClassNONE} {
		m := new(dns.Msg).SetQuestion("a600.example.", dns.TypeTXT)
		m.Question[0].Qclass = class
		all = append(all, dangerous{dns.ClassToString[class], m, []int{dns.RcodeRefused, dns.RcodeNotImplemented}})
	}
	signed := new(dns.Msg).SetQuestion("a600.example.", dns.TypeTXT)
	signed.Extra = append(signed.Extra, &dns.TSIG{
		Hdr: dns.RR_Header{Name: "key.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256, MACSize: 32, MAC: strings.Repeat("00", 32),
	})
	return append(all, dangerous{"TSIG", signed, []int{dns.RcodeRefused}})
}

// (SECURITY P-11)
func TestRowP11DangerousMessagesAreNotForwarded(t *testing.T) {
	s := newStack(t, sized)
	for _, d := range dangerousMessages() {
		for _, network := range []string{"udp", "tcp"} {
			if a := s.ask(t, network, d.m); !d.refused(a) {
				t.Errorf("%s over %s: %s with %d answers", d.name, network, dns.RcodeToString[a.Rcode], len(a.Answer))
			}
		}
	}
	if n := s.asked.Load(); n != 0 {
		t.Errorf("%d of them reached the upstream", n)
	}
}

// (SECURITY P-17)
func TestRowP17CachedNamesAreNotDisclosed(t *testing.T) {
	s := newStack(t, sized)
	q := new(dns.Msg).SetQuestion("a300.example.", dns.TypeTXT)
	s.ask(t, "udp", q)
	q.RecursionDesired = false
	if a := s.ask(t, "udp", q); a.Rcode != dns.RcodeRefused || len(a.Answer) > 0 {
		t.Errorf("RD=0 for a cached name: %v, want REFUSED", a)
	}
}

// (SECURITY P-19)
func TestRowP19SpecialUseNamesStayHere(t *testing.T) {
	s := newStack(t, sized)
	for name, want := range map[string]int{
		"localhost.": dns.RcodeSuccess, "a.localhost.": dns.RcodeSuccess, "x.invalid.": dns.RcodeNameError, "abc.onion.": dns.RcodeNameError,
		"printer.local.": dns.RcodeNameError, "nas.home.arpa.": dns.RcodeNameError, "1.0.0.10.in-addr.arpa.": dns.RcodeNameError,
		"20.8.168.192.in-addr.arpa.": dns.RcodeNameError, "intranet.": dns.RcodeNameError,
	} {
		a := s.ask(t, "udp", new(dns.Msg).SetQuestion(name, dns.TypeA))
		if a.Rcode != want {
			t.Errorf("%s: %s, want %s", name, dns.RcodeToString[a.Rcode], dns.RcodeToString[want])
		}
	}
	if n := s.asked.Load(); n != 0 {
		t.Errorf("%d of them reached the upstream", n)
	}
}

// (SECURITY P-21)
func TestRowP21ExtendedErrorsOnlyForThoseWhoSpeakEDNS(t *testing.T) {
	s := newStack(t, sized)
	q := new(dns.Msg).SetQuestion("www.blocked.example.", dns.TypeA)
	if a := s.ask(t, "udp", q); a.IsEdns0() != nil {
		t.Errorf("a client without EDNS got an OPT: %v", a)
	}
	q.SetEdns0(1232, false)
	o := s.ask(t, "udp", q).IsEdns0()
	if o == nil || len(o.Option) != 1 || o.Option[0].(*dns.EDNS0_EDE).InfoCode != dns.ExtendedErrorCodeBlocked {
		t.Errorf("a blocked name: %v, want extended error 15", o)
	}
}

// (SECURITY P-13, P-14)
func TestRowP13P14LifetimesAreBounded(t *testing.T) {
	s := newStack(t, func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		label, _, _ := strings.Cut(strings.ToLower(q.Question[0].Name), ".")
		var ttl uint32
		if _, err := fmt.Sscanf(label, "ttl%d", &ttl); err == nil {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: net.IPv4(93, 184, 216, 34)})
			return m
		}
		m.Rcode = dns.RcodeNameError
		m.Ns = append(m.Ns, &dns.SOA{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 86400}, Ns: "ns.example.", Mbox: "m.example.", Minttl: 86400})
		return m
	})
	for ttl, want := range map[uint32]uint32{0: 0, 1: 1, 86401: 86400, 1<<31 - 1: 86400, 1 << 31: 0, 1<<32 - 1: 0} {
		a := s.ask(t, "udp", new(dns.Msg).SetQuestion(fmt.Sprintf("ttl%d.example.", ttl), dns.TypeA))
		if len(a.Answer) != 1 || a.Answer[0].Header().Ttl > want {
			t.Errorf("TTL %d was passed on as %v, want at most %d", ttl, a.Answer, want)
		}
	}
	a := s.ask(t, "udp", new(dns.Msg).SetQuestion("nothing.example.", dns.TypeA))
	if a.Rcode != dns.RcodeNameError || len(a.Ns) != 1 || a.Ns[0].Header().Ttl > 3600 {
		t.Errorf("a negative answer: %v, want its SOA for at most an hour", a)
	}
}

// Who floods us with what is refused or malformed writes nothing into the log:
// the counters of the status have it (SECURITY R-26, with 20,000 packets).
func TestRefusalsFillNoLog(t *testing.T) {
	addAddr(t, "lo", "198.18.0.7/32")
	var lines atomic.Int64
	s := server.New(handler(echoA), server.DefaultLimits(), slog.New(slog.NewTextHandler(lineCounter{&lines}, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(s.Close)
	if err := s.Listen([]netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:5315")}); err != nil {
		t.Fatal(err)
	}
	flood := func(from, to string, msg []byte) {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
		c, err := d.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		var b [512]byte
		for range 100 {
			for range 50 {
				c.Write(msg)
			}
			for range 50 { // in step, for what a full socket buffer drops is counted by nobody
				if _, err := c.Read(b[:]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	flood("198.18.0.7", "198.18.0.7:5315", query("www.example.com"))
	flood("127.0.0.1", "127.0.0.1:5315", append(query("www.example.com"), "more"...))
	if n := lines.Load(); n > 10 {
		t.Errorf("%d lines in the log", n)
	}
	if got := s.Stats(); got.Refused < 1000 || got.Rejected < 1000 {
		t.Errorf("%+v", got)
	}
}

type lineCounter struct{ n *atomic.Int64 }

func (c lineCounter) Write(b []byte) (int, error) { c.n.Add(1); return len(b), nil }
