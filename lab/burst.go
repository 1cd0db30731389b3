package lab

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// Burst asks for many names, and opens a connection to an address of each
// answer at once.
type Burst struct {
	Question Question // to whom and how; its Name is ignored
	Names    []string
	Port     uint16
	Parallel int // how many at a time
	// Answered, if not nil, is called between each answer and its connection,
	// from several goroutines, on threads in the asking namespace. An error
	// counts as that name's failure.
	Answered func(name string, answer *dns.Msg, to netip.Addr) error
}

// Count is the outcome of a Burst.
type Count struct {
	Direct, Tunnel int // connections, by what the server saw
	Failed         int
	Failures       []string // the first 20
}

// Burst runs b from the namespace. It ends early when ctx does.
func (n *Namespace) Burst(ctx context.Context, b Burst) Count {
	var c Count
	var mu sync.Mutex // guards c
	var next atomic.Int64
	var workers sync.WaitGroup
	for range b.Parallel {
		workers.Go(func() {
			err := n.Do(func() error {
				for ctx.Err() == nil {
					i := int(next.Add(1)) - 1
					if i >= len(b.Names) {
						break
					}
					seen, err := b.one(ctx, b.Names[i])
					mu.Lock()
					c.count(b.Names[i], seen, err)
					mu.Unlock()
				}
				return ctx.Err()
			})
			if err != nil {
				mu.Lock()
				c.count("worker", Seen{}, err)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return c
}

func (c *Count) count(name string, seen Seen, err error) {
	switch {
	case err != nil:
		c.Failed++
		if len(c.Failures) < 20 {
			c.Failures = append(c.Failures, fmt.Sprintf("%s: %v", name, err))
		}
	case seen.ThroughTunnel():
		c.Tunnel++
	default:
		c.Direct++
	}
}

func (b Burst) one(ctx context.Context, name string) (Seen, error) {
	q := b.Question
	q.Name = name
	m, err := dialer(dialHere).ask(ctx, q)
	if err != nil {
		return Seen{}, err
	}
	addrs := append(Addresses(m), Hints(m)...)
	if len(addrs) == 0 {
		return Seen{}, fmt.Errorf("no address in the answer (%s)", dns.RcodeToString[m.Rcode])
	}
	if b.Answered != nil {
		if err := b.Answered(name, m, addrs[0]); err != nil {
			return Seen{}, err
		}
	}
	s, err := dialer(dialHere).connect(ctx, netip.AddrPort{}, netip.AddrPortFrom(addrs[0], b.Port))
	if err != nil {
		return Seen{}, err
	}
	return s.Seen, s.Close()
}

// Numbered returns the names n1.FAMILY.test to nCOUNT.FAMILY.test; family is
// one of Zone's.
func Numbered(family string, count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("n%05d.%s.test", i+1, family)
	}
	return names
}
