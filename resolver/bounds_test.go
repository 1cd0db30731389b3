package resolver_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver"
	"smartdns/resolver/upstream"
)

// New bounds of TTLs hold for what is cached as for what is asked then.
func TestTTLBoundsHoldForWhatIsCached(t *testing.T) {
	for what, c := range map[string]struct {
		ttl         uint32
		before, now resolver.Keep
		shown       uint32        // 10 s after it came, and 0 s after the reload
		lasts       time.Duration // from the reload until the server is asked again
	}{
		"max lowered":                   {3600, resolver.Keep{}, resolver.Keep{MaxTTL: time.Minute}, 50, 50 * time.Second},
		"max lowered below its age":     {3600, resolver.Keep{}, resolver.Keep{MaxTTL: 5 * time.Second}, 5, 5 * time.Second},
		"max lowered, but not so far":   {60, resolver.Keep{}, resolver.Keep{MaxTTL: time.Hour}, 50, 50 * time.Second},
		"max raised":                    {3600, resolver.Keep{MaxTTL: time.Minute}, resolver.Keep{}, 50, 50 * time.Second},
		"min raised":                    {60, resolver.Keep{}, resolver.Keep{MinTTL: 5 * time.Minute}, 290, 290 * time.Second},
		"min lowered, it was raised":    {5, resolver.Keep{MinTTL: 5 * time.Minute}, resolver.Keep{}, 5, 5 * time.Second},
		"min lowered, it was not":       {3600, resolver.Keep{MinTTL: 5 * time.Minute}, resolver.Keep{}, 3590, 3590 * time.Second},
		"min lowered, but still raised": {5, resolver.Keep{MinTTL: 5 * time.Minute}, resolver.Keep{MinTTL: time.Minute}, 60, time.Minute},
		"nothing changed":               {300, resolver.Keep{MinTTL: time.Minute, MaxTTL: time.Hour}, resolver.Keep{MinTTL: time.Minute, MaxTTL: time.Hour}, 290, 290 * time.Second},
	} {
		for _, restarted := range []bool{false, true} {
			if restarted && c.now.MinTTL < c.before.MinTTL {
				continue // nobody knows then what min_ttl raised
			}
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				zone := zoneOf(t, fmt.Sprintf("www.example.test. %d IN A 93.184.216.34", c.ttl))
				ask := func(ctx context.Context, side string, q upstream.Query) (upstream.Reply, error) {
					asked++
					return zone(ctx, side, q)
				}
				run := func(l lane, k resolver.Keep) lane {
					p := *l.policy
					p.Keep = k
					l.Swap(&p)
					return l
				}
				l := run(newLane(t, ask), c.before)
				ttl := func() uint32 {
					q := resolver.Ask("www.example.test.", dns.TypeA, netip.Addr{})
					var m dns.Msg
					if err := m.Unpack(l.Resolve(t.Context(), q).Reply(nil, q)); err != nil || len(m.Answer) != 1 {
						t.Fatalf("%s: %v, %v", what, &m, err)
					}
					return m.Answer[0].Header().Ttl
				}
				ttl()
				time.Sleep(10 * time.Second)
				if restarted {
					var file bytes.Buffer
					if err := l.SaveCache(&file); err != nil {
						t.Fatal(err)
					}
					l = run(newLane(t, ask), c.now)
					if n, _, err := l.LoadCache(&file); n != 1 || err != nil {
						t.Fatalf("%s: loaded %d, %v", what, n, err)
					}
				} else {
					run(l, c.now)
				}
				if got := ttl(); got != c.shown {
					t.Errorf("%s, restarted %t: shown TTL %d, want %d", what, restarted, got, c.shown)
				}
				before := asked
				time.Sleep(c.lasts - time.Second)
				if ttl(); asked != before {
					t.Errorf("%s, restarted %t: asked again within %s", what, restarted, c.lasts)
				}
				time.Sleep(time.Second + time.Second/2)
				if ttl(); asked != before+1 {
					t.Errorf("%s, restarted %t: not asked again after %s", what, restarted, c.lasts)
				}
			})
		}
	}
}
