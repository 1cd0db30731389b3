package wire_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"smartdns/resolver/wire"
)

func seeds(f *testing.F) [][]byte {
	query := question(f, "wWw.example.", dns.TypeA, edns)
	reply := answers(f, query, true, everyType...)
	seeds := [][]byte{
		nil, query[:12], query, reply,
		question(f, "a.", dns.TypeAXFR, nil),
		question(f, "a.", dns.TypeA, func(m *dns.Msg) { m.SetTsig("k.", dns.HmacSHA256, 300, 1) }),
		answers(f, query, false, everyType...),
		answers(f, query, true, "www.example. 60 CNAME b.", "b. 1 A 192.0.2.1", "-. 60 SOA a. b. 1 2 3 4 5", "+b. 9 AAAA ::1"),
	}
	for _, s := range everyType {
		seeds = append(seeds, answers(f, query, true, s))
	}
	return seeds
}

// FuzzParseQuery checks that what is accepted is a query for miekg/dns too,
// read the same way, and that what is answered gets a well-formed reply.
func FuzzParseQuery(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := bytes.Clone(msg)
		q, action, rcode := wire.ParseQuery(msg)
		if !bytes.Equal(before, msg) {
			t.Fatal("the message was changed")
		}
		switch action {
		case wire.Reply:
			checkError(t, "fuzz", q, rcode)
		case wire.Accept:
			checkAccepted(t, q)
		}
	})
}

func checkAccepted(t *testing.T, q wire.Query) {
	b := wire.AppendError(nil, q, wire.ServFail, 22, "x")
	if wire.MatchReply(q.Msg, b) != wire.Matches || wire.CheckReply(b) != nil || len(b) > q.Limit() {
		t.Fatalf("error reply % x to % x", b, q.Msg)
	}
	var m dns.Msg
	if err := m.Unpack(q.Msg); err != nil {
		if q.EDNS.Present {
			return // miekg/dns also reads the options, which do not concern us
		}
		t.Fatalf("accepted % x: %v", q.Msg, err)
	}
	asked := m.Question
	if len(asked) != 1 || asked[0].Qtype != q.Type || asked[0].Qclass != q.Class || q.Class != dns.ClassINET ||
		m.Opcode != 0 || m.Response || m.RecursionDesired != q.RD() || m.CheckingDisabled != q.CD() || m.AuthenticatedData != q.AD() {
		t.Fatalf("% x: read %+v, miekg/dns %+v", q.Msg, q, m)
	}
	opt := m.IsEdns0()
	if (opt != nil) != q.EDNS.Present {
		t.Fatalf("OPT: %v, miekg/dns %v", q.EDNS, opt)
	}
	if opt != nil && (opt.Do() != q.EDNS.DO || max(opt.UDPSize(), 512) != q.EDNS.Size || opt.Version() != 0) {
		t.Fatalf("OPT: %v, miekg/dns %v %v", q.EDNS, opt.Do(), opt.UDPSize())
	}
}

// FuzzCheckReply checks that what is accepted can be unpacked, into as many
// records as its header says, and survives everything that is done to it.
func FuzzCheckReply(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := bytes.Clone(msg)
		err := wire.CheckReply(msg)
		if !bytes.Equal(before, msg) {
			t.Fatal("the message was changed")
		}
		mutate(bytes.Clone(msg))
		if err != nil {
			return
		}
		for _, size := range []int{512, 600, 1232, 65535} {
			if out := wire.Truncate(nil, msg, size); len(out) > size || wire.CheckReply(out) != nil {
				t.Fatalf("cut to %d: % x", size, out)
			}
		}
		stripped := wire.StripOPT(bytes.Clone(msg))
		if wire.HasOPT(stripped) || wire.CheckReply(stripped) != nil {
			t.Fatalf("without OPT: % x", stripped)
		}
		if err := wire.CheckReply(wire.AppendOPT(stripped, true, 3, "x")); err != nil && len(stripped) < 65000 && total(stripped) < wire.MaxRecords {
			t.Fatalf("with a new OPT: %v", err)
		}
		if opaqueTypesOnly(msg) {
			checkUnpacks(t, msg)
		}
	})
}

func total(msg []byte) int {
	n := 0
	for at := 6; at < 12; at += 2 {
		n += int(msg[at])<<8 | int(msg[at+1])
	}
	return n
}

// checkUnpacks compares with miekg/dns.
func checkUnpacks(t *testing.T, msg []byte) {
	var m dns.Msg
	if err := m.Unpack(msg); err != nil {
		t.Fatalf("accepted % x: %v", msg, err)
	}
	if len(m.Answer)+len(m.Ns)+len(m.Extra) != total(msg) || (m.IsEdns0() != nil) != wire.HasOPT(msg) || m.Rcode != int(wire.RCode(msg)) {
		t.Fatalf("% x: miekg/dns reads %d, %d, %d records", msg, len(m.Answer), len(m.Ns), len(m.Extra))
	}
	least, found := uint32(0), false
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		if h := rr.Header(); h.Rrtype != dns.TypeOPT && (!found || h.Ttl < least) {
			least, found = h.Ttl, true
		}
	}
	if ttl, ok := wire.MinTTL(msg); ok != found || ttl != least {
		t.Fatalf("MinTTL %d, %v, miekg/dns %d, %v", ttl, ok, least, found)
	}
}

// mutate does everything that changes a message in place; nothing may panic.
func mutate(msg []byte) {
	wire.ClampTTLs(msg, 86400)
	wire.AgeTTLs(msg, 60)
	wire.AgeAt(msg, wire.TTLOffsets(nil, msg), 60)
	wire.NegativeTTL(msg)
	wire.SetID(msg, 1)
	wire.PatchReply(msg, wire.Query{Msg: bytes.Clone(msg), Question: wire.Question(msg)})
	wire.CopyQuestion(msg, bytes.Clone(msg))
	wire.AppendOPT(bytes.Clone(msg), true, 1, "x")
	wire.AppendWithoutOPT(nil, msg)
	wire.Truncate(nil, msg, 64)
	if options, _, ok := wire.Options(msg); ok {
		wire.Option(options, wire.OptionECS)
	}
}

// opaqueTypesOnly reports whether msg has only records whose data both sides
// read by the same rules; the data of the others are nobody's business but the
// client's, and OPT options are read by miekg/dns more strictly than we need.
func opaqueTypesOnly(msg []byte) bool {
	same := []uint16{1, 2, 5, 6, 12, 14, 15, 16, 17, 18, 21, 28, 33, 35, 36, 39, 65400}
	ok := true
	forEachType(msg, func(typ uint16, size int) {
		if !slices.Contains(same, typ) && !(typ == dns.TypeOPT && size == 0) {
			ok = false
		}
	})
	return ok
}

// forEachType walks a message that CheckReply has accepted, with code of its
// own.
func forEachType(msg []byte, visit func(typ uint16, size int)) {
	skip := func(off int) int {
		for {
			switch n := int(msg[off]); {
			case n == 0:
				return off + 1
			case n >= 0xc0:
				return off + 2
			default:
				off += 1 + n
			}
		}
	}
	off := 12
	if msg[5] == 1 {
		off = skip(off) + 4
	}
	for range total(msg) {
		off = skip(off)
		size := int(msg[off+8])<<8 | int(msg[off+9])
		visit(uint16(msg[off])<<8|uint16(msg[off+1]), size)
		off += 10 + size
	}
}

// FuzzMatchReply checks that a match means what it says, whatever the two
// messages are.
func FuzzMatchReply(f *testing.F) {
	query := question(f, "wWw.example.", dns.TypeA, edns)
	for _, s := range seeds(f) {
		f.Add(query, s)
	}
	f.Fuzz(func(t *testing.T, query, reply []byte) {
		match := wire.MatchReply(query, reply)
		bare := wire.BareError(query, reply)
		if bare && match != wire.NoMatch {
			t.Fatal("a bare error matches")
		}
		if match != wire.Matches && match != wire.CaseDiffers {
			return
		}
		asked, got := wire.Question(query), wire.Question(reply)
		if wire.ID(query) != wire.ID(reply) || reply[2]&0xf8 != 0x80 || len(asked) != len(got) ||
			!bytes.Equal(wire.Key(nil, asked), wire.Key(nil, got)) || bytes.Equal(asked, got) != (match == wire.Matches) {
			t.Fatalf("%d: query % x, reply % x", match, query, reply)
		}
	})
}
