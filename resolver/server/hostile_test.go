package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"smartdns/resolver/server"
	"smartdns/resolver/wire"
)

// impatient limits make hostile clients cheap to test.
func impatient() server.Limits {
	l := server.DefaultLimits()
	l.TCPFirst, l.TCPIdle = 300*time.Millisecond, 300*time.Millisecond
	return l
}

// trickle sends b octet by octet, each well before any deadline of one read,
// until the other end hangs up or all of it is sent; it reports which.
func trickle(c net.Conn, b []byte) (hungUp bool) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := range b {
		c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(b[i : i+1]); err != nil {
			return true
		}
		<-tick.C
	}
	return closedWithin(c, 20*time.Millisecond)
}

func framed(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
}

// (SECURITY R-07)
func TestTrickleDoesNotKeepAConnection(t *testing.T) {
	s, config := startSecure(t, echoA, impatient())
	start(t, echoA, impatient(), loopback)
	h1 := config.Clone()
	h1.NextProtos = []string{"http/1.1"}
	h2 := config.Clone()
	h2.NextProtos = []string{"h2"}
	raw := func(to string) net.Conn {
		c, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	request := fmt.Sprintf("POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Type: application/dns-message\r\nContent-Length: %d\r\n\r\n", 1000)
	slow := dialTLS(t, dohAddr, h1)
	if _, err := slow.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	used := dialTLS(t, dotAddr, config)
	used.Write(framed(query("www.example.com")))
	if _, err := (&dns.Conn{Conn: used}).ReadMsg(); err != nil {
		t.Fatal(err)
	}
	type attack struct {
		name string
		conn net.Conn
		send []byte
	}
	hello := append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 500)...)
	attacks := []attack{
		{"a query over TCP", raw(loopback), framed(make([]byte, 1000))},
		{"a query over TLS", dialTLS(t, dotAddr, config), framed(make([]byte, 1000))},
		{"a second query over TLS", used, framed(make([]byte, 1000))},
		{"a handshake with DoT", raw(dotAddr), hello},
		{"a handshake with DoH", raw(dohAddr), hello},
		{"the header of a request", dialTLS(t, dohAddr, h1), []byte("GET /dns-query?dns=" + string(bytes.Repeat([]byte("A"), 1000)))},
		{"the body of a request", slow, make([]byte, 1000)},
		{"an HTTP/2 header that never ends", h2Conn(t, h2), bytes.Repeat(continuation(1), 40)},
	}
	done := make(chan string, len(attacks))
	for _, a := range attacks {
		go func() {
			defer a.conn.Close()
			if !trickle(a.conn, a.send[:min(len(a.send), 100)]) {
				done <- a.name + " kept the connection"
				return
			}
			done <- ""
		}()
	}
	for range attacks {
		if text := <-done; text != "" {
			t.Error(text)
		}
	}
	if got := s.Stats(); got.Panics != 0 {
		t.Errorf("%+v", got)
	}
}

// h2Conn is an HTTP/2 connection behind its preface and settings, with a
// request whose header goes on.
func h2Conn(t *testing.T, config *tls.Config) net.Conn {
	c := dialTLS(t, dohAddr, config)
	c.Write([]byte(http2.ClientPreface))
	f := http2.NewFramer(c, c)
	f.WriteSettings()
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header("x", "y")})
	return c
}

func header(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

// continuation is a CONTINUATION frame with one small field.
func continuation(stream uint32) []byte {
	var b bytes.Buffer
	http2.NewFramer(&b, nil).WriteContinuation(stream, false, header("a", "b"))
	return b.Bytes()
}

func TestIdleAndHalfOpenConnectionsAreClosed(t *testing.T) {
	_, config := startSecure(t, echoA, impatient())
	h2 := config.Clone()
	h2.NextProtos = []string{"h2"}
	for _, to := range []string{dotAddr, dohAddr} {
		c, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if !closedWithin(c, 20*time.Second) {
			t.Errorf("a connection to %s that never says hello stays", to)
		}
		if !closedWithin(dialTLS(t, to, config), 20*time.Second) {
			t.Errorf("a connection to %s that never asks stays", to)
		}
	}
	c := dialTLS(t, dohAddr, h2)
	c.Write([]byte(http2.ClientPreface))
	http2.NewFramer(c, c).WriteSettings()
	if !closedWithin(c, 20*time.Second) {
		t.Error("an HTTP/2 connection that never asks stays")
	}
}

func TestConnectionsOfOneClientAreLimitedOverAllTransports(t *testing.T) {
	limits := server.DefaultLimits()
	limits.TCPPerClient = 4
	s, config := startSecure(t, echoA, limits)
	for i := range 4 {
		dialTLS(t, []string{dotAddr, dohAddr}[i%2], config)
	}
	for _, to := range []string{dotAddr, dohAddr} {
		if c, err := tls.Dial("tcp", to, config); err == nil {
			c.Close()
			t.Errorf("a fifth connection, to %s, was let in", to)
		}
	}
	if got := s.Stats().TCPRefused; got != 2 {
		t.Errorf("counted %d connections over the limit, want 2", got)
	}
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	c, err := tls.DialWithDialer(d, "tcp", dotAddr, config)
	if err != nil {
		t.Fatalf("another client: %v", err)
	}
	c.Close()
}

// A flood of connections leaves nothing behind, and honest clients are served
// throughout (SECURITY R-08).
func TestTenThousandConnectionsOfOneClient(t *testing.T) {
	s, config := startSecure(t, echoA, server.DefaultLimits())
	before := runtime.NumGoroutine()
	var mine []net.Conn
	honest := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: 5 * time.Second}
	for i := range 10_000 {
		c, err := net.Dial("tcp", []string{dotAddr, dohAddr}[i%2])
		if err != nil {
			t.Fatal(err)
		}
		if mine = append(mine, c); len(mine) > 200 {
			// A hang-up with a reset: the ports are needed again.
			mine[0].(*net.TCPConn).SetLinger(0)
			mine[0].Close()
			mine = mine[1:]
		}
		if i%1000 != 0 {
			continue
		}
		c, err = tls.DialWithDialer(honest, "tcp", dotAddr, config)
		if err != nil {
			t.Fatalf("an honest client after %d connections: %v", i, err)
		}
		dc := dns.Conn{Conn: c}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		dc.Write(query("www.example.com"))
		if m, err := dc.ReadMsg(); err != nil || len(m.Answer) != 1 {
			t.Errorf("an honest client after %d connections: %v, %v", i, m, err)
		}
		c.Close()
		if n := runtime.NumGoroutine() - before; n > 100 {
			t.Errorf("%d goroutines more after %d connections", n, i)
		}
	}
	for _, c := range mine {
		c.Close()
	}
	if got := s.Stats().TCPRefused; got < 5000 {
		t.Errorf("%d of 10,000 connections were over the limit", got)
	}
}

// 1,000 queries on one connection, each with an answer of its own size that
// comes when it likes: every answer arrives whole.
func TestPipelinedAnswersNeverInterleave(t *testing.T) {
	const n = 1000
	var inFlight, most atomic.Int32
	slow := func(_ context.Context, q wire.Query, _ server.Client) []byte {
		now := inFlight.Add(1)
		defer inFlight.Add(-1)
		for {
			m := most.Load()
			if now <= m || most.CompareAndSwap(m, now) {
				break
			}
		}
		id := int(q.ID())
		<-time.After(time.Duration((id*7)%5) * time.Millisecond)
		var m dns.Msg
		m.Unpack(q.Msg)
		m.Response = true
		for range 1 + id%40 {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: uint32(id)}, A: net.IPv4(192, 0, 2, 1)})
		}
		b, _ := m.Pack()
		return b
	}
	limits := server.DefaultLimits()
	_, config := startSecure(t, slow, limits)
	c := dns.Conn{Conn: dialTLS(t, dotAddr, config)}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	go func() {
		for id := range n {
			m := new(dns.Msg)
			m.SetQuestion(fmt.Sprintf("n%d.example.", id), dns.TypeA)
			m.Id = uint16(id)
			if c.WriteMsg(m) != nil {
				return
			}
		}
	}()
	seen, outOfOrder, last := map[uint16]bool{}, 0, -1
	for range n {
		m, err := c.ReadMsg()
		if err != nil {
			t.Fatalf("after %d answers: %v", len(seen), err)
		}
		if seen[m.Id] || len(m.Answer) != 1+int(m.Id)%40 || m.Question[0].Name != fmt.Sprintf("n%d.example.", m.Id) || m.Answer[0].Header().Ttl != uint32(m.Id) {
			t.Fatalf("answer %d is not what was asked: %v", m.Id, m.Question)
		}
		seen[m.Id] = true
		if int(m.Id) < last {
			outOfOrder++
		}
		last = int(m.Id)
	}
	if outOfOrder == 0 {
		t.Error("all answers came in order: nothing was answered while another waited")
	}
	if got := most.Load(); got > int32(limits.TCPConcurrent) {
		t.Errorf("%d queries of one connection in flight, more than %d", got, limits.TCPConcurrent)
	}
}

// A client that never reads costs what is in flight, and loses its connection.
// (SECURITY R-09)
func TestClientThatNeverReadsIsClosed(t *testing.T) {
	limits := server.DefaultLimits()
	limits.TCPWrite = 300 * time.Millisecond
	big := func(_ context.Context, q wire.Query, _ server.Client) []byte {
		return append(bytes.Clone(q.Msg), make([]byte, 60_000)...)
	}
	s, config := startSecure(t, big, limits)
	c := dialTLS(t, dotAddr, config)
	c.NetConn().(*net.TCPConn).SetReadBuffer(4096)
	c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for i := 0; ; i++ {
		if _, err := c.Write(framed(query("www.example.com"))); err != nil {
			break
		}
		if i > 1_000_000 {
			t.Fatal("it may go on for ever")
		}
	}
	if got := s.Stats().TLS; got > 500 {
		t.Errorf("%d queries were answered into the void", got)
	}
}

func TestQueriesInFlightOfOneClientAreLimited(t *testing.T) {
	limits := server.DefaultLimits()
	limits.PerClient = 3
	entered, release := make(chan struct{}, 100), make(chan struct{})
	_, config := startSecure(t, func(ctx context.Context, q wire.Query, c server.Client) []byte {
		entered <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return echoA(ctx, q, c)
	}, limits)
	web := webClient(t, config, true)
	answered := make(chan int, 3)
	for range 3 {
		go func() {
			r, err := web.Get(encoded(query("www.example.com")))
			if err != nil {
				answered <- 0
				return
			}
			r.Body.Close()
			answered <- r.StatusCode
		}()
	}
	for range 3 {
		<-entered
	}
	if r, _ := get(t, web, encoded(query("www.example.com"))); r.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a fourth query over HTTPS: %s", r.Status)
	}
	c := dialTLS(t, dotAddr, config)
	c.Write(framed(query("www.example.com")))
	if !closedWithin(c, 20*time.Second) {
		t.Error("a fourth query over TLS waits")
	}
	close(release)
	for range 3 {
		if got := <-answered; got != 200 {
			t.Errorf("one of the three got status %d", got)
		}
	}
}

func TestConnectionsEndAfterTheirQueries(t *testing.T) {
	limits := server.DefaultLimits()
	limits.TCPPerLifetime = 5
	_, config := startSecure(t, echoA, limits)
	c := dns.Conn{Conn: dialTLS(t, dotAddr, config)}
	for range 6 {
		c.Write(query("www.example.com"))
	}
	for i := range 6 {
		if _, err := c.ReadMsg(); (err == nil) != (i < 5) {
			t.Errorf("TLS, answer %d: %v", i, err)
		}
	}
	for _, two := range []bool{false, true} {
		web := webClient(t, config, two)
		dials := 0
		dialer := &net.Dialer{}
		web.Transport.(*http.Transport).DialContext = func(ctx context.Context, n, a string) (net.Conn, error) {
			dials++
			return dialer.DialContext(ctx, n, a)
		}
		for range 10 {
			get(t, web, encoded(query("www.example.com")))
		}
		if dials < 2 || dials > 3 {
			t.Errorf("HTTP/2 %v: %d connections for 10 queries, want 2", two, dials)
		}
	}
}

// A flood of frames costs its sender the connection, and nobody
// else anything.
// (SECURITY R-21)
func TestHTTP2Floods(t *testing.T) {
	var served, most atomic.Int32
	release := make(chan struct{})
	s, config := startSecure(t, func(ctx context.Context, q wire.Query, c server.Client) []byte {
		if bytes.Contains(q.Name(), []byte("slow")) {
			if n := served.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer served.Add(-1)
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return echoA(ctx, q, c)
	}, server.DefaultLimits())
	defer close(release)
	h2 := config.Clone()
	h2.NextProtos = []string{"h2"}
	path := "/dns-query?dns=" + encoded(query("slow.example"))[len(dohURL)+5:]
	for name, flood := range map[string]func(*http2.Framer, uint32) error{
		"rapid reset": func(f *http2.Framer, i uint32) error {
			id := 2*i + 1
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true,
				BlockFragment: header(":method", "GET", ":scheme", "https", ":authority", "x", ":path", path)})
			if err == nil {
				err = f.WriteRSTStream(id, http2.ErrCodeCancel)
			}
			return err
		},
		"settings": func(f *http2.Framer, _ uint32) error { return f.WriteSettings() },
		"pings":    func(f *http2.Framer, _ uint32) error { return f.WritePing(false, [8]byte{}) },
		"continuation": func(f *http2.Framer, i uint32) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header(":method", "GET")})
			}
			return f.WriteContinuation(1, false, header("a", "0123456789"))
		},
	} {
		c := dialTLS(t, dohAddr, h2)
		c.SetDeadline(time.Now().Add(20 * time.Second))
		c.Write([]byte(http2.ClientPreface))
		f := http2.NewFramer(c, c)
		f.WriteSettings()
		// What is answered at once is only bounded by what is not read. The
		// other floods end when the connection is closed, which is a second
		// after the server has said so.
		answered := name == "settings" || name == "pings"
		var err error
		for i := uint32(0); err == nil && (i < 100_000 || !answered); i++ {
			err = flood(f, i)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: frames go through for 20 s", name)
		}
		c.Close()
		if r, _ := get(t, webClient(t, config, true), encoded(query("www.example.com"))); r.StatusCode != 200 {
			t.Errorf("after %s: %s", name, r.Status)
		}
	}
	if got := most.Load(); got > 64 {
		t.Errorf("%d queries of reset streams were in flight at once", got)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapInuse > 64<<20 {
		t.Errorf("%d MiB of heap in use", m.HeapInuse>>20)
	}
	if s.Stats().Panics != 0 {
		t.Error("a panic")
	}
}
