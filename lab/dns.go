package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// DNS is the lab's DNS servers, at home and abroad. Its methods may be called
// concurrently.
type DNS struct {
	zone    *Zone
	servers []*dns.Server
	closers []io.Closer // of servers of other kinds
	running sync.WaitGroup
	ctx     context.Context // ends the answers that are held
	cancel  context.CancelFunc

	mu     sync.Mutex // guards following
	log    []Asked
	hold   time.Duration
	silent map[netip.Addr]bool
}

// Asked is one question that reached a server.
type Asked struct {
	Server netip.Addr
	Net    string // "udp", "tcp", "tls", "https", "h3" or "quic"
	From   netip.AddrPort
	Name   string // as it was asked
	Type   uint16
	ECS    netip.Prefix // the client subnet; invalid if none was sent
}

// String prints "tcp 10.9.0.2:41000 asks 8.8.8.8 for www.google.com. A".
func (a Asked) String() string {
	return fmt.Sprintf("%s %s asks %s for %s %s", a.Net, a.From, a.Server, a.Name, dns.TypeToString[a.Type])
}

func newDNS(z *Zone) *DNS {
	d := &DNS{zone: z, hold: 60 * time.Millisecond, silent: map[netip.Addr]bool{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// SetHold sets how long servers hold back answers about poisoned names asked
// from outside the tunnel, so that the injector is first. It is 60 ms at start.
func (d *DNS) SetHold(t time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = t
}

// SetSilent makes a server drop every question, or answer again.
func (d *DNS) SetSilent(server netip.Addr, silent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.silent[server] = silent
}

// Asked returns the questions for name that reached a server, in order; all of
// them if name is "".
func (d *DNS) Asked(name string) []Asked {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name == "" {
		return slices.Clone(d.log)
	}
	var out []Asked
	for _, a := range d.log {
		if strings.EqualFold(a.Name, dns.Fqdn(name)) {
			out = append(out, a)
		}
	}
	return out
}

// Forget empties the record of questions.
func (d *DNS) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = nil
}

// serve starts a server on addr in ns, over UDP, TCP and, with a certificate,
// TLS, HTTPS and QUIC.
func (d *DNS) serve(ns *Namespace, addr netip.Addr, view View, cert *tls.Config) error {
	return ns.Do(func() error {
		handle := func(network string) dns.HandlerFunc {
			return func(w dns.ResponseWriter, q *dns.Msg) { d.answer(w, q, view, addr, network) }
		}
		at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 53))
		pc, err := net.ListenUDP("udp", at)
		if err != nil {
			return err
		}
		d.start(&dns.Server{PacketConn: pc, Handler: handle("udp")})
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 53)))
		if err != nil {
			return err
		}
		d.start(&dns.Server{Listener: l, Handler: handle("tcp")})
		if cert == nil {
			return nil
		}
		if l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 853))); err != nil {
			return err
		}
		d.start(&dns.Server{Listener: tls.NewListener(l, cert), Handler: handle("tls")})
		return d.serveSecure(addr, view, cert)
	})
}

func (d *DNS) start(s *dns.Server) {
	up := make(chan struct{})
	s.NotifyStartedFunc = func() { close(up) }
	s.UDPSize = dns.MaxMsgSize
	d.servers = append(d.servers, s)
	failed := make(chan struct{})
	d.running.Go(func() {
		defer close(failed)
		s.ActivateAndServe() // ends with Shutdown
	})
	select {
	case <-up:
	case <-failed:
	}
}

func (d *DNS) answer(w dns.ResponseWriter, q *dns.Msg, view View, server netip.Addr, network string) {
	if len(q.Question) != 1 {
		return
	}
	asked := Asked{Server: server, Net: network, From: addrPort(w.RemoteAddr()), Name: q.Question[0].Name, Type: q.Question[0].Qtype, ECS: clientSubnet(q)}
	d.mu.Lock()
	d.log = append(d.log, asked)
	hold, silent := d.hold, d.silent[server]
	d.mu.Unlock()
	if silent {
		return
	}
	if d.zone.Poisoned(asked.Name) && !throughTunnel(asked.From.Addr()) {
		t := time.NewTimer(hold)
		defer t.Stop()
		select {
		case <-t.C:
		case <-d.ctx.Done():
			return
		}
	}
	m := d.zone.reply(q, view, asked)
	if network == "udp" {
		size := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		m.Truncate(size)
	}
	m.Compress = true
	w.WriteMsg(m) // the asker may be gone
}

func (z *Zone) reply(q *dns.Msg, view View, asked Asked) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	near := view == AtHome
	subnet := honoursSubnet(asked)
	if subnet {
		near = atHome(asked.ECS.Addr())
	}
	m.Answer, m.Rcode = z.lookup(asker{view, near}, asked.Name, asked.Type)
	if !slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == asked.Type }) {
		m.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 900},
			Ns:  "ns.test.", Mbox: "lab.test.", Serial: 1, Refresh: 1800, Retry: 900, Expire: 604800, Minttl: 60,
		}}
	}
	if q.IsEdns0() != nil {
		m.SetEdns0(1232, false)
		if subnet {
			m.IsEdns0().Option = append(m.IsEdns0().Option, subnetOption(asked.ECS, uint8(asked.ECS.Bits())))
		}
	}
	return m
}

// honoursSubnet reports whether the server answers by the client subnet that
// was sent. As on the real Internet, Google's does and the others do not.
func honoursSubnet(a Asked) bool {
	return a.ECS.IsValid() && (a.Server == Google || a.Server == GoogleV6)
}

// atHome is the region of a client subnet: the servers' own prefixes, and those
// in which the lab's domestic resolvers are.
func atHome(a netip.Addr) bool {
	if IsHome(a) {
		return true
	}
	for _, s := range domesticDNS {
		bits := 16
		if p, err := s.Prefix(bits); err == nil && p.Contains(a) {
			return true
		}
	}
	return a.Is4() && a.As4()[0] == 114 // 114.114.114.114 and its neighbours
}

func throughTunnel(a netip.Addr) bool {
	return a == TunnelV4 || a == TunnelV6 || a == SecondV4 || a == SecondV6
}

func clientSubnet(m *dns.Msg) netip.Prefix {
	opt := m.IsEdns0()
	if opt == nil {
		return netip.Prefix{}
	}
	for _, o := range opt.Option {
		if s, ok := o.(*dns.EDNS0_SUBNET); ok {
			if a, ok := netip.AddrFromSlice(s.Address); ok {
				return netip.PrefixFrom(a.Unmap(), int(s.SourceNetmask))
			}
		}
	}
	return netip.Prefix{}
}

func subnetOption(p netip.Prefix, scope uint8) *dns.EDNS0_SUBNET {
	o := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), SourceScope: scope, Address: p.Addr().AsSlice()}
	if p.Addr().Is6() {
		o.Family = 2
	}
	return o
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return unmap(a.AddrPort())
	case *net.TCPAddr:
		return unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func (d *DNS) close() error {
	d.cancel()
	var errs []error
	for _, s := range d.servers {
		errs = append(errs, s.Shutdown())
	}
	for _, c := range d.closers {
		errs = append(errs, c.Close())
	}
	d.running.Wait()
	return errors.Join(errs...)
}
