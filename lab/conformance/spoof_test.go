package conformance_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// asks notes what reaches the server under our names.
type asks struct {
	mu  sync.Mutex
	all []asked1
}

type asked1 struct {
	id   uint16
	port uint16
	tcp  bool
	name string
	msg  *dns.Msg
}

func (a *asks) note(w dns.ResponseWriter, q *dns.Msg) {
	at := netip.MustParseAddrPort(w.RemoteAddr().String())
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, asked1{q.Id, at.Port(), tcp, strings.ToLower(q.Question[0].Name), q})
}

func (a *asks) of(suffix string) (all []asked1) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.all {
		if strings.HasSuffix(one.name, suffix) {
			all = append(all, one)
		}
	}
	return all
}

// honest tells the truth about every name.
func honest(w dns.ResponseWriter, q *dns.Msg) {
	b, _ := q.Pack()
	w.Write(answer(b, truth))
}

// A client that always chooses ID 0 has no say in the IDs and ports that we
// ask with: of 1,000 queries about 992 IDs are different, and a port comes again
// within 200 queries 7 times by chance (SECURITY S-02, S-21; the full
// statistics of S-01 are package upstream's).
func TestClientsDoNotChooseOurIDs(t *testing.T) {
	var seen asks
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) { seen.note(w, q); honest(w, q) })
	run(t, forward)
	const n = 1000
	c := overTCP(t, "127.0.0.1")
	for i := range n {
		if i > 0 && i%900 == 0 { // a connection may ask 1,000 times
			c = overTCP(t, "127.0.0.1")
		}
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.ids.example.net.", i), dns.TypeA)
		q.Id = 0
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
		if m, err := c.ReadMsg(); err != nil || m.Id != 0 || len(m.Answer) != 1 {
			t.Fatalf("query %d: %v, %v", i, m, err)
		}
	}
	ids, again, last := map[uint16]bool{}, 0, map[uint16]int{}
	for i, one := range seen.of(".ids.example.net.") {
		ids[one.id] = true
		if before, used := last[one.port]; used && i-before <= 200 {
			again++
		}
		last[one.port] = i
	}
	if len(ids) < 975 || again > 3*8 {
		t.Errorf("%d different IDs, %d ports used again within 200 queries", len(ids), again)
	}
}

func overTCP(t *testing.T, from string) *dns.Conn {
	t.Helper()
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return &dns.Conn{Conn: c}
}

// A thousand clients ask for the same name while the server is silent, each in
// its own way: what is on its way to the server is one question for each of DO
// and CD, and all of them are answered (SECURITY S-06).
func TestEqualQuestionsAreOneOnTheirWay(t *testing.T) {
	var seen asks
	release := make(chan struct{})
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		seen.note(w, q)
		if strings.HasPrefix(strings.ToLower(q.Question[0].Name), "same.") {
			<-release
		}
		honest(w, q)
	})
	run(t, forward)
	const clients, each = 20, 50
	var conns []*dns.Conn
	for i := range clients {
		c := overUDP(t, fmt.Sprintf("127.0.1.%d", i+1))
		if i%5 == 4 {
			c = overTCP(t, fmt.Sprintf("127.0.1.%d", i+1))
		}
		conns = append(conns, c)
		for k := range each {
			if i%5 == 4 && k >= 9 {
				break // one of ten at once is kept for the question below
			}
			q := new(dns.Msg).SetQuestion("same.example.net.", dns.TypeA)
			if k%2 == 0 {
				q.Question[0].Name = "sAmE.eXample.net."
			}
			q.Id = uint16(i*each + k)
			q.SetEdns0(1232, k%4 < 2)
			q.CheckingDisabled = k%8 < 4
			if k%3 == 0 {
				o := q.IsEdns0()
				o.Option = append(o.Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(93, byte(i), byte(k), 0)})
			}
			if err := c.WriteMsg(q); err != nil {
				t.Fatal(err)
			}
		}
		// What a socket sent before this is read before it.
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("behind%d.example.net.", i), dns.TypeA)
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
		if m, err := c.ReadMsg(); err != nil || m.Id != q.Id {
			t.Fatalf("client %d: %v, %v", i, m, err)
		}
	}
	ids := map[uint16]bool{}
	for _, one := range seen.of("same.example.net.") {
		if !one.tcp && one.name == "same.example.net." { // else our own test whether that server forwards to us
			ids[one.id] = true
		}
	}
	close(release)
	if len(ids) == 0 || len(ids) > 4 {
		t.Errorf("%d questions were on their way at once, want one for each of DO and CD", len(ids))
	}
	for i, c := range conns {
		want := each
		if i%5 == 4 {
			want = 9
		}
		for k := range want {
			m, err := c.ReadMsg()
			if err != nil || len(m.Answer) != 1 {
				t.Fatalf("client %d, answer %d: %v, %v", i, k, m, err)
			}
		}
	}
}

func overUDP(t *testing.T, from string) *dns.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("udp", ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return &dns.Conn{Conn: c, UDPSize: 4096}
}

// Options that a client makes up (a loop marker of some tool, padding, a cookie
// of another server) reach no server, and refuse nobody an answer
// (SECURITY S-22).
func TestOptionsOfClientsGoNowhere(t *testing.T) {
	var seen asks
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) { seen.note(w, q); honest(w, q) })
	run(t, forward)
	c := overUDP(t, "127.0.0.1")
	for i, code := range []uint16{65001, 65023, 65534, 12, 10, 11, 3, 100, 20292} {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("o%d.options.example.net.", code), dns.TypeA)
		q.SetEdns0(1232, false)
		data := []byte("12345678")
		if code == 11 {
			data = nil
		}
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: code, Data: data}}
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
		if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 {
			t.Errorf("option %d: %v, %v", code, m, err)
		}
		sent := seen.of(".options.example.net.")
		if len(sent) != i+1 {
			t.Fatalf("%d queries went out for %d", len(sent), i+1)
		}
		if o := sent[i].msg.IsEdns0(); o == nil || len(o.Option) != 0 {
			t.Errorf("option %d went out: %v", code, o)
		}
	}
}

// raw sends packets of protocol with headers of our making. What it returns is
// safe for concurrent use.
func raw(t *testing.T, protocol int) func(b []byte) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	return func(b []byte) {
		if err := syscall.Sendto(fd, b, 0, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Error(err)
		}
	}
}

// ipHeader is an IPv4 header on loopback, in the kernel's form for a raw socket.
func ipHeader(length int, id, fragment uint16, protocol byte) []byte {
	b := make([]byte, 20)
	b[0], b[8], b[9] = 0x45, 64, protocol
	be.PutUint16(b[2:], uint16(length))
	be.PutUint16(b[4:], id)
	be.PutUint16(b[6:], fragment)
	copy(b[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
	return b
}

// udpHeader is from authority to port, without a checksum.
func udpHeader(port uint16, length int) []byte {
	b := make([]byte, 8)
	be.PutUint16(b, netip.MustParseAddrPort(authority).Port())
	be.PutUint16(b[2:], port)
	be.PutUint16(b[4:], uint16(8+length))
	return b
}

// Forged ICMP errors fail nothing: neither those for another port of ours, nor
// those that guess the right one (SECURITY S-19).
func TestForgedICMPErrors(t *testing.T) {
	send := raw(t, syscall.IPPROTO_ICMP)
	forge := func(kind, code byte, mtu, port uint16) {
		// What we would have sent: from port to authority.
		inner := append(ipHeader(60, 1, 0, syscall.IPPROTO_UDP), udpHeader(0, 32)...)
		copy(inner[20:], []byte{byte(port >> 8), byte(port)})
		be.PutUint16(inner[22:], netip.MustParseAddrPort(authority).Port())
		b := append([]byte{kind, code, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, inner...)
		be.PutUint16(b[2:], checksum(b))
		send(b)
	}
	var mu sync.Mutex
	ids := map[string]map[uint16]bool{}
	serveForger(t, func(f *forger, q []byte, to netip.AddrPort) {
		var m dns.Msg
		if m.Unpack(q) != nil {
			return
		}
		name := strings.ToLower(m.Question[0].Name)
		mu.Lock()
		if ids[name] == nil {
			ids[name] = map[uint16]bool{}
		}
		ids[name][m.Id] = true
		mu.Unlock()
		port := to.Port()
		if strings.HasPrefix(name, "wrong") {
			port ^= 1
		}
		for _, code := range []byte{0, 1, 2, 3, 10, 13} {
			forge(3, code, 0, port)
		}
		forge(3, 4, 68, port)
	})
	run(t, forward)
	for i := range 20 {
		for _, guess := range []string{"wrong", "right"} {
			name := fmt.Sprintf("%s%d.icmp.example.net.", guess, i)
			if got := lookup(t, name); got != truth {
				t.Errorf("%s: %s", name, got)
			}
			mu.Lock()
			if n := len(ids[name]); n != 1 {
				t.Errorf("%s went out under %d IDs", name, n)
			}
			mu.Unlock()
		}
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// A reply that came in fragments is never taken: whoever is off the path can
// replace its second one, as that has neither port nor ID. The answer comes
// over TCP (SECURITY S-11).
func TestFragmentedRepliesAreAskedOverTCP(t *testing.T) {
	send := raw(t, syscall.IPPROTO_RAW)
	var mu sync.Mutex
	overTCP := map[string]int{}
	serveFragments(t, func(q []byte, port uint16) {
		// 900 octets in two fragments, of which the second is the forger's; and
		// one of more than we said we take.
		m := edit(q, func(m *dns.Msg) {
			m.Compress = true
			for range 50 {
				m.Answer = append(m.Answer, rr(m.Question[0].Name+" 300 IN A "+forged))
			}
		})
		if strings.Contains(strings.ToLower(string(q)), "large") {
			m = append(m, make([]byte, 2000)...)
		}
		datagram := append(udpHeader(port, len(m)), m...)
		const cut = 480
		send(append(ipHeader(20+cut, 7, 0x2000, syscall.IPPROTO_UDP), datagram[:cut]...))
		send(append(ipHeader(20+len(datagram)-cut, 7, cut/8, syscall.IPPROTO_UDP), datagram[cut:]...))
	}, func(name string) { mu.Lock(); overTCP[name]++; mu.Unlock() })
	run(t, forward)
	for _, name := range []string{"small.fragments.example.net.", "large.fragments.example.net."} {
		if got := lookup(t, name); got != truth {
			t.Errorf("%s: %s, want the answer that TCP brings", name, got)
		}
		mu.Lock()
		if overTCP[name] == 0 {
			t.Errorf("%s was not asked over TCP", name)
		}
		mu.Unlock()
	}
}

// serveFragments has each query over UDP answered by reply, and tells the truth
// over TCP.
func serveFragments(t *testing.T, reply func(q []byte, port uint16), overTCP func(name string)) {
	t.Helper()
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		b, _ := q.Pack()
		if from, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			reply(b, uint16(from.Port))
			return
		}
		overTCP(strings.ToLower(q.Question[0].Name))
		w.Write(answer(b, truth))
	})
}
