package wire_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"smartdns/resolver/wire"
)

// FuzzEDNS puts octets into the OPT record of a query, as its class, TTL and
// options. What is accepted is a list of options by a reading of our own, each
// of which is found; what is not gets FORMERR or BADVERS; and options can be
// added to whatever was read.
func FuzzEDNS(f *testing.F) {
	f.Add(uint16(1232), uint32(0), []byte{})
	f.Add(uint16(0), uint32(0x8000), []byte{0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add(uint16(65535), uint32(1<<16), []byte{0, 8, 0, 7, 0, 1, 24, 0, 93, 184, 216, 0, 3, 0, 0})
	f.Add(uint16(512), uint32(0xffff), bytes.Repeat([]byte{0, 12, 0, 0}, 65))
	f.Fuzz(func(t *testing.T, size uint16, ttl uint32, options []byte) {
		if len(options) > 4000 {
			return
		}
		msg := question(t, "www.example.", dns.TypeA, nil)
		msg[11] = 1
		msg = append(msg, 0, 0, 41)
		msg = binary.BigEndian.AppendUint16(msg, size)
		msg = binary.BigEndian.AppendUint32(msg, ttl)
		msg = binary.BigEndian.AppendUint16(msg, uint16(len(options)))
		msg = append(msg, options...)
		q, action, rcode := wire.ParseQuery(msg)
		switch {
		case ttl>>16&0xff != 0 && (action != wire.Reply || rcode != wire.BadVers):
			t.Fatalf("version %d: %v %d", ttl>>16&0xff, action, rcode)
		case action == wire.Reply:
			if rcode != wire.FormErr && rcode != wire.BadVers {
				t.Fatalf("rcode %d", rcode)
			}
			checkError(t, "fuzz", q, rcode)
			return
		case !q.EDNS.Present || q.EDNS.DO != (ttl&0x8000 != 0) || q.Limit() < 512 || q.Limit() > wire.MaxUDP || q.Limit() > max(512, int(size)):
			t.Fatalf("size %d, TTL %x: %+v", size, ttl, q.EDNS)
		}
		codes, values, ok := list(options)
		if !ok || len(codes) > 64 {
			t.Fatalf("accepted % x", options)
		}
		for i, code := range codes {
			if got, ok := wire.Option(q.Options(), code); !ok || !bytes.Equal(got, values[slices.Index(codes, code)]) {
				t.Fatalf("option %d, number %d: % x, %t", code, i, got, ok)
			}
		}
		longer := wire.AppendOption(bytes.Clone(msg), 65001, []byte("value"))
		if again, _, ok := wire.Options(longer); !ok || !bytes.HasPrefix(again, options) || len(longer) != len(msg)+9 {
			t.Fatalf("with an option more: % x", longer)
		}
		if padded := wire.Pad(bytes.Clone(msg)); len(padded)%468 != 0 || len(padded) < len(msg)+4 {
			t.Fatalf("padded from %d to %d octets", len(msg), len(padded))
		}
		if without := wire.AppendWithoutOPT(nil, msg); wire.HasOPT(without) || !bytes.Equal(without[12:], msg[12:len(without)]) {
			t.Fatalf("without OPT: % x", without)
		}
	})
}

// list reads options.
func list(b []byte) (codes []uint16, values [][]byte, ok bool) {
	for r := bytes.NewReader(b); r.Len() > 0; {
		var head struct{ Code, Size uint16 }
		if binary.Read(r, binary.BigEndian, &head) != nil || int(head.Size) > r.Len() {
			return nil, nil, false
		}
		value := make([]byte, head.Size)
		r.Read(value)
		codes, values = append(codes, head.Code), append(values, value)
	}
	return codes, values, true
}
