package wire_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"smartdns/resolver/wire"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// answers packs a reply to query with the given answer records; records that
// begin with "+" go to the additional section, with "-" to the authority.
func answers(t testing.TB, query []byte, compress bool, records ...string) []byte {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(query); err != nil {
		t.Fatal(err)
	}
	m.Response, m.RecursionAvailable, m.Compress = true, true, compress
	for _, s := range records {
		rr, err := dns.NewRR(strings.TrimLeft(s, "+-"))
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		switch s[0] {
		case '+':
			m.Extra = append(m.Extra, rr)
		case '-':
			m.Ns = append(m.Ns, rr)
		default:
			m.Answer = append(m.Answer, rr)
		}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// everyType holds one record of each type whose data are checked.
var everyType = []string{
	"a. 1 A 192.0.2.1", "a. 2 AAAA 2001:db8::1", "a. 3 NS ns.a.", "a. 4 CNAME b.", "a. 5 PTR b.", "a. 6 DNAME b.",
	"a. 7 SOA ns.a. root.a. 1 2 3 4 5", "a. 8 MX 10 mx.a.", "a. 9 RP m.a. t.a.", "a. 10 MINFO b. c.", "a. 11 AFSDB 1 b.",
	"a. 12 RT 1 b.", "a. 13 KX 1 b.", "a. 14 SRV 1 2 3 b.", `a. 15 NAPTR 1 2 "S" "sip" "" b.`, `a. 16 HINFO "x" "y"`,
	`a. 17 TXT "one" "" "three"`, "a. 18 RRSIG A 8 2 3600 20300101000000 20200101000000 1 a. AAAA",
	"a. 19 DNSKEY 257 3 8 AAAA", "a. 20 DS 1 8 2 AABB", "a. 21 NSEC b. A RRSIG", "a. 22 CAA 0 issue \"ca\"",
	"a. 23 HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1", "a. 24 SVCB 0 b.",
	"a. 25 HIP 2 200100107B1A74DF365639CC39F1D578 AwEAAbdx b. c.", "a. 26 PX 1 b. c.", "a. 27 LP 1 b.", "a. 28 TYPE65400 \\# 3 010203",
}

func TestCheckReplyAcceptsEveryType(t *testing.T) {
	for _, compress := range []bool{false, true} {
		msg := answers(t, question(t, "a.", dns.TypeA, edns), compress, everyType...)
		if err := wire.CheckReply(msg); err != nil {
			t.Errorf("compressed %v: %v", compress, err)
		}
		for cut := range len(msg) {
			if wire.CheckReply(msg[:cut]) == nil {
				t.Errorf("accepted the first %d of %d octets", cut, len(msg))
			}
		}
		if wire.CheckReply(append(bytes.Clone(msg), 0)) == nil {
			t.Error("accepted a trailing octet")
		}
	}
}

func TestCheckReplyRefuses(t *testing.T) {
	query := question(t, "a.test.", dns.TypeA, nil)
	head := append(bytes.Clone(query), 0) // the answer's owner follows
	head = head[:len(query)]
	head[2] |= 0x80
	// with returns the reply whose only answer is raw.
	with := func(raw ...byte) []byte {
		msg := append(bytes.Clone(head), raw...)
		msg[7] = 1
		return msg
	}
	rr := func(typ byte, data ...byte) []byte {
		return with(append([]byte{0xc0, 12, 0, typ, 0, 1, 0, 0, 0, 60, 0, byte(len(data))}, data...)...)
	}
	here := len(query) // where the answer's owner stands
	hip := []byte{1, 0, 0, 0, 9}
	for range 17 {
		hip = append(hip, 0xc0, 12)
	}
	many := make([]string, 257)
	for i := range many {
		many[i] = fmt.Sprintf("a.test. A 192.0.%d.%d", i/256, i%256)
	}
	for name, msg := range map[string][]byte{
		"runt":                       head[:11],
		"two questions":              func() []byte { m := bytes.Clone(head); m[5] = 2; return append(m, head[12:]...) }(),
		"lying counts":               func() []byte { m := bytes.Clone(head); m[7] = 9; return m }(),
		"counts without records":     {0, 0, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0},
		"257 records":                answers(t, query, true, many...),
		"pointer to itself":          with(0xc0, byte(here), 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4),
		"pointer forwards":           with(0xc0, byte(here+12), 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 0, 2, 3, 4),
		"pointer into the header":    with(0xc0, 4, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4),
		"pointer behind the end":     with(0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4),
		"label of kind 10":           with(0x80, 1, 0, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4),
		"A of 3 octets":              rr(1, 1, 2, 3),
		"A of 5 octets":              rr(1, 1, 2, 3, 4, 5),
		"A of none":                  rr(1),
		"AAAA of 4 octets":           rr(28, 1, 2, 3, 4),
		"CNAME that leaves":          rr(5, 9, 'a'),
		"CNAME with more behind":     rr(5, 0, 0),
		"CNAME looping":              rr(5, 0xc0, byte(here+12)),
		"MX without name":            rr(15, 0, 1),
		"SOA without numbers":        rr(6, 0, 0),
		"TXT longer than its data":   rr(16, 200, 'a'),
		"TXT of nothing":             rr(16),
		"HIP with 17 names":          rr(55, hip...),
		"HTTPS with a pointer":       rr(65, 0, 1, 0xc0, 12),
		"SVCB with a pointer":        rr(64, 0, 1, 0xc0, 12),
		"NSEC with a pointer":        rr(47, 0xc0, 12, 0, 1, 0x40),
		"RRSIG with a pointer":       rr(46, 0, 1, 8, 2, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xc0, 12, 1),
		"HTTPS with half a param":    rr(65, 0, 1, 0, 0, 1),
		"HTTPS with keys unordered":  rr(65, 0, 1, 0, 0, 4, 0, 4, 1, 2, 3, 4, 0, 3, 0, 2, 1, 187),
		"HTTPS with half an address": rr(65, 0, 1, 0, 0, 4, 0, 3, 1, 2, 3),
		"OPT as answer":              with(0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0),
	} {
		if wire.CheckReply(msg) == nil {
			t.Errorf("%s: accepted % x", name, msg)
		}
	}
	if err := wire.CheckReply(answers(t, query, true, many[:256]...)); err != nil {
		t.Errorf("256 records: %v", err)
	}
}

func TestCheckReplyBoundsPointerChains(t *testing.T) {
	msg := []byte{0, 1, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1}
	msg = append(msg, 0, 0, 10, 0, 1, 0, 0, 0, 0, 0, 0) // NULL, its data are the chain
	start := len(msg)
	last := 12
	for range 100 {
		next := len(msg)
		msg = append(msg, 0xc0|byte(last>>8), byte(last))
		last = next
	}
	msg[start-1] = byte(len(msg) - start)
	msg[7] = 2
	tail := func(to int) []byte {
		return append(bytes.Clone(msg), 0xc0|byte(to>>8), byte(to), 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4)
	}
	if err := wire.CheckReply(tail(start + 2*30)); err != nil {
		t.Errorf("32 jumps: %v", err)
	}
	if wire.CheckReply(tail(start+2*31)) == nil {
		t.Error("33 jumps accepted")
	}
}

func TestMatchReply(t *testing.T) {
	query := question(t, "wWw.eXample.", dns.TypeA, edns)
	reply := answers(t, query, true, "www.example. A 192.0.2.1")
	edit := func(f func([]byte)) []byte {
		m := bytes.Clone(reply)
		f(m)
		return m
	}
	qtype := 12 + 13
	for _, c := range []struct {
		name  string
		reply []byte
		want  wire.Match
	}{
		{"right", reply, wire.Matches},
		{"empty", nil, wire.NoMatch},
		{"runt", reply[:11], wire.NoMatch},
		{"wrong ID", edit(func(m []byte) { m[1]++ }), wire.WrongID},
		{"wrong ID, header only", edit(func(m []byte) { m[1]++ })[:12], wire.WrongID},
		{"wrong ID, a query", edit(func(m []byte) { m[1]++; m[2] &^= 0x80 }), wire.NoMatch},
		{"QR=0", edit(func(m []byte) { m[2] &^= 0x80 }), wire.NoMatch},
		{"opcode 5", edit(func(m []byte) { m[2] |= 5 << 3 }), wire.NoMatch},
		{"case", edit(func(m []byte) { m[13] ^= 0x20 }), wire.CaseDiffers},
		{"not quite case", edit(func(m []byte) { m[12] ^= 0x20 }), wire.NoMatch},
		{"other name", edit(func(m []byte) { m[13] = 'x' }), wire.NoMatch},
		{"other type", edit(func(m []byte) { m[qtype+1] = 28 }), wire.NoMatch},
		{"type differs by 0x20", edit(func(m []byte) { m[qtype+1] ^= 0x20 }), wire.NoMatch},
		{"other class", edit(func(m []byte) { m[qtype+3] = 3 }), wire.NoMatch},
		{"no question", edit(func(m []byte) { m[5] = 0 }), wire.NoMatch},
		{"two questions", edit(func(m []byte) { m[5] = 2 }), wire.NoMatch},
		{"question cut", reply[:20], wire.NoMatch},
		{"header only", reply[:12], wire.NoMatch},
	} {
		if got := wire.MatchReply(query, c.reply); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	bare := []byte{query[0], query[1], 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	if !wire.BareError(query, bare) {
		t.Error("a bare FORMERR is not seen")
	}
	for at := range bare {
		other := bytes.Clone(bare)
		other[at] ^= 1
		if at != 2 && wire.BareError(query, other) { // bit 0 of octet 2 is RD
			t.Errorf("octet %d changed: still a bare error", at)
		}
	}
}

func TestRandomize0x20TouchesLettersOnly(t *testing.T) {
	name := []byte("\x07aB-9z@[\x01q\x00")
	all := bytes.Repeat([]byte{0xff}, 32)
	flipped := bytes.Clone(name)
	wire.Randomize0x20(flipped, all)
	if want := "\x07Ab-9Z@[\x01Q\x00"; string(flipped) != want {
		t.Errorf("all bits set: %q, want %q", flipped, want)
	}
	same := bytes.Clone(name)
	wire.Randomize0x20(same, make([]byte, 32))
	wire.Randomize0x20(same, nil)
	if !bytes.Equal(same, name) {
		t.Errorf("no bits set: %q", same)
	}
	wire.Randomize0x20(same, []byte{0b0101})
	if want := "\x07AB-9Z@[\x01q\x00"; string(same) != want {
		t.Errorf("bits 0 and 2: %q, want %q", same, want)
	}
}

func TestTruncateFitsEverySize(t *testing.T) {
	for _, length := range []int{511, 512, 513, 1231, 1232, 1233, 4096, 65535} {
		for _, with := range []func(*dns.Msg){nil, edns} {
			query := question(t, "big.test.", dns.TypeNULL, with)
			msg := answers(t, query, false)
			pad := length - len(msg) - 11
			var m dns.Msg
			m.Unpack(query)
			m.Response = true
			m.Answer = []dns.RR{&dns.NULL{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNULL, Class: 1}, Data: strings.Repeat("x", pad)}}
			msg, err := m.Pack()
			if err != nil || len(msg) != length {
				t.Fatalf("%d octets, want %d: %v", len(msg), length, err)
			}
			for _, size := range []int{512, 1232, 4096, 65535} {
				out := wire.Truncate([]byte("xy"), msg, size)[2:]
				if len(out) > size || wire.Truncated(out) != (length > size) {
					t.Errorf("%d octets into %d: %d, TC %v", length, size, len(out), wire.Truncated(out))
				}
				if length <= size && !bytes.Equal(out, msg) {
					t.Errorf("%d octets into %d: changed", length, size)
				}
				if err := wire.CheckReply(out); err != nil || wire.HasOPT(out) != (with != nil) ||
					wire.MatchReply(query, out) != wire.Matches {
					t.Errorf("%d octets into %d: %v, % x", length, size, err, out)
				}
			}
		}
	}
	ede := wire.AppendOPT(answers(t, question(t, "a.", 1, nil), false), true, 3, strings.Repeat("x", 150))
	cut := wire.Truncate(nil, ede, 100)
	if err := wire.CheckReply(cut); err != nil || len(cut) > 100 || !wire.HasOPT(cut) {
		t.Errorf("OPT with a long option: %d octets, %v", len(cut), err)
	}
}

func TestTTLs(t *testing.T) {
	msg := answers(t, question(t, "a.", dns.TypeA, edns), true,
		"a. 0 A 192.0.2.1", "a. 10 A 192.0.2.2", "a. 86401 A 192.0.2.3", "-a. 300 SOA b. c. 1 2 3 4 60")
	setTTL(t, msg, 10, 1<<31)
	opt, _, _ := wire.Options(msg)
	if ttl, ok := wire.MinTTL(msg); ttl != 0 || !ok {
		t.Errorf("MinTTL %d, %v", ttl, ok)
	}
	if ttl, ok := wire.NegativeTTL(msg); ttl != 60 || !ok {
		t.Errorf("NegativeTTL %d, %v", ttl, ok)
	}
	wire.ClampTTLs(msg, 86400)
	if got := ttls(t, msg); got != "0 0 86400 300" {
		t.Errorf("clamped: %s", got)
	}
	at := wire.TTLOffsets(nil, msg)
	twin := bytes.Clone(msg)
	wire.AgeTTLs(msg, 100)
	wire.AgeAt(twin, at, 100)
	if got := ttls(t, msg); got != "0 0 86300 200" || !bytes.Equal(msg, twin) {
		t.Errorf("aged: %s; by offsets %s", got, ttls(t, twin))
	}
	wire.AgeTTLs(msg, 1<<32-1)
	if got := ttls(t, msg); got != "0 0 0 0" {
		t.Errorf("aged away: %s", got)
	}
	if after, do, ok := wire.Options(msg); !do || !ok || !bytes.Equal(after, opt) {
		t.Error("the OPT has aged too")
	}
	empty := answers(t, question(t, "a.", dns.TypeA, edns), true)
	if ttl, ok := wire.MinTTL(empty); ok {
		t.Errorf("MinTTL of nothing: %d", ttl)
	}
	if ttl, ok := wire.NegativeTTL(empty); ok {
		t.Errorf("NegativeTTL without SOA: %d", ttl)
	}
}

// setTTL replaces the first TTL of value from.
func setTTL(t *testing.T, msg []byte, from, to uint32) {
	t.Helper()
	for at := range slices.Chunk(wire.TTLOffsets(nil, msg), 2) {
		off := int(at[0])<<8 | int(at[1])
		b := msg[off : off+4]
		if v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]); v == from {
			b[0], b[1], b[2], b[3] = byte(to>>24), byte(to>>16), byte(to>>8), byte(to)
			return
		}
	}
	t.Fatalf("no TTL of %d", from)
}

func ttls(t *testing.T, msg []byte) string {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(msg); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, rr := range append(m.Answer, m.Ns...) {
		out = append(out, fmt.Sprint(rr.Header().Ttl))
	}
	return strings.Join(out, " ")
}

func TestStoredReplyAnswersAnotherClient(t *testing.T) {
	stored := answers(t, question(t, "www.example.", dns.TypeA, edns), true, "www.example. 60 A 192.0.2.1", "+x. 60 A 192.0.2.2")
	stored[2] |= 0x04 // AA
	stored[3] |= 0x60 // Z, AD
	stored = wire.StripOPT(bytes.Clone(stored))
	if wire.HasOPT(stored) || wire.CheckReply(stored) != nil {
		t.Fatalf("stripped: % x", stored)
	}
	plain, _, _ := wire.ParseQuery(question(t, "WWW.example.", dns.TypeA, func(m *dns.Msg) { m.RecursionDesired, m.CheckingDisabled = false, true }))
	asking, _, _ := wire.ParseQuery(question(t, "www.EXAMPLE.", dns.TypeA, edns))
	for _, q := range []wire.Query{plain, asking} {
		reply := bytes.Clone(stored)
		wire.PatchReply(reply, q)
		if q.EDNS.Present {
			reply = wire.AppendOPT(reply, q.EDNS.DO, 3, "stale")
		}
		var m dns.Msg
		if err := m.Unpack(reply); err != nil || wire.MatchReply(q.Msg, reply) != wire.Matches {
			t.Fatalf("reply % x: %v", reply, err)
		}
		if m.RecursionDesired != q.RD() || m.CheckingDisabled != q.CD() || m.AuthenticatedData != q.EDNS.DO ||
			m.Authoritative || m.Zero || !m.RecursionAvailable || (m.IsEdns0() != nil) != q.EDNS.Present {
			t.Errorf("reply to %q: %+v", q.Name(), m.MsgHdr)
		}
	}
}

func TestNothingAllocates(t *testing.T) {
	query := question(t, "www.example.com.", dns.TypeA, edns)
	reply := answers(t, query, true, everyType...)
	dst := make([]byte, 0, 4096)
	offsets := wire.TTLOffsets(nil, reply)
	rnd := make([]byte, 32)
	for name, f := range map[string]func(){
		"ParseQuery": func() { wire.ParseQuery(query) },
		"AppendError": func() {
			q, _, _ := wire.ParseQuery(query)
			dst = wire.AppendError(dst[:0], q, wire.ServFail, 22, "no reachable upstream")
		},
		"CheckReply":    func() { wire.CheckReply(reply) },
		"CheckReply no": func() { wire.CheckReply(reply[:len(reply)-1]) },
		"MatchReply":    func() { wire.MatchReply(query, reply) },
		"RCode":         func() { wire.RCode(reply); wire.HasOPT(reply); wire.Options(reply) },
		"TTLs": func() {
			wire.AgeTTLs(reply, 1)
			wire.AgeAt(reply, offsets, 1)
			wire.ClampTTLs(reply, 60)
			wire.MinTTL(reply)
			wire.NegativeTTL(reply)
			offsets = wire.TTLOffsets(offsets[:0], reply)
		},
		"Truncate": func() { dst = wire.Truncate(dst[:0], reply, 512) },
		"PatchReply": func() {
			q, _, _ := wire.ParseQuery(query)
			wire.PatchReply(reply, q)
			wire.CopyQuestion(reply, query)
			wire.Randomize0x20(q.Name(), rnd)
			dst = wire.Key(dst[:0], q.Question)
		},
		"AppendQuery": func() { dst = wire.AppendQuery(dst[:0], []byte("\x01a\x00"), 1, true, false, nil) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkParseQuery(b *testing.B) {
	msg := question(b, "www.example.com.", dns.TypeA, edns)
	for b.Loop() {
		wire.ParseQuery(msg)
	}
}

func BenchmarkCheckReply(b *testing.B) {
	query := question(b, "www.example.com.", dns.TypeA, edns)
	msg := answers(b, query, true, "www.example.com. 60 CNAME x.cdn.test.", "x.cdn.test. 60 A 192.0.2.1", "x.cdn.test. 60 A 192.0.2.2")
	for b.Loop() {
		wire.CheckReply(msg)
	}
}
