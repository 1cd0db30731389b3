package conformance_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	truth  = "93.184.216.34"
	forged = "203.98.7.65"
)

var be = binary.BigEndian

// forger answers over UDP at authority: what bad says first, and the truth
// after it. Over TCP it tells the truth.
type forger struct {
	conn  *net.UDPConn
	other []*net.UDPConn // sockets that nobody asked: another port, another address
	alone bool           // the truth is left to bad
}

func serveForger(t *testing.T, bad func(f *forger, query []byte, to netip.AddrPort)) {
	t.Helper()
	listen := func(addr string) *net.UDPConn {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	f := &forger{conn: listen(authority), other: []*net.UDPConn{listen("127.0.0.1:5399"), listen("127.0.0.2:5301")}}
	tcp, err := net.Listen("tcp4", authority)
	if err != nil {
		t.Fatal(err)
	}
	overTCP := &dns.Server{Listener: tcp, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		b, _ := q.Pack()
		w.Write(answer(b, truth))
	})}
	ended := make(chan struct{}, 2)
	go func() { overTCP.ActivateAndServe(); ended <- struct{}{} }()
	go func() {
		defer func() { ended <- struct{}{} }()
		b := make([]byte, 4096)
		for {
			n, from, err := f.conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			q := bytes.Clone(b[:n])
			bad(f, q, from)
			if !f.alone {
				f.say(from, answer(q, truth))
			}
		}
	}()
	t.Cleanup(func() {
		f.conn.Close()
		for _, c := range f.other {
			c.Close()
		}
		overTCP.Shutdown()
		<-ended
		<-ended
	})
}

// answer is the reply to query with one address, or none where the type has
// none.
func answer(query []byte, addr string) []byte {
	return edit(query, func(m *dns.Msg) {
		if m.Question[0].Qtype == dns.TypeA {
			m.Answer = append(m.Answer, rr(m.Question[0].Name+" 300 IN A "+addr))
		}
	})
}

// edit is the reply to query that change makes of an empty one.
func edit(query []byte, change func(*dns.Msg)) []byte {
	var q dns.Msg
	if q.Unpack(query) != nil {
		return nil
	}
	m := new(dns.Msg).SetReply(&q)
	m.RecursionAvailable = true
	if q.IsEdns0() != nil {
		m.SetEdns0(1232, false)
	}
	change(m)
	b, _ := m.Pack()
	return b
}

func rr(s string) dns.RR {
	r, err := dns.NewRR(s)
	if err != nil {
		panic(err)
	}
	return r
}

// patched is a forged answer to query with some of its octets changed.
func patched(query []byte, change func(b []byte)) []byte {
	b := answer(query, forged)
	change(b)
	return b
}

// badFirst are packets that a resolver must not take for the answer, sent
// before it (SECURITY S-05, and its table of what others do with them).
var badFirst = []struct {
	name string
	send func(f *forger, q []byte, to netip.AddrPort)
}{
	{"empty", func(f *forger, q []byte, to netip.AddrPort) { f.say(to, nil) }},
	{"runt", func(f *forger, q []byte, to netip.AddrPort) { f.say(to, q[:3]) }},
	{"wrong-id", func(f *forger, q []byte, to netip.AddrPort) { f.say(to, patched(q, func(b []byte) { b[1]++ })) }},
	{"wrong-id-100", func(f *forger, q []byte, to netip.AddrPort) {
		for i := range 100 {
			f.say(to, patched(q, func(b []byte) { be.PutUint16(b, be.Uint16(b)+uint16(i)+1) }))
		}
	}},
	{"wrong-port", func(f *forger, q []byte, to netip.AddrPort) { f.other[0].WriteToUDPAddrPort(answer(q, forged), to) }},
	{"wrong-address", func(f *forger, q []byte, to netip.AddrPort) { f.other[1].WriteToUDPAddrPort(answer(q, forged), to) }},
	{"broken-body", func(f *forger, q []byte, to netip.AddrPort) {
		b := answer(q, forged)
		f.say(to, append(b[:12], bytes.Repeat([]byte{0xff}, len(b)-12)...))
	}},
	{"wrong-name", func(f *forger, q []byte, to netip.AddrPort) {
		f.say(to, edit(q, func(m *dns.Msg) {
			m.Question[0].Name = "www.other.example.net."
			m.Answer = []dns.RR{rr("www.other.example.net. 300 IN A " + forged)}
		}))
	}},
	{"wrong-type", func(f *forger, q []byte, to netip.AddrPort) {
		f.say(to, edit(q, func(m *dns.Msg) {
			m.Answer = []dns.RR{rr(m.Question[0].Name + " 300 IN A " + forged)}
			m.Question[0].Qtype = dns.TypeTXT
		}))
	}},
	{"wrong-class", func(f *forger, q []byte, to netip.AddrPort) {
		f.say(to, edit(q, func(m *dns.Msg) {
			m.Answer = []dns.RR{rr(m.Question[0].Name + " 300 IN A " + forged)}
			m.Question[0].Qclass = dns.ClassCHAOS
		}))
	}},
	{"no-question", func(f *forger, q []byte, to netip.AddrPort) {
		f.say(to, edit(q, func(m *dns.Msg) {
			m.Answer, m.Question = []dns.RR{rr(m.Question[0].Name + " 300 IN A " + forged)}, nil
		}))
	}},
	{"two-questions", func(f *forger, q []byte, to netip.AddrPort) {
		f.say(to, edit(q, func(m *dns.Msg) {
			m.Answer = []dns.RR{rr(m.Question[0].Name + " 300 IN A " + forged)}
			m.Question = append(m.Question, m.Question[0])
		}))
	}},
	{"no-reply-bit", func(f *forger, q []byte, to netip.AddrPort) { f.say(to, patched(q, func(b []byte) { b[2] &^= 0x80 })) }},
	{"echo", func(f *forger, q []byte, to netip.AddrPort) { f.say(to, q) }},
	{"opcode-5", func(f *forger, q []byte, to netip.AddrPort) { f.say(to, patched(q, func(b []byte) { b[2] |= 5 << 3 })) }},
	{"header-only", func(f *forger, q []byte, to netip.AddrPort) {
		f.say(to, patched(q, func(b []byte) { clear(b[4:12]) })[:12])
	}},
	{"lying-counts", func(f *forger, q []byte, to netip.AddrPort) {
		f.say(to, patched(q, func(b []byte) { b[6], b[7] = 0xff, 0xff }))
	}},
	{"trailing-bytes", func(f *forger, q []byte, to netip.AddrPort) { f.say(to, append(answer(q, forged), "more"...)) }},
	{"formerr", func(f *forger, q []byte, to netip.AddrPort) { f.say(to, rcode(q, dns.RcodeFormatError)) }},
	{"servfail", func(f *forger, q []byte, to netip.AddrPort) { f.say(to, rcode(q, dns.RcodeServerFailure)) }},
	{"refused", func(f *forger, q []byte, to netip.AddrPort) { f.say(to, rcode(q, dns.RcodeRefused)) }},
	{"truncated", func(f *forger, q []byte, to netip.AddrPort) {
		f.say(to, edit(q, func(m *dns.Msg) { m.Truncated = true }))
	}},
	{"other-case", func(f *forger, q []byte, to netip.AddrPort) {
		f.say(to, patched(q, func(b []byte) {
			for i := 13; b[i] != 0; i++ { // of the first label, at least one letter
				if b[i]|0x20 >= 'a' && b[i]|0x20 <= 'z' {
					b[i] ^= 0x20
				}
			}
		}))
	}},
}

func rcode(q []byte, code int) []byte { return edit(q, func(m *dns.Msg) { m.Rcode = code }) }

func (f *forger) say(to netip.AddrPort, b []byte) { f.conn.WriteToUDPAddrPort(b, to) }

// TestBadPacketsBeforeTheAnswer asks through a server that sends a bad packet
// first: alone, and beside one where nothing listens.
func TestBadPacketsBeforeTheAnswer(t *testing.T) {
	for name, config := range map[string]string{
		"one server":  forward,
		"two servers": strings.ReplaceAll(forward, `["`+authority+`"]`, `["`+authority+`", "127.0.0.3:5301"]`),
	} {
		t.Run(name, func(t *testing.T) {
			serveForger(t, func(f *forger, q []byte, to netip.AddrPort) {
				for _, bad := range badFirst {
					if bytes.Contains(bytes.ToLower(q), []byte(bad.name)) {
						bad.send(f, q, to)
						return
					}
				}
			})
			run(t, config)
			passed := 0
			for _, bad := range badFirst {
				if got := lookup(t, bad.name+"--.bad.example.net."); got != truth {
					t.Errorf("%s first: the answer is %s, want %s", bad.name, got, truth)
					continue
				}
				passed++
			}
			t.Logf("%d of %d", passed, len(badFirst))
		})
	}
}

// TestAnAnswerSaysNothingAboutOtherNames asks for the victim after answers that
// bring something about it (SECURITY S-09).
func TestAnAnswerSaysNothingAboutOtherNames(t *testing.T) {
	const victim = ".victim.example.net."
	cases := map[string]func(m *dns.Msg, victim string){
		"answer":     func(m *dns.Msg, v string) { m.Answer = append(m.Answer, rr(v+" 300 IN A "+forged)) },
		"additional": func(m *dns.Msg, v string) { m.Extra = append(m.Extra, rr(v+" 300 IN A "+forged)) },
		"authority": func(m *dns.Msg, v string) {
			m.Ns = append(m.Ns, rr("victim.example.net. 300 IN NS "+v))
			m.Extra = append(m.Extra, rr(v+" 300 IN A "+forged))
		},
		"cname": func(m *dns.Msg, v string) {
			m.Answer = []dns.RR{rr(m.Question[0].Name + " 300 IN CNAME " + v), rr(v + " 300 IN A " + forged)}
		},
		"dname": func(m *dns.Msg, v string) {
			_, below, _ := strings.Cut(m.Question[0].Name, ".")
			label, _, _ := strings.Cut(m.Question[0].Name, ".")
			m.Answer = []dns.RR{rr(below + " 300 IN DNAME victim.example.net."), rr(m.Question[0].Name + " 300 IN CNAME " + label + victim), rr(label + victim + " 300 IN A " + forged)}
		},
	}
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		b, _ := q.Pack()
		w.Write(edit(b, func(m *dns.Msg) {
			name := strings.ToLower(m.Question[0].Name)
			if m.Question[0].Qtype != dns.TypeA {
				return
			}
			m.Answer = []dns.RR{rr(m.Question[0].Name + " 300 IN A " + truth)}
			for c, poison := range cases {
				if strings.HasPrefix(name, c+".") && !strings.HasSuffix(name, victim) {
					poison(m, c+victim)
				}
			}
		}))
	})
	run(t, forward)
	for c := range cases {
		lookup(t, c+".evil.example.org.")
		if got := lookup(t, c+victim); got != truth {
			t.Errorf("after a forged %s, the victim is at %s, want %s", c, got, truth)
		}
	}
}

// lookup is the first address that our server gives for a name, or its rcode.
func lookup(t *testing.T, name string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	c := dns.Client{Timeout: 15 * time.Second}
	m, _, err := c.ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeA), ours)
	if err != nil {
		return err.Error()
	}
	for _, rr := range m.Answer {
		if a, is := rr.(*dns.A); is {
			return a.A.String()
		}
	}
	return dns.RcodeToString[m.Rcode]
}
