package conformance_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const overTLS = "127.0.0.1:5304"

// signed is the records that a signing server has for the names of the test, by
// the first label and the type that is asked for.
func signed(name string, qtype uint16) (rcode int, answer, authority []dns.RR) {
	first, zone, _ := strings.Cut(name, ".")
	sig := func(owner, typ string) dns.RR {
		return rr(fmt.Sprintf("%s 300 IN RRSIG %s 13 3 300 20400101000000 20200101000000 12345 %s %s==", owner, typ, zone, strings.Repeat("AbC+", 21)+"Ab"))
	}
	soa := rr(zone + " 300 IN SOA ns." + zone + " host." + zone + " 1 2 3 4 300")
	switch {
	case first == "nosuch":
		return dns.RcodeNameError, nil, []dns.RR{
			soa, sig(zone, "SOA"), rr("a." + zone + " 300 IN NSEC z." + zone + " A RRSIG NSEC"), sig("a."+zone, "NSEC"),
		}
	case first == "nodata":
		hashed := "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom." + zone
		return 0, nil, []dns.RR{
			soa, sig(zone, "SOA"), rr(hashed + " 300 IN NSEC3 1 1 12 aabbccdd 2t7b4g4vsa5smi47k61mv5bv1a22bojr A RRSIG"), sig(hashed, "NSEC3"),
		}
	case qtype == dns.TypeDNSKEY:
		return 0, []dns.RR{rr(name + " 300 IN DNSKEY 257 3 13 " + key('A')), rr(name + " 300 IN DNSKEY 256 3 13 " + key('B')), sig(name, "DNSKEY")}, nil
	case qtype == dns.TypeDS:
		return 0, []dns.RR{rr(name + " 300 IN DS 12345 13 2 " + strings.Repeat("ab", 32)), sig(name, "DS")}, nil
	}
	return 0, []dns.RR{rr(name + " 300 IN A " + home), sig(name, "A")}, nil
}

// serveSigned answers so, with AD set, over UDP and TCP at authority and over
// TLS at overTLS. It returns the pin of the key there.
func serveSigned(t *testing.T) (pin string) {
	t.Helper()
	handler := func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable, m.AuthenticatedData, m.CheckingDisabled = true, true, q.CheckingDisabled
		o := q.IsEdns0()
		m.SetEdns0(1232, o != nil && o.Do())
		m.Rcode, m.Answer, m.Ns = signed(strings.ToLower(q.Question[0].Name), q.Question[0].Qtype)
		if o == nil || !o.Do() {
			plain := func(r dns.RR) bool {
				switch r.Header().Rrtype {
				case dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3:
					return true
				}
				return false
			}
			m.Answer, m.Ns = slices.DeleteFunc(m.Answer, plain), slices.DeleteFunc(m.Ns, plain)
		}
		w.WriteMsg(m)
	}
	serve(t, handler)
	cert, _ := keyPair(t)
	l, err := net.Listen("tcp4", overTLS)
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{Listener: tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}}), Handler: dns.HandlerFunc(handler)}
	ended := make(chan struct{})
	go func() { defer close(ended); s.ActivateAndServe() }()
	t.Cleanup(func() { s.Shutdown(); <-ended })
	sum := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// What is signed passes as it is, octet by octet, to who asks for it, with the
// proofs that there is nothing; and AD comes from the trusted side only, to who
// asks for that (SECURITY P-12).
func TestSignaturesPassAndADIsTheTrustedSides(t *testing.T) {
	pin := serveSigned(t)
	run(t, `
[listen]
dns = ["`+ours+`"]

[poison]
hold = "1ms"

[side.domestic]
servers = ["`+authority+`"]

[side.foreign]
servers = [{ server = "tls://`+overTLS+`", pin = "`+pin+`" }]

[decide]
names = [
  { match = "cn.example.net", ask = "domestic" },
  { match = "*", ask = "foreign" },
]
`)
	c := overUDP(t, "127.0.0.1")
	for _, zone := range []string{"cn.example.net.", "example.org."} {
		for _, ask := range []struct {
			first string
			qtype uint16
		}{{"www", dns.TypeA}, {"nosuch", dns.TypeA}, {"nodata", dns.TypeAAAA}, {"keys", dns.TypeDNSKEY}, {"child", dns.TypeDS}} {
			for bits := range 16 {
				do, cd, ad, cached := bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0
				name := ask.first + "." + zone
				q := new(dns.Msg).SetQuestion(name, ask.qtype)
				q.CheckingDisabled, q.AuthenticatedData = cd, ad
				q.SetEdns0(1232, do)
				about := fmt.Sprintf("%s %s, DO %t, CD %t, AD %t, again %t", name, dns.TypeToString[ask.qtype], do, cd, ad, cached)
				if err := c.WriteMsg(q); err != nil {
					t.Fatal(err)
				}
				m, err := c.ReadMsg()
				if err != nil {
					t.Fatalf("%s: %v", about, err)
				}
				rcode, answer, authority := signed(name, ask.qtype)
				if m.Rcode != rcode || m.CheckingDisabled != cd {
					t.Errorf("%s: %s, CD %t", about, dns.RcodeToString[m.Rcode], m.CheckingDisabled)
				}
				if want := zone == "example.org." && (do || ad); m.AuthenticatedData != want {
					t.Errorf("%s: AD %t, want %t", about, m.AuthenticatedData, want)
				}
				if do && !bytes.Equal(octets(t, m.Answer, m.Ns), octets(t, answer, authority)) {
					t.Errorf("%s:\n got %v %v\nwant %v %v", about, m.Answer, m.Ns, answer, authority)
				}
				signatures := func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeRRSIG }
				if !do && (slices.ContainsFunc(m.Answer, signatures) || slices.ContainsFunc(m.Ns, signatures)) {
					t.Errorf("%s: signatures that nobody asked for", about)
				}
			}
		}
	}
}

// octets is records as they are on the wire, without compression and with the
// same TTL each: theirs age.
func octets(t *testing.T, sections ...[]dns.RR) []byte {
	t.Helper()
	b, off := make([]byte, 1<<16), 0
	for _, records := range sections {
		for _, r := range records {
			r = dns.Copy(r)
			r.Header().Ttl = 0
			var err error
			if off, err = dns.PackRR(r, b, off, nil, false); err != nil {
				t.Fatal(err)
			}
		}
		b[off] = '|'
		off++
	}
	return b[:off]
}
