package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"smartdns/resolver/wire"
)

// question packs a query, changed by edit.
func question(t testing.TB, name string, qtype uint16, edit func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	if edit != nil {
		edit(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func edns(m *dns.Msg) { m.SetEdns0(4096, true) }

func TestParseQueryAccepts(t *testing.T) {
	msg := question(t, "wWw.Example.", dns.TypeHTTPS, func(m *dns.Msg) {
		m.CheckingDisabled = true
		edns(m)
	})
	q, action, rcode := wire.ParseQuery(msg)
	if action != wire.Accept || rcode != 0 {
		t.Fatalf("action %d, rcode %d", action, rcode)
	}
	if string(q.Name()) != "\x03wWw\x07Example\x00" || q.Type != dns.TypeHTTPS || q.Class != dns.ClassINET ||
		!q.RD() || !q.CD() || q.AD() || q.ID() != wire.ID(msg) {
		t.Errorf("read %+v", q)
	}
	if want := (wire.EDNS{Present: true, Size: 4096, DO: true}); q.EDNS != want || q.Limit() != wire.MaxUDP {
		t.Errorf("EDNS %+v, limit %d", q.EDNS, q.Limit())
	}
	for _, c := range []struct{ size, want uint16 }{{0, 512}, {511, 512}, {512, 512}, {1232, 1232}, {65535, 65535}} {
		msg := question(t, "a.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(c.size, false) })
		q, action, _ := wire.ParseQuery(msg)
		if action != wire.Accept || q.EDNS.Size != c.want || q.Limit() != int(min(c.want, 1232)) {
			t.Errorf("size %d: %+v, limit %d", c.size, q.EDNS, q.Limit())
		}
	}
}

// The types and flags of ISC's compliance test that a forwarder must answer.
func TestParseQueryAcceptsEveryOrdinaryTypeAndFlag(t *testing.T) {
	for _, qtype := range []uint16{1, 2, 3, 4, 5, 6, 7, 10, 12, 15, 16, 24, 25, 28, 30, 35, 38, 42, 43, 46, 47, 48, 55, 64, 65, 99, 105, 127, 255, 256, 259, 666, 1000, 32769, 65535} {
		if _, action, rcode := wire.ParseQuery(question(t, "z.", qtype, nil)); action != wire.Accept {
			t.Errorf("type %d: action %d, rcode %d", qtype, action, rcode)
		}
	}
	for bit := range 11 { // above them are the opcode and QR
		msg := question(t, "z.", dns.TypeSOA, edns)
		msg[2+1-bit/8] ^= 1 << (bit % 8)
		if _, action, rcode := wire.ParseQuery(msg); action != wire.Accept {
			t.Errorf("flag %#x: action %d, rcode %d", 1<<bit, action, rcode)
		}
	}
}

func TestParseQueryRefuses(t *testing.T) {
	plain := question(t, "example.test.", dns.TypeA, nil)
	with := func(edit func(*dns.Msg)) []byte { return question(t, "example.test.", dns.TypeA, edit) }
	patched := func(at int, b ...byte) []byte {
		msg := bytes.Clone(plain)
		copy(msg[at:], b)
		return msg
	}
	record := func(s string) dns.RR {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		return rr
	}
	opt := func(edit func(*dns.OPT)) []byte {
		return with(func(m *dns.Msg) {
			edns(m)
			edit(m.IsEdns0())
		})
	}
	manyOptions := func(n int) []byte {
		return opt(func(o *dns.OPT) {
			for range n {
				o.Option = append(o.Option, &dns.EDNS0_LOCAL{Code: 65001})
			}
		})
	}
	brokenOption := append(question(t, "a.", dns.TypeA, nil), 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0, 10, 0, 8, 1)
	brokenOption[11] = 1
	signed := with(func(m *dns.Msg) { m.SetTsig("key.", dns.HmacSHA256, 300, 1) })
	compressed := append(bytes.Clone(plain[:12]), 0xc0, 12, 0, 1, 0, 1)
	long := append(bytes.Clone(plain[:12]), bytes.Repeat([]byte("\x3faaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), 4)...)
	long = append(long, 0, 0, 1, 0, 1)

	for _, c := range []struct {
		name   string
		msg    []byte
		action wire.Action
		rcode  uint16
	}{
		{"empty", nil, wire.Drop, 0},
		{"runt", plain[:11], wire.Drop, 0},
		{"a reply", patched(2, 0x81), wire.Drop, 0},
		{"header only", patched(4, 0, 0)[:12], wire.Reply, wire.FormErr},
		{"header that promises", plain[:12], wire.Reply, wire.FormErr},
		{"STATUS", patched(2, 0x10), wire.Reply, wire.NotImp},
		{"NOTIFY", patched(2, 0x20), wire.Reply, wire.NotImp},
		{"UPDATE", patched(2, 0x28), wire.Reply, wire.NotImp},
		{"opcode 15, header only", patched(2, 0x78)[:12], wire.Reply, wire.NotImp},
		{"no question", patched(4, 0, 0), wire.Reply, wire.FormErr},
		{"two questions", with(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), wire.Reply, wire.FormErr},
		{"question cut", plain[:len(plain)-1], wire.Reply, wire.FormErr},
		{"compressed question", compressed, wire.Reply, wire.FormErr},
		{"name of 257 octets", long, wire.Reply, wire.FormErr},
		{"label of kind 01", patched(12, 0x47), wire.Reply, wire.FormErr},
		{"answer", with(func(m *dns.Msg) { m.Answer = []dns.RR{record("a. A 1.2.3.4")} }), wire.Reply, wire.FormErr},
		{"authority", with(func(m *dns.Msg) { m.Ns = []dns.RR{record("a. NS b.")} }), wire.Reply, wire.FormErr},
		{"additional address", with(func(m *dns.Msg) { m.Extra = []dns.RR{record("a. A 1.2.3.4")} }), wire.Reply, wire.FormErr},
		{"promised OPT missing", patched(10, 0, 1), wire.Reply, wire.FormErr},
		{"trailing octet", append(bytes.Clone(plain), 0), wire.Reply, wire.FormErr},
		{"two OPTs", with(func(m *dns.Msg) { edns(m); m.Extra = append(m.Extra, m.Extra[0]) }), wire.Reply, wire.FormErr},
		{"three additional", with(func(m *dns.Msg) { edns(m); m.Extra = append(m.Extra, m.Extra[0], m.Extra[0]) }), wire.Reply, wire.FormErr},
		{"OPT below the root", opt(func(o *dns.OPT) { o.Hdr.Name = "a." }), wire.Reply, wire.FormErr},
		{"option longer than its record", brokenOption, wire.Reply, wire.FormErr},
		{"64 options", manyOptions(64), wire.Accept, 0},
		{"65 options", manyOptions(65), wire.Reply, wire.FormErr},
		{"EDNS version 1", opt(func(o *dns.OPT) { o.SetVersion(1) }), wire.Reply, wire.BadVers},
		{"class CH", patched(len(plain)-1, 3), wire.Reply, wire.Refused},
		{"class NONE", patched(len(plain)-1, 254), wire.Reply, wire.Refused},
		{"class ANY", patched(len(plain)-1, 255), wire.Reply, wire.Refused},
		{"signed", signed, wire.Reply, wire.Refused},
		{"AXFR", question(t, "z.", dns.TypeAXFR, nil), wire.Reply, wire.Refused},
		{"IXFR", question(t, "z.", dns.TypeIXFR, nil), wire.Reply, wire.Refused},
		{"MAILA", question(t, "z.", 254, nil), wire.Reply, wire.NotImp},
		{"MAILB", question(t, "z.", 253, nil), wire.Reply, wire.NotImp},
		{"TKEY", question(t, "z.", 249, nil), wire.Reply, wire.NotImp},
		{"TSIG", question(t, "z.", 250, nil), wire.Reply, wire.NotImp},
		{"OPT as type", question(t, "z.", 41, nil), wire.Reply, wire.NotImp},
		{"type 0", question(t, "z.", 0, nil), wire.Reply, wire.NotImp},
		{"NXNAME", question(t, "z.", 128, nil), wire.Reply, wire.FormErr},
		{"ANY", question(t, "z.", 255, nil), wire.Accept, 0},
	} {
		q, action, rcode := wire.ParseQuery(c.msg)
		if action != c.action || rcode != c.rcode {
			t.Errorf("%s: action %d, rcode %d; want %d, %d", c.name, action, rcode, c.action, c.rcode)
		}
		if action == wire.Reply {
			checkError(t, c.name, q, rcode)
		}
	}
}

// checkError checks an error reply by what SECURITY.md section 5 asks of it.
func checkError(t *testing.T, name string, q wire.Query, rcode uint16) {
	t.Helper()
	b := wire.AppendError(nil, q, rcode, 0, "why")
	var m dns.Msg
	if err := m.Unpack(b); err != nil {
		t.Errorf("%s: error reply % x: %v", name, b, err)
		return
	}
	if len(b) > wire.MinUDP {
		t.Errorf("%s: error reply of %d octets", name, len(b))
	}
	opcode := int(q.Msg[2] >> 3 & 0xf)
	if m.Id != q.ID() || !m.Response || m.Opcode != opcode || m.Rcode != int(rcode) {
		t.Errorf("%s: reply header %+v", name, m.MsgHdr)
	}
	if m.Authoritative || m.Truncated || m.Zero || m.AuthenticatedData || len(m.Answer)+len(m.Ns) > 0 {
		t.Errorf("%s: reply says too much: %+v", name, m.MsgHdr)
	}
	if opcode != 0 && (len(b) != wire.HeaderLen || m.RecursionAvailable || m.RecursionDesired || m.CheckingDisabled) {
		t.Errorf("%s: reply to opcode %d: % x", name, opcode, b)
	}
	if opcode == 0 && (len(m.Question) == 1) != (q.Question != nil) {
		t.Errorf("%s: question in the reply: %v", name, len(m.Question))
	}
	if (m.IsEdns0() != nil) != q.EDNS.Present {
		t.Errorf("%s: OPT in the query %v, in the reply %v", name, q.EDNS.Present, m.IsEdns0() != nil)
	}
}

func TestAppendErrorKeepsWithin512Octets(t *testing.T) {
	name := strings.Repeat(strings.Repeat("a", 62)+".", 4) + "a."
	q, _, _ := wire.ParseQuery(question(t, name, dns.TypeA, edns))
	b := wire.AppendError([]byte("xy"), q, wire.ServFail, 22, strings.Repeat("隧道断了", 100))[2:]
	var m dns.Msg
	if err := m.Unpack(b); err != nil || len(b) > 512 {
		t.Fatalf("%d octets: %v", len(b), err)
	}
	ede, ok := m.IsEdns0().Option[0].(*dns.EDNS0_EDE)
	if !ok || ede.InfoCode != 22 || !strings.HasPrefix(ede.ExtraText, "隧道断了") || strings.ContainsRune(ede.ExtraText, '\ufffd') {
		t.Errorf("options %v", m.IsEdns0().Option)
	}
	if !m.RecursionAvailable || !m.RecursionDesired || !m.IsEdns0().Do() {
		t.Errorf("header %+v", m.MsgHdr)
	}
	noEDNS, _, _ := wire.ParseQuery(question(t, "a.", dns.TypeA, nil))
	if b := wire.AppendError(nil, noEDNS, wire.BadVers, 1, "x"); wire.RCode(b) != wire.ServFail || wire.HasOPT(b) {
		t.Errorf("BADVERS without OPT: % x", b)
	}
	if b := wire.AppendError([]byte("xy"), wire.Query{}, wire.FormErr, -1, ""); string(b) != "xy" {
		t.Errorf("reply to nothing: % x", b)
	}
}

func TestAppendQueryIsWhatMiekgPacks(t *testing.T) {
	want := question(t, "www.example.", dns.TypeAAAA, func(m *dns.Msg) {
		m.Id, m.CheckingDisabled = 0, true
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = []dns.EDNS0{
			&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 22, Address: []byte{202, 96, 128, 0}},
		}
	})
	ecs := wire.AppendECS(nil, prefix("202.96.130.86/22"))
	got := wire.AppendQuery([]byte("x"), []byte("\x03www\x07example\x00"), dns.TypeAAAA, true, true, ecs)[1:]
	if !bytes.Equal(got, want) {
		t.Errorf("got  % x\nwant % x", got, want)
	}
	if value, ok := wire.Option(ecs, wire.OptionECS); !ok || len(value) != 7 {
		t.Errorf("ECS option value % x", value)
	}
	if _, ok := wire.Option(ecs, wire.OptionEDE); ok {
		t.Error("found an option that is not there")
	}
	v6 := wire.AppendECS(nil, prefix("2001:da8::/47"))
	if want := []byte{0, 8, 0, 10, 0, 2, 47, 0, 0x20, 0x01, 0x0d, 0xa8, 0, 0}; !bytes.Equal(v6, want) {
		t.Errorf("ECS % x, want % x", v6, want)
	}
	bare := wire.AppendWithoutOPT(nil, got)
	if wire.HasOPT(bare) || !bytes.Equal(wire.Question(bare), wire.Question(got)) || len(bare) != 12+len(wire.Question(got)) {
		t.Errorf("without OPT: % x", bare)
	}
}
