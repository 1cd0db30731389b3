package server

import (
	"bytes"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"smartdns/resolver/wire"
)

// FuzzAccept is the one door of every transport: of what comes through, there
// is one question of class IN and no records but an OPT; nobody who is not on
// the access list comes through; and what is sent back is a reply to it, with
// no data, that is hardly longer than what came.
func FuzzAccept(f *testing.F) {
	add := func(change func(*dns.Msg)) {
		m := new(dns.Msg).SetQuestion("wWw.example.", dns.TypeA)
		change(m)
		if b, err := m.Pack(); err == nil {
			f.Add(b)
		}
	}
	add(func(*dns.Msg) {})
	add(func(m *dns.Msg) { m.SetEdns0(1232, true) })
	add(func(m *dns.Msg) { m.SetEdns0(1232, true).IsEdns0().SetVersion(1) })
	add(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate })
	add(func(m *dns.Msg) { m.Response = true })
	add(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR })
	add(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS })
	add(func(m *dns.Msg) { m.SetTsig("k.", dns.HmacSHA256, 300, 1) })
	add(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) })
	f.Add([]byte{})
	s := New(nil, DefaultLimits(), slog.New(slog.DiscardHandler))
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := bytes.Clone(msg)
		for _, known := range []bool{true, false} {
			from := Client{Addr: netip.MustParseAddrPort("127.0.0.1:4000")}
			if !known {
				from.Addr = netip.MustParseAddrPort("192.0.2.1:4000")
			}
			q, reply, ok := s.accept(nil, msg, &from)
			if !bytes.Equal(before, msg) {
				t.Fatal("the message was changed")
			}
			if ok {
				if !known || len(reply) > 0 || msg[2]&0xf8 != 0 || q.Class != wire.ClassIN || msg[5] != 1 || msg[7] != 0 || msg[9] != 0 {
					t.Fatalf("let in: % x", msg)
				}
				continue
			}
			if len(reply) == 0 {
				if len(msg) >= wire.HeaderLen && msg[2]&0x80 == 0 {
					t.Fatalf("silence for % x", msg)
				}
				continue
			}
			var m dns.Msg
			if err := m.Unpack(reply); err != nil || !m.Response || m.Id != wire.ID(msg) || len(m.Answer)+len(m.Ns) != 0 || m.Rcode == dns.RcodeSuccess {
				t.Fatalf("to % x: % x, %v", msg, reply, err)
			}
			if len(reply) > len(msg)+64 || !known && m.Rcode != dns.RcodeRefused {
				t.Fatalf("to % x, known %t: %d octets, %s", msg, known, len(reply), dns.RcodeToString[m.Rcode])
			}
		}
	})
}
