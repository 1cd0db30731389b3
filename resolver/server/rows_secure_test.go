package server_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/miekg/dns"

	"smartdns/resolver/server"
	"smartdns/resolver/wire"
)

// What is no plain question is refused over DoT and DoH, by GET and by POST, as
// it is over UDP and TCP: nothing of it goes on, and what is cached stays
// (SECURITY P-11).
func TestDangerousMessagesOverEncryptedTransports(t *testing.T) {
	s := newStack(t, sized)
	_, config := startSecure(t, func(ctx context.Context, q wire.Query, from server.Client) []byte {
		return s.handler.Answer(ctx, nil, q, from)
	}, server.DefaultLimits())
	dot := &dns.Conn{Conn: dialTLS(t, dotAddr, config)}
	web := webClient(t, config, true)
	overDoT := func(b []byte) (*dns.Msg, error) {
		if _, err := dot.Write(b); err != nil {
			return nil, err
		}
		return dot.ReadMsg()
	}
	parsed := func(b []byte) (*dns.Msg, error) {
		m := new(dns.Msg)
		return m, m.Unpack(b)
	}
	transports := map[string]func(b []byte) (*dns.Msg, error){
		"DoT": overDoT,
		"DoH GET": func(b []byte) (*dns.Msg, error) {
			_, reply := get(t, web, encoded(b))
			return parsed(reply)
		},
		"DoH POST": func(b []byte) (*dns.Msg, error) {
			r, err := web.Post(dohURL, "application/dns-message", bytes.NewReader(b))
			if err != nil {
				return nil, err
			}
			return parsed(body(t, r))
		},
	}
	cached := new(dns.Msg).SetQuestion("a600.example.", dns.TypeTXT)
	b, err := cached.Pack()
	if err != nil {
		t.Fatal(err)
	}
	before, err := overDoT(b)
	if err != nil || len(before.Answer) != 1 {
		t.Fatalf("%v, %v", before, err)
	}
	for name, ask := range transports {
		for _, d := range dangerousMessages() {
			b, err := d.m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			a, err := ask(b)
			if err != nil {
				t.Errorf("%s over %s: %v", d.name, name, err)
				if name == "DoT" {
					dot = &dns.Conn{Conn: dialTLS(t, dotAddr, config)}
				}
				continue
			}
			if !d.refused(a) {
				t.Errorf("%s over %s: %s with %d answers", d.name, name, dns.RcodeToString[a.Rcode], len(a.Answer))
			}
		}
		after, err := ask(b)
		if err != nil || len(after.Answer) != 1 || !dns.IsDuplicate(after.Answer[0], before.Answer[0]) {
			t.Errorf("the cached answer over %s: %v, %v", name, after, err)
		}
	}
	if n := s.asked.Load(); n != 1 {
		t.Errorf("%d questions reached the upstream, want one", n)
	}
}
