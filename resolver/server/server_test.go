package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"smartdns/lab/netnstest"
	"smartdns/resolver/server"
	"smartdns/resolver/wire"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// handler answers as the function says.
type handler func(ctx context.Context, q wire.Query, from server.Client) []byte

func (h handler) Answer(ctx context.Context, dst []byte, q wire.Query, from server.Client) []byte {
	return append(dst, h(ctx, q, from)...)
}

// echoA answers every query with an A record.
func echoA(_ context.Context, q wire.Query, _ server.Client) []byte {
	var m dns.Msg
	if m.Unpack(q.Msg) != nil {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Extra = true, true, nil
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)}}
	b, _ := m.Pack()
	return b
}

func start(t *testing.T, h handler, l server.Limits, addrs ...string) (*server.Server, []netip.AddrPort) {
	t.Helper()
	netnstest.Require(t)
	s := server.New(h, l, slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	var want []netip.AddrPort
	for _, a := range addrs {
		want = append(want, netip.MustParseAddrPort(a))
	}
	if err := s.Listen(want); err != nil {
		t.Fatal(err)
	}
	return s, want
}

const loopback = "127.0.0.1:5300"

func query(name string) []byte {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	b, _ := m.Pack()
	return b
}

// exchange sends a packet from a fresh socket and returns the reply.
func exchange(t *testing.T, network, from, to string, msg []byte) (*dns.Msg, error) {
	t.Helper()
	d := net.Dialer{Timeout: 5 * time.Second}
	if from != "" {
		addr := netip.AddrPortFrom(netip.MustParseAddr(from), 0)
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(addr)
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(addr)
		}
	}
	c, err := d.Dial(network, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	dc := dns.Conn{Conn: c, UDPSize: 4096}
	if _, err := dc.Write(msg); err != nil {
		t.Fatal(err)
	}
	return dc.ReadMsg()
}

func TestAnswersOverEveryTransportAndFamily(t *testing.T) {
	start(t, echoA, server.DefaultLimits(), loopback, "[::1]:5300")
	for _, network := range []string{"udp", "tcp"} {
		for _, to := range []string{loopback, "[::1]:5300"} {
			m, err := exchange(t, network, "", to, query("www.example.com"))
			if err != nil || len(m.Answer) != 1 {
				t.Errorf("%s %s: %v, %v", network, to, m, err)
			}
		}
	}
}

// (SECURITY R-01)
func TestRefusesWhoIsNotOnTheAccessList(t *testing.T) {
	addAddr(t, "lo", "198.18.0.1/32")
	var asked atomic.Int32
	s, _ := start(t, func(ctx context.Context, q wire.Query, c server.Client) []byte {
		asked.Add(1)
		return echoA(ctx, q, c)
	}, server.DefaultLimits(), "0.0.0.0:5301")
	if m, err := exchange(t, "udp", "198.18.0.1", "198.18.0.1:5301", query("www.example.com")); err != nil || m.Rcode != dns.RcodeRefused {
		t.Errorf("a stranger over UDP: %v, %v; want REFUSED", m, err)
	}
	if !hungUpOn(t, "198.18.0.1", "198.18.0.1:5301") {
		t.Error("a stranger over TCP was not hung up on")
	}
	if asked.Load() != 0 {
		t.Errorf("the handler saw %d queries of a stranger", asked.Load())
	}
	s.Allow([]netip.Prefix{netip.MustParsePrefix("198.18.0.0/24")})
	if m, err := exchange(t, "udp", "198.18.0.1", "198.18.0.1:5301", query("www.example.com")); err != nil || m.Rcode != dns.RcodeSuccess {
		t.Errorf("after Allow: %v, %v", m, err)
	}
	if got := s.Stats().Refused; got != 2 {
		t.Errorf("counted %d refused, want 2", got)
	}
}

// hungUpOn reports whether whoever connects from an address is hung up on
// without a word.
func hungUpOn(t *testing.T, from, to string) bool {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	b, err := io.ReadAll(c)
	return len(b) == 0 && !errors.Is(err, os.ErrDeadlineExceeded)
}

// Strangers who connect and say nothing keep nobody out, and hold nothing.
func TestStrangersTakeNoPlaceOverTCP(t *testing.T) {
	addAddr(t, "lo", "198.18.0.2/32")
	limits := server.DefaultLimits()
	limits.TCPConns, limits.TCPFirst = 1, time.Minute
	s, _ := start(t, echoA, limits, "0.0.0.0:5305")
	for range 5 {
		if !hungUpOn(t, "198.18.0.2", "198.18.0.2:5305") {
			t.Fatal("a stranger was not hung up on")
		}
	}
	if m, err := exchange(t, "tcp", "", "127.0.0.1:5305", query("www.example.com")); err != nil || len(m.Answer) != 1 {
		t.Errorf("a client beside strangers: %v, %v", m, err)
	}
	if got := s.Stats(); got.Refused != 5 || got.TCPRefused != 0 {
		t.Errorf("%+v, want 5 refused", got)
	}
}

// Whom a reload takes from the access list is told so once on a connection
// that it has, and loses it.
func TestConnectionsOfFormerClientsEnd(t *testing.T) {
	addAddr(t, "lo", "198.18.0.3/32")
	s, _ := start(t, echoA, server.DefaultLimits(), "0.0.0.0:5306")
	s.Allow([]netip.Prefix{netip.MustParsePrefix("198.18.0.3/32")})
	c, err := dns.DialTimeout("tcp", "198.18.0.3:5306", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	for _, want := range []int{dns.RcodeSuccess, dns.RcodeRefused} {
		if _, err := c.Write(query("www.example.com")); err != nil {
			t.Fatal(err)
		}
		if m, err := c.ReadMsg(); err != nil || m.Rcode != want {
			t.Fatalf("%v, %v; want %s", m, err, dns.RcodeToString[want])
		}
		s.Allow(nil)
	}
	if b, err := io.ReadAll(c.Conn); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("then %d octets and %v, want the end", len(b), err)
	}
}

// (SECURITY P-20)
func TestSourceIsTheAddressThatWasAsked(t *testing.T) {
	for _, a := range []string{"198.18.1.1/24", "198.18.1.2/24", "198.18.1.3/24", "2001:db8:1::1/64", "2001:db8:1::2/64"} {
		addAddr(t, "lo", a)
	}
	s, _ := start(t, echoA, server.DefaultLimits(), "0.0.0.0:5302", "[::]:5302")
	s.Allow([]netip.Prefix{netip.MustParsePrefix("198.18.1.0/24"), netip.MustParsePrefix("2001:db8:1::/64")})
	for _, to := range []string{"198.18.1.1:5302", "198.18.1.2:5302", "198.18.1.3:5302", "127.0.0.7:5302", "[2001:db8:1::1]:5302", "[2001:db8:1::2]:5302"} {
		// A socket that is not connected sees from where the answer comes.
		c, err := net.ListenUDP("udp", nil)
		if err != nil {
			t.Fatal(err)
		}
		want := netip.MustParseAddrPort(to)
		from, err := answeredFrom(c, want)
		if got := netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); err != nil || got != want {
			t.Errorf("asked %s, answered from %s (%v)", want, got, err)
		}
		c.Close()
	}
}

// answeredFrom asks at to, again each half second as a client does, and returns
// from where the answer came.
func answeredFrom(c *net.UDPConn, to netip.AddrPort) (from netip.AddrPort, err error) {
	var b [4096]byte
	for range 10 {
		if _, err := c.WriteToUDPAddrPort(query("www.example.com"), to); err != nil {
			return from, err
		}
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if _, from, err = c.ReadFromUDPAddrPort(b[:]); err == nil {
			return from, nil
		}
	}
	return from, err
}

func addAddr(t *testing.T, link, prefix string) {
	t.Helper()
	netnstest.Require(t)
	l, err := netlink.LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	a.Flags |= 0x02 // IFA_F_NODAD
	if err := netlink.AddrAdd(l, a); err != nil && !errors.Is(err, syscall.EEXIST) {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.AddrDel(l, a) })
}

func TestTCPAnswersOutOfOrder(t *testing.T) {
	release := make(chan struct{})
	start(t, func(ctx context.Context, q wire.Query, c server.Client) []byte {
		if bytes.Contains(q.Name(), []byte("slow")) {
			<-release
		}
		return echoA(ctx, q, c)
	}, server.DefaultLimits(), loopback)
	c, err := dns.DialTimeout("tcp", loopback, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	for _, n := range []string{"slow.example", "fast.example"} {
		if _, err := c.Write(query(n)); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"fast.example.", "slow.example."} {
		m, err := c.ReadMsg()
		if err != nil || m.Question[0].Name != want {
			t.Fatalf("answer %d is %v (%v), want %s", i, m, err, want)
		}
		if i == 0 {
			close(release)
		}
	}
}

// (SECURITY P-10)
func TestTCPClosesOnSlowAndBrokenClients(t *testing.T) {
	limits := server.DefaultLimits()
	limits.TCPFirst, limits.TCPIdle = 100*time.Millisecond, 100*time.Millisecond
	start(t, echoA, limits, loopback)
	q := query("www.example.com")
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
	for name, send := range map[string][]byte{
		"says nothing":           nil,
		"half a prefix":          {0},
		"half a query":           framed[:len(framed)-3],
		"length zero":            {0, 0},
		"length above the limit": {0xff, 0xff, 1, 2, 3},
		"a response":             append([]byte{0, 12}, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0),
	} {
		c, err := net.Dial("tcp", loopback)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write(send)
		if b, err := io.ReadAll(c); errors.Is(err, context.DeadlineExceeded) || len(b) > 0 {
			t.Errorf("a client that sends %s got %d bytes and %v, want the connection closed", name, len(b), err)
		}
		c.Close()
	}
}

func TestTCPLimitsConnectionsOfOneAddress(t *testing.T) {
	limits := server.DefaultLimits()
	limits.TCPPerClient = 3
	s, _ := start(t, echoA, limits, loopback)
	for range 3 {
		c, err := net.Dial("tcp", loopback)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		dc := dns.Conn{Conn: c}
		dc.SetDeadline(time.Now().Add(5 * time.Second))
		dc.Write(query("www.example.com"))
		if _, err := dc.ReadMsg(); err != nil {
			t.Fatal(err)
		}
	}
	c, err := net.Dial("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(c); len(b) > 0 || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a fourth connection got %d bytes and %v, want it closed", len(b), err)
	}
	if got := s.Stats().TCPRefused; got != 1 {
		t.Errorf("counted %d connections over the limit, want 1", got)
	}
	if m, err := exchange(t, "tcp", "127.0.0.9", loopback, query("www.example.com")); err != nil || len(m.Answer) != 1 {
		t.Errorf("another address: %v, %v", m, err)
	}
}

// (SECURITY C-05)
func TestPanicCostsOneAnswer(t *testing.T) {
	s, _ := start(t, func(ctx context.Context, q wire.Query, c server.Client) []byte {
		if bytes.Contains(q.Name(), []byte("boom")) {
			panic("boom")
		}
		return echoA(ctx, q, c)
	}, server.DefaultLimits(), loopback)
	for name, want := range map[string]int{"boom.example": dns.RcodeServerFailure, "fine.example": dns.RcodeSuccess} {
		if m, err := exchange(t, "udp", "", loopback, query(name)); err != nil || m.Rcode != want {
			t.Errorf("%s: %v, %v; want %s", name, m, err, dns.RcodeToString[want])
		}
	}
	if s.Stats().Panics != 1 {
		t.Errorf("counted %d panics, want 1", s.Stats().Panics)
	}
}

func TestUDPAnswerIsCutToWhatTheClientTakes(t *testing.T) {
	start(t, func(_ context.Context, q wire.Query, c server.Client) []byte {
		var m dns.Msg
		m.Unpack(q.Msg)
		m.Response = true
		for range 100 {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)})
		}
		b, _ := m.Pack()
		return b
	}, server.DefaultLimits(), loopback)
	m, err := exchange(t, "udp", "", loopback, query("big.example"))
	if err != nil || !m.Truncated || len(m.Answer) != 0 {
		t.Errorf("over UDP: %v, %v; want TC and no answer", m, err)
	}
	if m, err = exchange(t, "tcp", "", loopback, query("big.example")); err != nil || m.Truncated || len(m.Answer) != 100 {
		t.Errorf("over TCP: %v, %v; want all 100", m, err)
	}
}

// (SECURITY F-35)
func TestListenFollowsTheWantedAddresses(t *testing.T) {
	s, addrs := start(t, echoA, server.DefaultLimits(), loopback, "127.0.0.2:5300")
	if err := s.Listen(addrs[1:]); err != nil {
		t.Fatal(err)
	}
	if got := s.Addrs(); len(got) != 1 || got[0] != addrs[1] {
		t.Errorf("listening on %v, want %v", got, addrs[1:])
	}
	if c, err := net.Dial("tcp", loopback); err == nil {
		c.Close()
		t.Error("the address that is gone still takes connections")
	}
	if m, err := exchange(t, "udp", "", "127.0.0.2:5300", query("www.example.com")); err != nil || len(m.Answer) != 1 {
		t.Errorf("the address that stayed: %v, %v", m, err)
	}
}

// (SECURITY F-35)
func TestBusyAddressNamesItsHolder(t *testing.T) {
	netnstest.Require(t)
	for _, network := range []string{"udp", "tcp"} {
		if network == "udp" {
			c, err := net.ListenPacket("udp", "127.0.0.1:5303")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		} else {
			c, err := net.Listen("tcp", "127.0.0.1:5304")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		addr := map[string]string{"udp": "127.0.0.1:5303", "tcp": "127.0.0.1:5304"}[network]
		s := server.New(handler(echoA), server.DefaultLimits(), slog.New(slog.DiscardHandler))
		err := s.Listen([]netip.AddrPort{netip.MustParseAddrPort(addr)})
		s.Close()
		le, ok := errors.AsType[*server.ListenError](err)
		if !ok || !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("%s: %v", network, err)
		}
		if !strings.HasSuffix(le.Holder, fmt.Sprintf(" (pid %d)", os.Getpid())) {
			t.Errorf("%s: the holder is %q, want this test", network, le.Holder)
		}
	}
}

func TestOverloadDropsInsteadOfQueueing(t *testing.T) {
	limits := server.DefaultLimits()
	limits.InFlight = 1
	entered, release := make(chan struct{}, 10), make(chan struct{})
	s, _ := start(t, func(ctx context.Context, q wire.Query, c server.Client) []byte {
		entered <- struct{}{}
		<-release
		return echoA(ctx, q, c)
	}, limits, loopback)
	c, err := net.Dial("udp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write(query("a.example"))
	<-entered
	c.Write(query("b.example"))
	c.Write([]byte{0, 9, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // a response: dropped, and read after b
	for s.Stats().Dropped+s.Stats().Rejected < 2 {
		if _, err := exchange(t, "udp", "", loopback, []byte{0, 1, 0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	var b [512]byte
	n, err := c.Read(b[:])
	if err != nil || !bytes.Contains(b[:n], []byte("\x01a\x07example")) {
		t.Errorf("got %x, %v; want the answer of the one that was in flight", b[:n], err)
	}
	if len(entered) != 0 {
		t.Error("a query over the limit reached the handler")
	}
}
