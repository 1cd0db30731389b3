package server_test

import (
	"flag"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver/server"
)

var full = flag.Bool("full", false, "show the rows of lab/conformance/README.md as large as they are written")

// 500 connections of one address, an octet every 1.9 s on each, half of them
// after a query, are all closed in the end, and meanwhile an honest client is
// answered over TCP, on the connection that it has and on new ones; all times are
// a tenth of the row's and of our own, or as they are (SECURITY R-07).
func TestSlowlorisHoldsUpNobody(t *testing.T) {
	tenth := time.Duration(10)
	if *full {
		tenth = 1
	}
	l := server.DefaultLimits()
	l.TCPFirst, l.TCPIdle = l.TCPFirst/tenth, l.TCPIdle/tenth
	s, _ := start(t, echoA, l, loopback)
	var slow sync.WaitGroup
	var held, stuck atomic.Int32
	var over atomic.Bool
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}, Timeout: 10 * time.Second}
	for i := range 500 {
		c, err := d.Dial("tcp", loopback)
		if err != nil {
			t.Fatal(err)
		}
		slow.Go(func() {
			defer c.Close()
			if i%2 == 1 {
				c.SetDeadline(time.Now().Add(10 * time.Second))
				c.Write(framed(query("www.example.com")))
				if _, err := (&dns.Conn{Conn: c}).ReadMsg(); err == nil {
					held.Add(1)
				}
			}
			if !hungUpWhileTrickling(c, 1900*time.Millisecond/tenth) {
				stuck.Add(1)
			}
		})
	}
	ended := make(chan struct{})
	go func() { slow.Wait(); over.Store(true); close(ended) }()
	pace := time.NewTicker(20 * time.Millisecond) // a connection is closed after a thousand queries
	defer pace.Stop()
	kept, fresh := honestClient{keeps: true}, honestClient{}
	defer func() {
		if kept.c != nil {
			kept.c.Close()
		}
	}()
	for !over.Load() {
		<-pace.C
		kept.ask(t)
		fresh.ask(t)
	}
	<-ended
	if stuck.Load() > 0 || held.Load() == 0 {
		t.Errorf("%d of 500 connections stay open; %d were let in and asked", stuck.Load(), held.Load())
	}
	t.Logf("%d honest queries, the slowest in %s, %d asked again; %d connections refused",
		kept.asked+fresh.asked, max(kept.worst, fresh.worst), kept.again+fresh.again, s.Stats().TCPRefused)
}

// hungUpWhileTrickling sends a long message, an octet every so often, until the
// other end hangs up. It reports false when that does not come.
func hungUpWhileTrickling(c net.Conn, every time.Duration) bool {
	c.SetDeadline(time.Now().Add(30 * time.Second))
	gone := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, c); gone <- err }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for _, b := range framed(make([]byte, 150)) {
		if _, err := c.Write([]byte{b}); err != nil {
			c.Close()
			<-gone
			return true
		}
		select {
		case err := <-gone:
			e, ok := err.(net.Error)
			return !ok || !e.Timeout()
		case <-tick.C:
		}
	}
	c.Close()
	<-gone
	return false
}

// honestClient asks over TCP, on the connection that it has or on new ones.
type honestClient struct {
	keeps        bool
	c            net.Conn
	asked, again int
	worst        time.Duration
}

// ask asks until it has an answer, ten times at most: on a busy machine the time
// of a connection may be over when its client comes to ask.
func (h *honestClient) ask(t *testing.T) {
	t.Helper()
	h.asked++
	begun := time.Now()
	var err error
	for try := range 10 {
		if try > 0 {
			h.again++
		}
		if h.c == nil {
			if h.c, err = net.DialTimeout("tcp", loopback, 10*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		h.c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = h.c.Write(framed(query("www.example.com")))
		_, err = (&dns.Conn{Conn: h.c}).ReadMsg()
		if err != nil || !h.keeps {
			h.c.Close()
			h.c = nil
		}
		if err == nil {
			h.worst = max(h.worst, time.Since(begun))
			return
		}
	}
	t.Fatalf("an honest client, after %d answers: %v", h.asked-1, err)
}
