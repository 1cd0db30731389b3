package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/miekg/dns"
)

// Question is a DNS question to one server.
type Question struct {
	Server netip.Addr // or a whole AddrPort in At
	At     netip.AddrPort
	Net    string // "udp" (also ""), "tcp" or "tls"
	Name   string
	Type   uint16       // 0 is A
	ECS    netip.Prefix // a client subnet to send; none if invalid
	Plain  bool         // without EDNS
	Roots  string       // for tls: the file of the authority
}

func (q Question) message() *dns.Msg {
	t := q.Type
	if t == 0 {
		t = dns.TypeA
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(q.Name), t)
	if !q.Plain {
		m.SetEdns0(1232, false)
		if q.ECS.IsValid() {
			m.IsEdns0().Option = append(m.IsEdns0().Option, subnetOption(q.ECS, 0))
		}
	}
	return m
}

func (q Question) server() netip.AddrPort {
	switch {
	case q.At.IsValid():
		return q.At
	case q.Net == "tls":
		return netip.AddrPortFrom(q.Server, 853)
	}
	return netip.AddrPortFrom(q.Server, 53)
}

// Ask asks as a plain stub resolver does: over UDP the first answer wins.
func (n *Namespace) Ask(ctx context.Context, q Question) (*dns.Msg, error) {
	return dialer(n.Dial).ask(ctx, q)
}

func (d dialer) ask(ctx context.Context, q Question) (*dns.Msg, error) {
	c, err := d.openDNS(ctx, q)
	if err != nil {
		return nil, err
	}
	defer hangUp(c.Conn)
	defer bound(ctx, c)()
	m := q.message()
	if err := c.WriteMsg(m); err != nil {
		return nil, fmt.Errorf("asking %s for %s: %w", q.server(), q.Name, err)
	}
	for {
		a, err := c.ReadMsg()
		if err != nil {
			return nil, fmt.Errorf("asking %s for %s: %w", q.server(), q.Name, err)
		}
		if a.Id == m.Id {
			return a, nil
		}
	}
}

// AskAll asks over UDP and returns the first `want` answers, forged or not.
func (n *Namespace) AskAll(ctx context.Context, q Question, want int) ([]*dns.Msg, error) {
	c, err := dialer(n.Dial).openDNS(ctx, q)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer bound(ctx, c)()
	if err := c.WriteMsg(q.message()); err != nil {
		return nil, err
	}
	var all []*dns.Msg
	for len(all) < want {
		a, err := c.ReadMsg()
		if err != nil {
			return all, fmt.Errorf("waiting for answer %d: %w", len(all)+1, err)
		}
		all = append(all, a)
	}
	return all, nil
}

func (d dialer) openDNS(ctx context.Context, q Question) (*dns.Conn, error) {
	network := "tcp"
	if q.Net == "udp" || q.Net == "" {
		network = "udp"
	}
	c, err := d(ctx, network, netip.AddrPort{}, q.server())
	if err != nil {
		return nil, err
	}
	if q.Net == "tls" {
		pem, err := os.ReadFile(q.Roots)
		roots := x509.NewCertPool()
		if err != nil || !roots.AppendCertsFromPEM(pem) {
			return nil, errors.Join(fmt.Errorf("reading authority %q", q.Roots), err, c.Close())
		}
		c = tls.Client(c, &tls.Config{RootCAs: roots, ServerName: q.server().Addr().String()})
	}
	return &dns.Conn{Conn: c, UDPSize: 4096}, nil
}

// Addresses returns the addresses in an answer.
func Addresses(m *dns.Msg) []netip.Addr {
	var out []netip.Addr
	for _, rr := range m.Answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// Hints returns the address hints of the HTTPS records in an answer.
func Hints(m *dns.Msg) []netip.Addr {
	var out []netip.Addr
	for _, rr := range m.Answer {
		h, ok := rr.(*dns.HTTPS)
		if !ok {
			continue
		}
		for _, kv := range h.Value {
			var ips []net.IP
			switch kv := kv.(type) {
			case *dns.SVCBIPv4Hint:
				ips = kv.Hint
			case *dns.SVCBIPv6Hint:
				ips = kv.Hint
			}
			for _, ip := range ips {
				if a, ok := netip.AddrFromSlice(ip); ok {
					out = append(out, a.Unmap())
				}
			}
		}
	}
	return out
}
