package conformance_test

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// bomb is a reply over TCP that costs much when it is unpacked, packed, printed
// or validated. Its owner is the asked name, which stands at octet 12.
type bomb struct {
	name string
	typ  uint16
	body func(q []byte) []byte
}

const (
	small = 15 << 10 // a little less than we take of a reply
	large = 63 << 10 // and of one with keys, signatures or text
)

// repeated is a reply of as many records as fit in size.
func repeated(q []byte, size int, record []byte) []byte {
	b := answer(q, truth)
	end := bytes.IndexByte(b[12:], 0) + 12 + 5
	n := min((size-end)/len(record), 65535)
	b = append(b[:end:end], bytes.Repeat(record, n)...)
	be.PutUint16(b[6:], uint16(n))
	be.PutUint16(b[10:], 0)
	return b
}

// record has the asked name as its owner.
func record(typ uint16, data []byte) []byte {
	b := []byte{0xc0, 12, byte(typ >> 8), byte(typ), 0, 1, 0, 0, 1, 44, byte(len(data) >> 8), byte(len(data))}
	return append(b, data...)
}

func bombs() []bomb {
	long := append(bytes.Repeat([]byte{1, 'a'}, 100), 0xc0, 12) // a name of a hundred labels and more
	hip := append([]byte{0, 2, 0, 0}, bytes.Repeat([]byte{0xc0, 12}, 2000)...)
	sig := append(append([]byte{0, 1, 13, 3, 0, 0, 1, 44, 0x70, 0, 0, 0, 0x60, 0, 0, 0, 0x30, 0x39}, 0xc0, 12), make([]byte, 64)...)
	options := func(q []byte, n int) []byte {
		b := answer(q, truth)
		b = b[:len(b)-11] // its OPT
		b = append(b, 0, 0, 41, 4, 0xd0, 0, 0, 0, 0, byte(4*n>>8), byte(4*n))
		return append(b, bytes.Repeat([]byte{0, 12, 0, 0}, n)...)
	}
	all := []bomb{
		{"16,000 options", dns.TypeTXT, func(q []byte) []byte { return options(q, 15_500) }},
		{"HIP with 2,000 names", 55, func(q []byte) []byte { return repeated(q, small, record(55, hip)) }},
		{"MINFO of pointers", 14, func(q []byte) []byte { return repeated(q, small, record(14, []byte{0xc0, 12, 0xc0, 12})) }},
		{"addresses by the thousand", dns.TypeA, func(q []byte) []byte { return repeated(q, small, record(dns.TypeA, []byte{93, 184, 216, 34})) }},
		{"3,000 addresses", dns.TypeA, func(q []byte) []byte { return repeated(q, 48<<10, record(dns.TypeA, []byte{93, 184, 216, 34})) }},
		{"long CNAMEs", dns.TypeA, func(q []byte) []byte { return repeated(q, small, record(dns.TypeCNAME, long)) }},
		{"long names", dns.TypeNS, func(q []byte) []byte { return repeated(q, small, record(dns.TypeNS, long)) }},
		{"TXT of empty strings", dns.TypeTXT, func(q []byte) []byte { return repeated(q, large, record(dns.TypeTXT, make([]byte, 60_000))) }},
		{"600 keys and 600 signatures", dns.TypeDNSKEY, func(q []byte) []byte {
			key := record(dns.TypeDNSKEY, append([]byte{1, 0, 3, 13}, make([]byte, 16)...))
			return repeated(q, large, append(key, record(dns.TypeRRSIG, sig)...))
		}},
		{"questions by the thousand", dns.TypeA, func(q []byte) []byte {
			b := answer(q, truth)
			end := bytes.IndexByte(b[12:], 0) + 12 + 5
			n := (small - end) / 6
			b = append(b[:end:end], bytes.Repeat([]byte{0xc0, 12, 0, 1, 0, 1}, n)...)
			be.PutUint16(b[4:], uint16(n+1))
			be.PutUint32(b[6:], 0)
			be.PutUint16(b[10:], 0)
			return b
		}},
	}
	return all
}

// Replies of all kinds that grow when they are read, or take long to pack,
// print, or validate, at the most verbose: each costs milliseconds of CPU, and
// two hundred of them at once no more memory than they may (SECURITY,
// nobody is given 3,000 addresses). The time is that of
// both ends, and the mean of many.
func TestHostileRepliesCostLittle(t *testing.T) {
	all := bombs()
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		b, _ := q.Pack()
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			w.Write(edit(b, func(m *dns.Msg) { m.Truncated = true }))
			return
		}
		var i int
		if n, _ := fmt.Sscanf(strings.ToLower(q.Question[0].Name), "b%d-", &i); n == 1 {
			w.Write(all[i].body(b))
			return
		}
		w.Write(answer(b, truth))
	})
	run(t, forward)
	ask := func(c *dns.Conn, i, n int) error {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("b%d-%d.zone%d.example.", i, n, n), all[i].typ)
		q.SetEdns0(1232, true)
		if err := c.WriteMsg(q); err != nil {
			return err
		}
		b := make([]byte, 65535)
		m, err := c.Conn.Read(b)
		if err == nil && m > 1232 {
			err = fmt.Errorf("%d octets over UDP", m)
		}
		return err
	}
	const times = 10
	var clients []*dns.Conn
	for n := range times {
		clients = append(clients, overUDP(t, fmt.Sprintf("127.0.9.%d", 1+n)))
	}
	for i, bomb := range all {
		before := cpu(t)
		var asking sync.WaitGroup // what fails over TCP is held for a moment
		for n, c := range clients {
			asking.Go(func() {
				if err := ask(c, i, n); err != nil {
					t.Errorf("%s: %v", bomb.name, err)
				}
			})
		}
		asking.Wait()
		if each := (cpu(t) - before) / times; each > 3*20*time.Millisecond {
			t.Errorf("%s: %s of CPU each", bomb.name, each)
		} else {
			t.Logf("%s: %s", bomb.name, each)
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var asking sync.WaitGroup
	for n := range 200 {
		c := overUDP(t, fmt.Sprintf("127.0.8.%d", 1+n))
		asking.Go(func() {
			if err := ask(c, n%len(all), 100+n); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	if got := lookup(t, "alive.example.net."); got != truth {
		t.Errorf("a good query afterwards: %s", got)
	}
}

// Queries of the same kind are told that they are malformed before anything in
// them is unpacked (SECURITY ).
func TestHostileQueriesCostLittle(t *testing.T) {
	serve(t, honest)
	run(t, forward)
	options := func(n int, option ...byte) []byte {
		return packet([4]uint16{1, 0, 0, 1}, asked, typeA, opt, string([]byte{byte(n * len(option) >> 8), byte(n * len(option))}), string(bytes.Repeat(option, n)))
	}
	for name, b := range map[string][]byte{
		"900 options":    options(900, 0, 12, 0, 0),
		"600 questions":  packet([4]uint16{600, 0, 0, 0}, asked, typeA, strings.Repeat("\xc0\x0c"+typeA, 599)),
		"200 records":    packet([4]uint16{1, 0, 0, 200}, asked, typeA, strings.Repeat(recordA, 200)),
		"65,535 records": packet([4]uint16{1, 0xffff, 0xffff, 0xffff}, asked, typeA, strings.Repeat(recordA, 200)),
	} {
		const times = 50
		before := cpu(t)
		for range times {
			if err := refused("tcp", b); err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
		}
		if each := (cpu(t) - before) / times; each > 3*5*time.Millisecond {
			t.Errorf("%s: %s of CPU each", name, each)
		}
	}
	for name, b := range map[string][]byte{
		"3 NSID":    options(3, 0, 3, 0, 0),
		"3 padding": options(3, 0, 12, 0, 2, 0, 0),
		"3 cookies": options(3, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8),
	} {
		c := overUDP(t, "127.0.0.1")
		c.Conn.Write(b)
		if m, err := c.ReadMsg(); err != nil || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeFormatError {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}
