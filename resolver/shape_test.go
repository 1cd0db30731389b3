package resolver_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/upstream"
)

// What comes from the upstream in a service record goes to the client octet by
// octet, from the cache too: keys out of order, unknown ones, empty values.
func TestServiceRecordsPassOctetByOctet(t *testing.T) {
	param := func(key uint16, value string) string {
		head := binary.BigEndian.AppendUint16(nil, key)
		return string(binary.BigEndian.AppendUint16(head, uint16(len(value)))) + value
	}
	data := "\x00\x01\x03svc\x07example\x00" + param(65400, "x") + param(1, "\x02h2") + param(5, "\x00\x41\xff") +
		param(4, "\x5d\xb8\xd8\x22") + param(2, "") + param(9999, strings.Repeat("\x00", 40))
	server := serverOf("foreign", func(_ context.Context, q upstream.Query) (upstream.Reply, error) {
		msg := bytes.Clone(q.Msg[:len(q.Msg)-11]) // without its OPT
		msg[2] |= 0x80
		msg[7], msg[11] = 1, 0
		msg = append(msg, 0xc0, 12, 0, 65, 0, 1, 0, 0, 1, 44)
		msg = binary.BigEndian.AppendUint16(msg, uint16(len(data)))
		return upstream.Reply{Msg: append(msg, data...)}, nil
	})
	r, _ := withPolicy(autoPolicy(resolver.ForeignOnly, nil, server))
	for range 2 {
		q := resolver.Ask("www.example.", dns.TypeHTTPS, netip.MustParseAddr("192.168.8.20"))
		if reply := r.Resolve(t.Context(), q).Reply(nil, q); !bytes.Contains(reply, []byte(data)) {
			t.Fatalf("the record changed:\n%q\nof\n%q", reply, data)
		}
	}
}
