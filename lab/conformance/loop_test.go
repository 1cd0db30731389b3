package conformance_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/web/api"
)

// passOn asks next what it is asked, over the same transport, as a forwarder
// does.
func passOn(next string, packets *atomic.Int32) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		if packets != nil && strings.HasSuffix(strings.ToLower(q.Question[0].Name), "loop.example.net.") {
			packets.Add(1) // of this test: those of one before may be on their way still
		}
		c := dns.Client{Timeout: 8 * time.Second}
		if _, tcp := w.RemoteAddr().(*net.TCPAddr); tcp {
			c.Net = "tcp"
		}
		if m, _, err := c.Exchange(q, next); err == nil {
			m.Id = q.Id
			w.WriteMsg(m)
		}
	}
}

// A server that asks us in its turn, directly or through another, costs a query
// no more than 5 packets, though each of them knows of no loop; it is found, and
// named in status and in the log; and from then on nobody waits (SECURITY R-17).
func TestForwardingLoop(t *testing.T) {
	for name, next := range map[string]string{"directly": ours, "through another": "127.0.0.2:5303"} {
		t.Run(name, func(t *testing.T) {
			var packets atomic.Int32
			serve(t, passOn(next, &packets))
			if next != ours {
				serveAt(t, next, passOn(ours, nil))
			}
			dir := run(t, forward)
			control := api.Dial(filepath.Join(dir, "run", "control.sock"))
			if got := lookup(t, "www.loop.example.net."); got != "SERVFAIL" {
				t.Errorf("the answer of a loop is %s", got)
			}
			if n := packets.Swap(0); n > 5 {
				t.Errorf("%d packets for one query and the test for a loop", n)
			}
			s, err := control.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, c := range s.Conditions {
				if strings.Contains(c.What, "forwarding loop") {
					found = true
					if !strings.Contains(c.What, authority+" of the foreign side") || !strings.Contains(c.What, "come from 127.0.0.1") || c.Fix == "" {
						t.Errorf("the condition: %+v", c)
					}
				}
			}
			if !found {
				t.Errorf("status has no word of a loop: %+v", s.Conditions)
			}
			used := cpu(t)
			for i := range 5 {
				if got := lookup(t, fmt.Sprintf("again%d.loop.example.net.", i)); got != "SERVFAIL" {
					t.Errorf("the answer of a known loop is %s", got)
				}
			}
			if n := packets.Load(); n > 5*5 {
				t.Errorf("%d packets for five queries", n)
			}
			t.Logf("%d packets for five queries, %s of CPU", packets.Load(), cpu(t)-used)
		})
	}
}
