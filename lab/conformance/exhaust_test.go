package conformance_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// hot asks for names that are cached, as stubs do: again after a second without
// an answer, five times at most. A socket whose buffer is full loses packets
// that nobody has seen.
type hot struct {
	c     *dns.Conn
	asked int
}

const hotNames = 100

func newHot(t *testing.T) *hot {
	t.Helper()
	h := &hot{c: overUDP(t, "127.0.0.77")}
	h.ask(t, hotNames) // now they are cached
	return h
}

func (h *hot) ask(t *testing.T, n int) {
	t.Helper()
	for range n {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("hot%d.example.com.", h.asked%hotNames), dns.TypeA)
		h.asked++
		m, err := h.try(q)
		for tries := 1; tries < 5 && errors.Is(err, os.ErrDeadlineExceeded); tries++ {
			m, err = h.try(q)
		}
		if err != nil {
			t.Fatalf("a cached name is not answered: %v", err)
		}
		if len(m.Answer) != 1 {
			t.Fatalf("a cached name: %v", m)
		}
	}
}

func (h *hot) try(q *dns.Msg) (*dns.Msg, error) {
	h.c.SetDeadline(time.Now().Add(time.Second))
	if err := h.c.WriteMsg(q); err != nil {
		return nil, err
	}
	for {
		m, err := h.c.ReadMsg()
		if err != nil || m.Id == q.Id {
			return m, err
		}
	}
}

// An allowed client gets little for its query over UDP, whatever it asks:
// someone may have written another's address on it (SECURITY R-02).
func TestAnswersAmplifyLittle(t *testing.T) {
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		b, _ := q.Pack()
		m := edit(b, func(m *dns.Msg) {
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				m.Truncated = true
				return
			}
			for i := range 16 {
				m.Answer = append(m.Answer, rr(fmt.Sprintf(`%s 300 IN TXT "%d%s"`, m.Question[0].Name, i, strings.Repeat("x", 250))))
			}
			if m.Question[0].Qtype == dns.TypeDNSKEY {
				m.Answer = nil
				for i := range 16 {
					m.Answer = append(m.Answer, rr(m.Question[0].Name+" 300 IN DNSKEY 256 3 13 "+key('A'+byte(i))))
				}
			}
		})
		w.Write(m)
	})
	run(t, forward)
	c := overUDP(t, "127.0.0.1")
	for _, typ := range []uint16{dns.TypeANY, dns.TypeTXT, dns.TypeDNSKEY} {
		q := new(dns.Msg).SetQuestion("big.example.net.", typ)
		q.SetEdns0(65535, true)
		b, _ := q.Pack()
		reply := make([]byte, 65535)
		c.Conn.Write(b)
		n, err := c.Conn.Read(reply)
		var m dns.Msg
		if err != nil || m.Unpack(reply[:n]) != nil || n > 1232 || n > 20*len(b) {
			t.Errorf("%s: %d octets for %d, %v", dns.TypeToString[typ], n, len(b), err)
		}
		if typ != dns.TypeANY {
			if !m.Truncated {
				t.Errorf("%s: 4 KiB without TC", dns.TypeToString[typ])
			}
			continue
		}
		if _, is := m.Answer[0].(*dns.HINFO); !is || len(m.Answer) != 1 {
			t.Errorf("ANY: %v, want one HINFO (RFC 8482)", m.Answer)
		}
	}
}

// One address has at most 20 connections and all together 256, of however many
// addresses they come; who asks over UDP does not notice (SECURITY R-08 from
// 100 addresses; 10,000 connections of one are package server's).
func TestConnectionsOfManyClientsAreLimited(t *testing.T) {
	serve(t, honest)
	run(t, forward)
	h := newHot(t)
	answered, most := 0, 0
	q := new(dns.Msg).SetQuestion("hot1.example.com.", dns.TypeA)
	for i := range 500 {
		c := overTCP(t, fmt.Sprintf("127.0.4.%d", 1+i%100))
		c.WriteMsg(q)
		if _, err := c.ReadMsg(); err == nil {
			answered++
		}
		// Those that are not let in are closed by now. When places are scarce,
		// who has had an answer loses its own soon: on a busy machine more than
		// 256 get one.
		if i >= 180 && i%5 == 0 {
			most = max(most, established(t, ours))
		}
		h.ask(t, 1)
	}
	t.Logf("%d of 500 connections were answered, %d at a time", answered, most)
	if most > 256 || most < 150 {
		t.Errorf("%d connections at a time, want 256", most)
	}
}

// established counts the connections of this namespace whose near end is addr.
func established(t *testing.T, addr string) (n int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddrPort(addr)
	b := a.Addr().As4()
	local := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(b[:]), a.Port()) // the kernel's octets as a number of this machine
	for line := range strings.Lines(string(table)) {
		if w := strings.Fields(line); len(w) > 3 && w[1] == local && w[3] == "01" {
			n++
		}
	}
	return n
}

// Garbage behind length prefixes costs the connection, and nobody else
// anything (SECURITY R-10).
func TestGarbageOverTCP(t *testing.T) {
	serve(t, honest)
	run(t, forward)
	h := newHot(t)
	garbage := bytes.Repeat([]byte{0, 40, 0x55, 0xaa}, 1<<14)
	for i := range 40 {
		c := overTCP(t, fmt.Sprintf("127.0.5.%d", 1+i%20))
		go c.Conn.Write(garbage)
		if _, err := io.Copy(io.Discard, c.Conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection stays open")
		}
		h.ask(t, 5)
	}
}

// While every server is silent, 20,000 queries for new names of a hundred
// clients hold no more than may be in flight, names in the cache are answered,
// and so are new ones when the servers are back (SECURITY R-11, for as long as
// 20,000 queries take, or a minute; R-14: who asked too much is told so at once).
func TestEveryServerIsSilent(t *testing.T) {
	silence := sized(0, time.Minute)
	var silent atomic.Bool
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if !silent.Load() {
			honest(w, q)
		}
	})
	run(t, forward)
	h := newHot(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	silent.Store(true)
	var refused atomic.Int32
	var clients []*dns.Conn
	var reading sync.WaitGroup
	for i := range 100 {
		c := overUDP(t, fmt.Sprintf("127.0.6.%d", 1+i))
		c.SetDeadline(time.Now().Add(silence + 10*time.Minute)) // a busy machine takes its time
		clients = append(clients, c)
		reading.Go(func() {
			b := make([]byte, 4096)
			for {
				if _, err := c.Conn.Read(b); err != nil {
					return
				}
				refused.Add(1)
			}
		})
	}
	most := 0
	var took []time.Duration // for a name of the cache
	flooding := time.Now()
	for i := 0; i < 20_000 || time.Since(flooding) < silence; i++ {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("n.new%d.test.", i), dns.TypeA)
		if err := clients[i%100].WriteMsg(q); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			begun := time.Now()
			h.ask(t, 1)
			took = append(took, time.Since(begun))
			most = max(most, runtime.NumGoroutine()-goroutines)
		}
	}
	slices.Sort(took)
	t.Logf("cached names while %d queries went out in %s: p50 %s, p99 %s, at most %s", 100*len(took), time.Since(flooding).Round(time.Millisecond),
		took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	// Each of the 4,096 in flight has a handful of goroutines.
	if limit := 5 * 4096; most > limit {
		t.Errorf("%d goroutines, want at most %d", most, limit)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 200<<20 {
		t.Errorf("%d MiB more in use", grown>>20)
	}
	silent.Store(false)
	begun := time.Now()
	// A client asks again when nobody answers it.
	c := overUDP(t, "127.0.0.1")
	tried := 0
	eventually(t, "answered again", func() bool {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("n.back%d.test.", tried), dns.TypeA)
		tried++
		c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
		m, err := c.ReadMsg()
		return err == nil && len(m.Answer) == 1
	})
	t.Logf("a new name was answered %s after the servers were back", time.Since(begun).Round(time.Millisecond))
	if refused.Load() == 0 {
		t.Error("nobody was told that there are too many queries")
	}
	for _, c := range clients {
		c.Close()
	}
	reading.Wait()
}

// Out of descriptors, nobody new is let in, what has a socket goes on, nothing
// spins, and it is over when there are descriptors again (SECURITY R-22).
func TestOutOfDescriptors(t *testing.T) {
	serve(t, honest)
	run(t, forward)
	h := newHot(t)
	lookup(t, "before.example.net.")
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 128 // numbers, of which this test has half
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer restore()
	var conns []net.Conn
	for i := range 500 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 7, byte(1+i%100))}}
		c, err := d.Dial("tcp", ours)
		if err != nil {
			break // this program's own are used up
		}
		conns = append(conns, c)
	}
	if len(conns) == 500 {
		t.Fatal("there were descriptors for all")
	}
	// A loop over accept takes a core all the time; the collector and the race
	// detector take their part of some of it.
	const windows, rounds, round = 4, 5, 25 * time.Millisecond
	least := time.Duration(math.MaxInt64)
	tick := time.NewTicker(round)
	defer tick.Stop()
	for range windows {
		used := cpu(t)
		for range rounds {
			h.ask(t, 1)
			<-tick.C
		}
		least = min(least, cpu(t)-used)
	}
	if least > 7*rounds*round/10 {
		t.Errorf("at least %s of CPU in every %s", least, rounds*round)
	}
	for _, c := range conns {
		c.Close()
	}
	restore()
	begun := time.Now()
	c := overTCP(t, "127.0.0.1")
	if err := c.WriteMsg(new(dns.Msg).SetQuestion("after.example.net.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 || time.Since(begun) > 30*time.Second {
		t.Errorf("afterwards: %v, %v, in %s", m, err, time.Since(begun))
	}
}

// cpu is what this process has used so far.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
