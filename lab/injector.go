package lab

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Forgery is what the injector answers.
type Forgery struct {
	V4, V6     netip.Addr // for A and AAAA; other types are not forged
	Copies     int        // how many datagrams per question
	OPT        bool       // with the OPT record that the question had
	FirstRcode int        // if not 0, a datagram with this rcode comes first
}

// Injector sits between the gateway and the world, and answers questions over
// UDP about poisoned names before the servers do, whichever server is asked. It
// cannot hold back the true answer. Its methods may be called concurrently.
type Injector struct {
	tap     *tap
	zone    *Zone
	forgery atomic.Pointer[Forgery]

	mu     sync.Mutex // guards following
	forged map[netip.Addr]int
}

func newInjector(isp *Namespace, link string, z *Zone) (*Injector, error) {
	t, err := openTap(isp, link, portFilter(unix.IPPROTO_UDP, 53))
	if err != nil {
		return nil, err
	}
	i := &Injector{tap: t, zone: z, forged: map[netip.Addr]int{}}
	i.Set(DefaultForgery())
	return i, nil
}

// DefaultForgery is the injector's at start: one datagram per question, without
// OPT.
func DefaultForgery() *Forgery { return &Forgery{V4: ForgedV4, V6: ForgedV6, Copies: 1} }

// Set changes what is forged. nil: nothing.
func (i *Injector) Set(f *Forgery) { i.forgery.Store(f) }

// Forged returns how many questions to server were answered with a forgery; to
// any server if it is the zero Addr.
func (i *Injector) Forged(server netip.Addr) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.forged[server]
}

// portFilter lets UDP or TCP to one port pass, without v4 options and v6
// extensions.
func portFilter(proto, port uint32) []bpf.Instruction {
	const l3 = ethHeader
	return []bpf.Instruction{
		/*  0 */ bpf.LoadAbsolute{Off: 12, Size: 2},
		/*  1 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherIPv6, SkipTrue: 6},
		/*  2 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherIPv4, SkipTrue: 10},
		/*  3 */ bpf.LoadAbsolute{Off: l3 + 9, Size: 1},
		/*  4 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: proto, SkipTrue: 8},
		/*  5 */ bpf.LoadMemShift{Off: l3},
		/*  6 */ bpf.LoadIndirect{Off: l3 + 2, Size: 2},
		/*  7 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: port, SkipTrue: 4, SkipFalse: 5},
		/*  8 */ bpf.LoadAbsolute{Off: l3 + 6, Size: 1},
		/*  9 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: proto, SkipTrue: 3},
		/* 10 */ bpf.LoadAbsolute{Off: l3 + 42, Size: 2},
		/* 11 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: port, SkipTrue: 1},
		/* 12 */ bpf.RetConstant{Val: 0xffff},
		/* 13 */ bpf.RetConstant{Val: 0},
	}
}

// run reads until the tap is closed.
func (i *Injector) run() {
	buf := make([]byte, 2048)
	for {
		n, err := i.tap.Read(buf)
		if err != nil {
			return
		}
		i.frame(buf[:n])
	}
}

func (i *Injector) frame(b []byte) {
	f := i.forgery.Load()
	p := parseFrame(b)
	q := new(dns.Msg)
	if f == nil || q.Unpack(p.Payload) != nil || q.Response || len(q.Question) != 1 || !i.zone.Poisoned(q.Question[0].Name) {
		return
	}
	answers := f.answers(q)
	for _, m := range answers {
		raw, err := m.Pack()
		if err != nil {
			continue
		}
		if _, err := i.tap.Write(udpReply(b, raw)); err != nil {
			return
		}
	}
	if len(answers) > 0 {
		i.mu.Lock()
		i.forged[p.Dst]++
		i.forged[netip.Addr{}]++
		i.mu.Unlock()
	}
}

func (f *Forgery) answers(q *dns.Msg) []*dns.Msg {
	base := func() *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		if q.IsEdns0() != nil && f.OPT {
			m.SetEdns0(1232, false)
		}
		return m
	}
	var out []*dns.Msg
	if f.FirstRcode != 0 {
		m := base()
		m.Rcode = f.FirstRcode
		out = append(out, m)
	}
	var rrs []dns.RR
	switch q.Question[0].Qtype {
	case dns.TypeA:
		rrs = addressRecords(f.V4, netip.Addr{})
	case dns.TypeAAAA:
		rrs = addressRecords(netip.Addr{}, f.V6)
	}
	if len(rrs) == 0 {
		return out
	}
	for range f.Copies {
		m := base()
		for _, rr := range rrs {
			m.Answer = append(m.Answer, owned(rr, q.Question[0].Name))
		}
		out = append(out, m)
	}
	return out
}

func (i *Injector) close() error { return i.tap.Close() }
