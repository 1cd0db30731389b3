package conformance_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/web/api"
)

var soak = flag.Duration("soak", 3*time.Second, "how long TestSoak loads the server after its warm-up")

// truthOf is the address that the server of the soak has for a name.
func truthOf(name string) net.IP {
	h := uint32(2166136261)
	for _, c := range []byte(strings.ToLower(name)) {
		h = (h ^ uint32(c)) * 16777619
	}
	return net.IPv4(93, 184, byte(h>>8), byte(h))
}

// faulty answers truthfully, but for one query in a hundred: of these it keeps
// silent, fails, or says something that is no answer.
func faulty(faults *atomic.Int64) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		if q.IsEdns0() != nil {
			m.SetEdns0(1232, false)
		}
		if q.Question[0].Qtype == dns.TypeA {
			name := q.Question[0].Name
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 2}, A: truthOf(name)}}
		}
		if rand.IntN(100) == 0 {
			faults.Add(1)
			switch rand.IntN(6) {
			case 0: // silence
				return
			case 1:
				m.Rcode, m.Answer = dns.RcodeServerFailure, nil
			case 2:
				w.Write([]byte("this is no message of any kind"))
				return
			case 3:
				m.Id++
				m.Answer = []dns.RR{rr(q.Question[0].Name + " 60 IN A " + forged)}
			case 4:
				m.Truncated, m.Answer = true, nil
			case 5:
				w.Close()
				return
			}
		}
		w.WriteMsg(m)
	}
}

// footprint is what must not grow.
type footprint struct {
	rss, goroutines, descriptors, cache int
}

func measure(t *testing.T, c *api.Client) footprint {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var f footprint
	for line := range strings.Lines(string(status)) {
		if kib, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			f.rss, _ = strconv.Atoi(strings.Fields(kib)[0])
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	cached, err := c.Cache(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.goroutines, f.descriptors, f.cache = runtime.NumGoroutine(), len(fds), cached.Bytes+cached.Sealed.Bytes
	return f
}

func (f footprint) String() string {
	return fmt.Sprintf("RSS %d KiB, %d goroutines, %d descriptors, cache %d bytes", f.rss, f.goroutines, f.descriptors, f.cache)
}

// load asks without a pause, most of all for names that others ask too, until
// the time is over. It counts what came back.
type load struct {
	asked, refused, lost, wrong atomic.Int64
}

func (l *load) run(t *testing.T, client int, until time.Time) {
	network, most := "udp", 0
	if client%4 == 3 {
		network, most = "tcp", 900 // we close a connection after a thousand
	}
	r := rand.New(rand.NewPCG(uint64(client), 7))
	d := dns.Client{Net: network, Timeout: 8 * time.Second, Dialer: &net.Dialer{LocalAddr: localAddr(network, client)}}
	var c *dns.Conn
	for n := 0; time.Now().Before(until); n++ {
		if c == nil || most > 0 && n%most == 0 {
			if c != nil {
				c.Close()
			}
			var err error
			if c, err = d.Dial(ours); err != nil {
				t.Errorf("client %d: %v", client, err)
				return
			}
		}
		name := fmt.Sprintf("n%d.soak.example.net.", int(r.ExpFloat64()*500))
		m, _, err := d.ExchangeWithConn(new(dns.Msg).SetQuestion(name, dns.TypeA), c)
		l.asked.Add(1)
		switch {
		case err != nil:
			l.lost.Add(1)
			c.Close()
			c = nil
		case m.Rcode == dns.RcodeServerFailure:
			l.refused.Add(1)
		case len(m.Answer) != 1 || m.Question[0].Name != name || !m.Answer[0].(*dns.A).A.Equal(truthOf(name)):
			l.wrong.Add(1)
		}
	}
	if c != nil {
		c.Close()
	}
}

func localAddr(network string, client int) net.Addr {
	ip := net.IPv4(127, 0, 3, byte(1+client))
	if network == "tcp" {
		return &net.TCPAddr{IP: ip}
	}
	return &net.UDPAddr{IP: ip}
}

// Full load over UDP and TCP with a server of which one answer in a hundred is
// a fault: nothing is lost, no answer is wrong, and after the warm-up nothing
// grows. With -soak 10m it takes ten minutes (SECURITY F-06).
func TestSoak(t *testing.T) {
	var faults atomic.Int64
	serve(t, faulty(&faults))
	// Every answer that is asked for again takes new room until the cache is
	// full: it fills up before we look.
	dir := run(t, "[cache]\nsize = \"4MiB\"\n"+strings.ReplaceAll(forward, `["`+authority+`"]`, `["`+authority+`", "tcp://`+authority+`"]`))
	control := api.Dial(filepath.Join(dir, "run", "control.sock"))
	var l load
	begun := time.Now()
	warm := begun.Add(2*time.Second + min(*soak/5, 30*time.Second))
	end := warm.Add(*soak)
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() { l.run(t, i, end) })
	}
	ticks := time.NewTicker(max(*soak/20, 250*time.Millisecond))
	defer ticks.Stop()
	var first, second footprint // the most of each half after the warm-up
	half := warm.Add(*soak / 2)
	for now := time.Now(); now.Before(end); now = <-ticks.C {
		f := measure(t, control)
		if *soak > time.Minute {
			t.Logf("after %s: %s; %d asked", now.Sub(begun).Round(time.Second), f, l.asked.Load())
		}
		switch {
		case now.Before(warm):
		case now.Before(half):
			first = first.most(f)
		default:
			second = second.most(f)
		}
	}
	clients.Wait()
	t.Logf("%d asked (%.0f/s), %d SERVFAIL, %d lost, %d wrong; %d faults", l.asked.Load(),
		float64(l.asked.Load())/time.Since(begun).Seconds(), l.refused.Load(), l.lost.Load(), l.wrong.Load(), faults.Load())
	t.Logf("at most: first half %s; second half %s", first, second)
	if l.lost.Load() > 0 || l.wrong.Load() > 0 || l.asked.Load() == 0 || faults.Load() == 0 {
		t.Error("queries were lost or answered wrong, or there was no load or no fault")
	}
	// Two halves of a few seconds differ by what a garbage collection left.
	if second.rss > first.rss+first.rss/5+8<<10 || second.goroutines > first.goroutines+40 ||
		second.descriptors > first.descriptors+20 || second.cache > 4<<20 {
		t.Error("it grows")
	}
}

func (f footprint) most(g footprint) footprint {
	return footprint{max(f.rss, g.rss), max(f.goroutines, g.goroutines), max(f.descriptors, g.descriptors), max(f.cache, g.cache)}
}
