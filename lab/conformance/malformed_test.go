package conformance_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// packet is a query made of its parts: the four counts, and the octets after
// the header.
func packet(counts [4]uint16, body ...string) []byte {
	b := []byte{0x12, 0x34, 0x01, 0x00, 0, 0, 0, 0, 0, 0, 0, 0}
	for i, n := range counts {
		be.PutUint16(b[4+2*i:], n)
	}
	return append(b, strings.Join(body, "")...)
}

const (
	asked   = "\x03www\x07example\x03org\x00"
	typeA   = "\x00\x01\x00\x01"
	opt     = "\x00\x00\x29\x04\xd0\x00\x00\x00\x00" // without the length of its data
	recordA = "\xc0\x0c\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\x5d\xb8\xd8\x22"
)

// malformed are queries that are none, of the classes that crash or confuse
// servers (SECURITY P-03): each wants FORMERR, or BADVERS where version says so.
func malformed() map[string][]byte {
	one, additional := [4]uint16{1, 0, 0, 0}, [4]uint16{1, 0, 0, 1}
	all := map[string][]byte{
		"no question":                        packet([4]uint16{}),
		"no question, but its octets":        packet([4]uint16{}, asked, typeA),
		"a question that is not there":       packet(one),
		"two questions":                      packet([4]uint16{2, 0, 0, 0}, asked, typeA, asked, typeA),
		"two questions of which one is":      packet([4]uint16{2, 0, 0, 0}, asked, typeA),
		"65,535 questions":                   packet([4]uint16{0xffff, 0, 0, 0}, asked, typeA),
		"a question without class":           packet(one, asked, "\x00\x01"),
		"a question without type":            packet(one, asked),
		"a question cut in its type":         packet(one, asked, "\x00"),
		"a name without end":                 packet(one, "\x03www\x07example"),
		"a name cut in a label":              packet(one, "\x03www\x07exam"),
		"a label length alone":               packet(one, "\x3f"),
		"a label of 64":                      packet(one, "\x40", strings.Repeat("a", 64), "\x00", typeA),
		"a label type of 10":                 packet(one, "\x80", strings.Repeat("a", 64), "\x00", typeA),
		"an extended label type":             packet(one, "\x41\x01", asked, typeA),
		"a pointer to itself":                packet(one, "\xc0\x0c", typeA),
		"a pointer to the header":            packet(one, "\xc0\x00", typeA),
		"a pointer beyond the end":           packet(one, "\xff\xff", typeA),
		"a pointer forward":                  packet(one, "\xc0\x0e\x03www\x00", typeA),
		"a pointer cut in the middle":        packet(one, "\x03www\xc0"),
		"pointers in a loop":                 packet(one, "\x03www\xc0\x10\xc0\x0c", typeA),
		"a name of 256 octets":               packet(one, strings.Repeat("\x3f"+strings.Repeat("a", 63), 3)+"\x3e"+strings.Repeat("a", 62)+"\x00", typeA),
		"a name of 128 labels":               packet(one, strings.Repeat("\x01a", 128)+"\x00", typeA),
		"trailing octets":                    packet(one, asked, typeA, "more"),
		"one trailing octet":                 packet(one, asked, typeA, "\x00"),
		"an answer that is not there":        packet([4]uint16{1, 1, 0, 0}, asked, typeA),
		"an answer in a query":               packet([4]uint16{1, 1, 0, 0}, asked, typeA, recordA),
		"65,535 answers":                     packet([4]uint16{1, 0xffff, 0, 0}, asked, typeA, recordA),
		"an authority that is not there":     packet([4]uint16{1, 0, 1, 0}, asked, typeA),
		"65,535 authorities":                 packet([4]uint16{1, 0, 0xffff, 0}, asked, typeA, recordA),
		"an additional that is not there":    packet(additional, asked, typeA),
		"65,535 additionals":                 packet([4]uint16{1, 0, 0, 0xffff}, asked, typeA, opt, "\x00\x00"),
		"an OPT among the answers":           packet([4]uint16{1, 1, 0, 0}, asked, typeA, opt, "\x00\x00"),
		"an OPT among the authorities":       packet([4]uint16{1, 0, 1, 0}, asked, typeA, opt, "\x00\x00"),
		"two OPT":                            packet([4]uint16{1, 0, 0, 2}, asked, typeA, opt, "\x00\x00", opt, "\x00\x00"),
		"an OPT with a name":                 packet(additional, asked, typeA, "\x03www", opt, "\x00\x00"),
		"an OPT with a pointer as its name":  packet(additional, asked, typeA, "\xc0\x0c\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"),
		"an OPT without length":              packet(additional, asked, typeA, opt),
		"an OPT cut in its class":            packet(additional, asked, typeA, opt[:4]),
		"an OPT cut in its TTL":              packet(additional, asked, typeA, opt[:7]),
		"an OPT longer than the packet":      packet(additional, asked, typeA, opt, "\x00\x08"),
		"an OPT of 65,535 octets":            packet(additional, asked, typeA, opt, "\xff\xff"),
		"octets after the OPT":               packet(additional, asked, typeA, opt, "\x00\x00", "more"),
		"an option longer than the OPT":      packet(additional, asked, typeA, opt, "\x00\x04\x00\x0a\x00\x08"),
		"an option cut in its head":          packet(additional, asked, typeA, opt, "\x00\x03\x00\x0a\x00"),
		"an option of one octet":             packet(additional, asked, typeA, opt, "\x00\x01\x00"),
		"a second option beyond the OPT":     packet(additional, asked, typeA, opt, "\x00\x08\x00\x0a\x00\x00\x00\x0a\x00\x01"),
		"a client subnet without octets":     packet(additional, asked, typeA, opt, "\x00\x04\x00\x08\x00\x00"),
		"a client subnet of family 9":        packet(additional, asked, typeA, opt, "\x00\x08\x00\x08\x00\x04\x00\x09\x00\x00"),
		"a client subnet of /33":             packet(additional, asked, typeA, opt, "\x00\x0d\x00\x08\x00\x09\x00\x01\x21\x00\x01\x02\x03\x04\x80"),
		"a client subnet with bits behind":   packet(additional, asked, typeA, opt, "\x00\x0b\x00\x08\x00\x07\x00\x01\x08\x00\x01\x02\x03"),
		"a client subnet with a scope":       packet(additional, asked, typeA, opt, "\x00\x09\x00\x08\x00\x05\x00\x01\x08\x08\x01"),
		"a cookie of 7 octets":               packet(additional, asked, typeA, opt, "\x00\x0b\x00\x0a\x00\x07abcdefg"),
		"a cookie of 9 octets":               packet(additional, asked, typeA, opt, "\x00\x0d\x00\x0a\x00\x09abcdefghi"),
		"a cookie of 41 octets":              packet(additional, asked, typeA, opt, "\x00\x2d\x00\x0a\x00\x29", strings.Repeat("a", 41)),
		"version 1, and its data is missing": packet(additional, asked, typeA, "\x00\x00\x29\x04\xd0\x00\x01\x00\x00\x00\x08"),
		"a record of the root that is none":  packet(additional, asked, typeA, "\x00"),
	}
	return all
}

// TestMalformedQueriesGoNowhere sends queries that are none over UDP and TCP.
func TestMalformedQueriesGoNowhere(t *testing.T) {
	var asked atomic.Int32
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		w.WriteMsg(new(dns.Msg).SetReply(q))
	})
	run(t, forward)
	all := malformed()
	passed := 0
	for name, b := range all {
		ok := true
		for _, network := range []string{"udp", "tcp"} {
			if err := refused(network, b); err != nil {
				t.Errorf("%s over %s: %v", name, network, err)
				ok = false
			}
		}
		if ok {
			passed++
		}
	}
	t.Logf("%d of %d", passed, len(all))
	if n := asked.Load(); n != 0 {
		t.Errorf("%d queries went out", n)
	}
	if got := lookup(t, "alive.example.org."); got != "NOERROR" {
		t.Errorf("a good query afterwards: %s", got)
	}
}

// refused returns nil if b is answered with FORMERR, a bare header or with the
// question.
func refused(network string, b []byte) error {
	c, err := net.Dial(network, ours)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	reply := make([]byte, 4096)
	if network == "udp" {
		c.Write(b)
		var n int
		n, err = c.Read(reply)
		reply = reply[:n]
	} else {
		c.Write(append(be.AppendUint16(nil, uint16(len(b))), b...))
		reply, err = readFramed(c)
	}
	var m dns.Msg
	switch {
	case err == io.EOF:
		return fmt.Errorf("closed without an answer")
	case err != nil:
		return err
	case m.Unpack(reply) != nil:
		return fmt.Errorf("the answer %x is no message", reply)
	case !m.Response || m.Id != 0x1234 || m.Rcode != dns.RcodeFormatError && m.Rcode != dns.RcodeBadVers:
		return fmt.Errorf("QR=%t ID %x %s, want FORMERR", m.Response, m.Id, dns.RcodeToString[m.Rcode])
	case len(reply) > max(len(b), 12) && !bytes.Contains(reply, []byte("\x00\x00\x29")):
		return fmt.Errorf("%d octets for %d", len(reply), len(b))
	}
	return nil
}
