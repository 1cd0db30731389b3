package conformance_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// framed is the query with ID id about name, as TCP carries it.
func framed(name string, id uint16) []byte {
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	q.Id = id
	b, err := q.Pack()
	if err != nil {
		panic(err)
	}
	return append(be.AppendUint16(nil, uint16(len(b))), b...)
}

// Queries over TCP may come an octet a segment or many in one; what is no query
// is told so or costs the connection, and nobody gets what another asked
// (SECURITY P-10).
func TestFramingOverTCP(t *testing.T) {
	serve(t, honest)
	run(t, forward)
	one, two := framed("one.example.net.", 1), framed("two.example.net.", 2)
	octets := make([][]byte, len(one))
	for i := range one {
		octets[i] = one[i : i+1]
	}
	changed := func(b []byte, prefix int) []byte { return append([]byte{byte(prefix >> 8), byte(prefix)}, b[2:]...) }
	for name, c := range map[string]struct {
		segments [][]byte
		answers  []uint16 // IDs, in any order
		formerr  bool     // the first of them
		stays    bool     // until the client goes
	}{
		"an octet a segment":     {octets, []uint16{1}, false, true},
		"two in one segment":     {[][]byte{append(one[:len(one):len(one)], two...)}, []uint16{1, 2}, false, true},
		"cut between":            {[][]byte{append(one[:len(one):len(one)], two[:9]...), two[9:]}, []uint16{1, 2}, false, true},
		"a prefix too short":     {[][]byte{changed(one, len(one)-4)}, []uint16{1}, true, true},
		"a prefix too long":      {[][]byte{changed(one, len(one)+40)}, nil, false, false},
		"a prefix of zero":       {[][]byte{{0, 0}, one}, nil, false, false},
		"octets behind":          {[][]byte{changed(append(one[:len(one):len(one)], "more"...), len(one)+2)}, []uint16{1}, true, true},
		"half a query, then end": {[][]byte{one[:9]}, nil, false, false},
	} {
		conn := overTCP(t, "127.0.0.1")
		conn.SetDeadline(time.Now().Add(3 * 10 * time.Second))
		for _, s := range c.segments {
			if _, err := conn.Conn.Write(s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		left := map[uint16]bool{}
		for _, id := range c.answers {
			left[id] = true
		}
		for i := range c.answers {
			b, err := readFramed(conn.Conn)
			var m dns.Msg
			if err != nil || m.Unpack(b) != nil || !left[m.Id] {
				t.Errorf("%s: answer % x, %v", name, b, err)
				break
			}
			delete(left, m.Id)
			if want := c.formerr && i == 0; (m.Rcode == dns.RcodeFormatError) != want {
				t.Errorf("%s: %s", name, dns.RcodeToString[m.Rcode])
			}
			if m.Rcode == dns.RcodeSuccess && m.Question[0].Name != map[uint16]string{1: "one.example.net.", 2: "two.example.net."}[m.Id] {
				t.Errorf("%s: ID %d gets %s", name, m.Id, m.Question[0].Name)
			}
		}
		if c.stays {
			conn.Conn.(*net.TCPConn).CloseWrite()
		}
		if rest, err := io.ReadAll(conn.Conn); err != nil && strings.Contains(err.Error(), "timeout") || len(rest) > 0 {
			t.Errorf("%s: then % x, %v; want the connection closed", name, rest, err)
		}
		conn.Close()
	}
}

// A server says that its answer is too long for UDP, and over TCP it answers,
// hangs up, or is silent: the other server of the side answers then
// (SECURITY P-09, with three times its limits; the best of three, as the first
// may find the server unknown).
func TestTruncatedAndTCPFails(t *testing.T) {
	hangs := make(chan struct{})
	overTCPOnly(t, authority, func(c net.Conn, q []byte) {
		switch name := strings.ToLower(string(q)); {
		case strings.Contains(name, "answers"):
			b := answer(q, truth)
			c.Write(append(be.AppendUint16(nil, uint16(len(b))), b...))
		case strings.Contains(name, "hangs"):
			<-hangs
		default:
			c.(*net.TCPConn).SetLinger(0)
		}
	})
	const second = "127.0.0.1:5302"
	pc, err := net.ListenPacket("udp4", second)
	if err != nil {
		t.Fatal(err)
	}
	other := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		b, _ := q.Pack()
		w.Write(answer(b, "93.184.216.99"))
	})}
	ended := make(chan struct{})
	go func() { other.ActivateAndServe(); close(ended) }()
	t.Cleanup(func() { pc.Close(); <-ended })
	t.Cleanup(func() { close(hangs) })
	run(t, strings.ReplaceAll(forward, `["`+authority+`"]`, `["`+authority+`", "`+second+`"]`)+"\n")
	for _, c := range []struct {
		does  string
		limit time.Duration
	}{{"answers", 3 * time.Second}, {"resets", 3 * 100 * time.Millisecond}, {"hangs", 3 * 3 * time.Second}} {
		best := time.Hour
		for i := range 3 {
			begun := time.Now()
			if got := lookup(t, fmt.Sprintf("n%d.%s.example.net.", i, c.does)); got != truth && got != "93.184.216.99" {
				t.Errorf("TCP %s: %s", c.does, got)
			}
			best = min(best, time.Since(begun))
		}
		if best > c.limit {
			t.Errorf("TCP %s: an answer after %s", c.does, best)
		}
	}
}

// overTCPOnly says TC to everything over UDP at addr, and has handle treat what
// comes over TCP, a query a connection.
func overTCPOnly(t *testing.T, addr string, handle func(c net.Conn, q []byte)) {
	t.Helper()
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			udp.WriteToUDPAddrPort(edit(b[:n], func(m *dns.Msg) { m.Truncated = true }), from)
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if q, err := readFramed(c); err == nil {
					handle(c, q)
				}
			}()
		}
	}()
}
