package conformance_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/web/api"
)

var full = flag.Bool("full", false, "show rows as large as README.md says they are written, which takes minutes each")

// sized is how much of a row is shown: some of it, or with -full all.
func sized[T any](some, all T) T {
	if *full {
		return all
	}
	return some
}

// Somebody off the path sends replies for the name that is being asked for, to
// all of our ports and with any ID, from the server's address: 33,000 a second
// against a hundred queries a second whose answers take their time. None is
// taken, all queries are answered, that somebody tries is counted, and what is
// cached stays (SECURITY S-12; with -full a million replies, over all ports).
func TestBlindFloodIsNotTaken(t *testing.T) {
	const answerAfter, perTick, tick = 20 * time.Millisecond, 330, 10 * time.Millisecond
	replies := sized(33_000, 1_000_000)
	low, high := ports(t, sized(500, 0))
	var seen asks
	serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		seen.note(w, q)
		if strings.Contains(strings.ToLower(q.Question[0].Name), ".blind.") {
			<-time.After(answerAfter)
		}
		honest(w, q)
	})
	dir := run(t, forward)
	h := newHot(t)
	hotAsked := len(seen.of(".example.com."))

	var current atomic.Pointer[dns.Question]
	current.Store(&dns.Question{Name: "n0-0.blind.example.net.", Qtype: dns.TypeA, Qclass: dns.ClassINET})
	var clients sync.WaitGroup
	var over atomic.Bool
	var asked, answered atomic.Int64
	const askers = 10
	for i := range askers {
		c := overUDP(t, fmt.Sprintf("127.0.9.%d", 1+i))
		clients.Go(func() {
			pace := time.NewTicker(askers * time.Second / 100)
			defer pace.Stop()
			for n := 0; !over.Load(); n++ {
				<-pace.C
				q := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d-%d.blind.example.net.", i, n), dns.TypeA)
				current.Store(&q.Question[0])
				c.SetDeadline(time.Now().Add(20 * time.Second))
				asked.Add(1)
				if err := c.WriteMsg(q); err != nil {
					t.Error(err)
					return
				}
				m, err := c.ReadMsg()
				switch {
				case err != nil:
					t.Error(err)
					return
				case m.Rcode == dns.RcodeServerFailure:
				case len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != truth:
					t.Errorf("%s: %v", q.Question[0].Name, m)
				default:
					answered.Add(1)
				}
			}
		})
	}

	send := raw(t, 255) // IPPROTO_RAW: the source address is the server's
	begun, sent := time.Now(), 0
	r := rand.New(rand.NewPCG(1, 2))
	pace := time.NewTicker(tick)
	defer pace.Stop()
	// Where the machine is too slow for the pace, the flood takes longer.
	for sent < replies {
		<-pace.C
		q := new(dns.Msg)
		q.Question = []dns.Question{*current.Load()}
		packed, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply := answer(packed, forged)
		packet := append(append(ipHeader(28+len(reply), 0, 0, 17), udpHeader(0, len(reply))...), reply...)
		for range perTick {
			be.PutUint16(packet[22:], low+uint16(r.IntN(int(high-low)+1)))
			be.PutUint16(packet[28:], uint16(r.Uint32()))
			send(packet)
			sent++
		}
	}
	took := time.Since(begun)
	over.Store(true)
	clients.Wait()
	s, err := api.Dial(filepath.Join(dir, "run", "control.sock")).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var suspect uint64
	for _, side := range s.Sides {
		for _, server := range side.Servers {
			suspect += server.Suspect
		}
	}
	t.Logf("%d replies in %s to ports %d-%d; %d of %d queries answered; %d were seen to be under attack", sent, took.Round(time.Millisecond), low, high, answered.Load(), asked.Load(), suspect)
	if suspect == 0 {
		t.Error("nobody has noticed")
	}
	if answered.Load() < asked.Load()*99/100 || answered.Load() == 0 {
		t.Errorf("%d of %d queries were answered, want 99 of 100", answered.Load(), asked.Load())
	}
	h.ask(t, hotNames)
	if n := len(seen.of(".example.com.")); n != hotAsked {
		t.Errorf("%d questions about names that were cached", n-hotAsked)
	}
}

// ports returns the range of ports that the kernel gives sockets, made as small
// as n for the time of the test unless that is 0.
func ports(t *testing.T, n int) (low, high uint16) {
	t.Helper()
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(old), &low, &high); err != nil {
		t.Fatal(err)
	}
	if n > 0 {
		high = low + uint16(n) - 1
		if err := os.WriteFile(file, fmt.Appendf(nil, "%d %d", low, high), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.WriteFile(file, old, 0o644) })
	}
	return low, high
}
