package conformance_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"hash/fnv"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/resolver/wire"
)

// mutant changes a valid message as a bad line, a bad program or a bad person
// would.
func mutant(r *mathrand.Rand, valid []byte) []byte {
	b := bytes.Clone(valid)
	for range 1 + r.IntN(4) {
		if len(b) < 13 {
			break
		}
		i := r.IntN(len(b))
		switch r.IntN(7) {
		case 0:
			b[i] ^= 1 << r.IntN(8)
		case 1:
			b[i] = byte(r.Uint32())
		case 2:
			b[i] = 0xc0 // a pointer, where none is expected
		case 3:
			b = b[:i]
		case 4:
			b = append(b, b[i:]...)
		case 5:
			b[2+r.IntN(10)] = byte(r.IntN(4)) // flags and counts
		case 6:
			j := r.IntN(len(b))
			copy(b[i:], b[j:])
		}
	}
	return b
}

// validQueries are of every kind that clients send.
func validQueries() (all [][]byte) {
	for i, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeTXT, dns.TypeANY, dns.TypeSVCB, 65280} {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.mutants.example.net.", i), typ)
		if i > 0 {
			q.SetEdns0(uint16(512*i), i%2 == 0)
			q.IsEdns0().Option = []dns.EDNS0{
				&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID},
				&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(93, 184, 216, 0)},
				&dns.EDNS0_PADDING{Padding: make([]byte, 32)},
			}
		}
		b, err := q.Pack()
		if err != nil {
			panic(err)
		}
		all = append(all, b)
	}
	for _, b := range malformed() {
		all = append(all, b)
	}
	return all
}

// Queries that were changed at random, over UDP, TCP and HTTPS, crash nothing,
// leave nothing behind, and get no more than UDP may carry. The corpora of
// others are not at hand: 4,000 mutants of our own stand for them
// (SECURITY P-04).
func TestMutatedQueriesCrashNothing(t *testing.T) {
	serve(t, invented)
	cert, roots := certificate(t)
	run(t, strings.Replace(forward, "\n\n[side", "\ndoh = [\"127.0.0.1:5443\"]\n"+cert+"\n\n[side", 1))
	web := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	post := func(b []byte) {
		resp, err := web.Post("https://127.0.0.1:5443/dns-query", "application/dns-message", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode == http.StatusOK && new(dns.Msg).Unpack(body) != nil || resp.StatusCode >= 500 {
			t.Errorf("% x over HTTPS: %s, % x, %v", b, resp.Status, body, err)
		}
	}
	lookup(t, "first.example.net.")
	before := runtime.NumGoroutine()
	r := mathrand.New(mathrand.NewPCG(1, 4))
	seeds := validQueries()
	udp := overUDP(t, "127.0.0.1")
	for i := range 4000 {
		b := mutant(r, seeds[i%len(seeds)])
		switch {
		case i%20 == 0 && len(b) > 0:
			post(b)
		case i%4 == 0:
			c := overTCP(t, fmt.Sprintf("127.0.2.%d", 1+i%200))
			c.Conn.Write(append(be.AppendUint16(nil, uint16(len(b))), b...))
			c.Conn.(*net.TCPConn).CloseWrite()
			if reply, err := readFramed(c.Conn); err == nil && new(dns.Msg).Unpack(reply) != nil {
				t.Errorf("% x over TCP: % x is no message", b, reply)
			}
			c.Close()
		default:
			udp.Conn.Write(b)
			if i%25 != 1 {
				continue
			}
			drain(t, udp, uint16(i))
		}
	}
	drain(t, udp, 0xffff)
	web.CloseIdleConnections()
	eventually(t, "as few goroutines as before", func() bool { return runtime.NumGoroutine() <= before+2 })
	if got := lookup(t, "last.example.net."); got == "SERVFAIL" {
		t.Errorf("a good query afterwards: %s", got)
	}
}

// drain asks once more and reads what came for all before it.
func drain(t *testing.T, c *dns.Conn, id uint16) {
	t.Helper()
	q := new(dns.Msg).SetQuestion("drain.example.net.", dns.TypeA)
	q.Id = id
	if err := c.WriteMsg(q); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 65535)
	for {
		n, err := c.Conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		var m dns.Msg
		if n > 1232 || m.Unpack(b[:n]) != nil {
			t.Errorf("a reply of %d octets: % x", n, b[:n])
		}
		if m.Id == id && len(m.Question) == 1 && m.Question[0].Name == "drain.example.net." {
			return
		}
	}
}

// eventually looks again until ok, at most 20 s.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Errorf("not %s within 30 s", what)
			return
		}
	}
}

// keyPair returns a certificate for 127.0.0.1, with its Leaf, and who vouches
// for it.
func keyPair(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{netip.MustParseAddr("127.0.0.1").AsSlice()}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots
}

// certificate writes a certificate for 127.0.0.1, and returns the keys of the
// config that name it, and who vouches for it.
func certificate(t *testing.T) (config string, roots *x509.CertPool) {
	t.Helper()
	pair, roots := keyPair(t)
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for file, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("cert = %q\nkey = %q", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")), roots
}

// Replies that were changed at random behind their question, or anywhere, over
// UDP before the answer and over TCP in its place: a client always gets a
// message, and nothing that they say of another name is ever told
// (SECURITY F-06, P-05; 1,500 mutants of our own).
func TestMutatedRepliesCrashNothing(t *testing.T) {
	const victim = "www.victim.example.net."
	reply := func(q []byte, tcp bool) []byte {
		h := fnv.New64a()
		h.Write(bytes.ToLower(q[12:]))
		r := mathrand.New(mathrand.NewPCG(h.Sum64(), 5))
		valid := edit(q, func(m *dns.Msg) {
			name := m.Question[0].Name
			m.Compress = true
			m.Answer = []dns.RR{
				rr(name + " 300 IN CNAME edge." + name), rr("edge." + name + " 300 IN A " + forged),
				rr(victim + " 300 IN A " + forged), rr(name + ` 300 IN HTTPS 1 . alpn="h2" ipv4hint=` + forged),
			}
			m.Ns = []dns.RR{rr("example.net. 300 IN NS " + victim), rr("example.net. 300 IN SOA a. b. 1 2 3 4 5")}
			m.Extra = append(m.Extra, rr(victim+" 300 IN A "+forged), rr(victim+` 300 IN TXT "forged"`))
		})
		b := mutant(r, valid)
		if !tcp && r.IntN(2) == 0 {
			return b
		}
		if end := len(q) - 11; len(b) > end && end < len(valid) { // ours, and the question
			copy(b[:2], valid[:2])
			copy(b[12:end], valid[12:end])
		}
		return b
	}
	serve(t, func(w dns.ResponseWriter, m *dns.Msg) {
		q, _ := m.Pack()
		name := strings.ToLower(m.Question[0].Name)
		_, tcp := w.RemoteAddr().(*net.TCPAddr)
		switch {
		case name == victim, !strings.HasPrefix(name, "t") && tcp:
			w.Write(answer(q, truth))
		case strings.HasPrefix(name, "t") && !tcp:
			w.Write(edit(q, func(m *dns.Msg) { m.Truncated = true }))
		case tcp:
			// Under another ID it would be a reply to nothing, and be waited for.
			if b := reply(q, true); len(b) > 1 && bytes.Equal(b[:2], q[:2]) {
				w.Write(b)
			}
			w.Close()
		default:
			w.Write(reply(q, false))
			w.Write(answer(q, truth))
		}
	})
	run(t, forward)
	var asking sync.WaitGroup
	const workers = 31 // what fails over TCP is held for a moment
	for worker := range workers {
		c := overUDP(t, fmt.Sprintf("127.0.3.%d", 1+worker))
		asking.Go(func() {
			for i := worker; i < 1500; i += workers {
				if err := understood(c, i, victim); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	asking.Wait()
	if got := lookup(t, victim); got != truth {
		t.Errorf("the victim is at %s", got)
	}
}

// understood asks for mutant i and returns what is wrong with the answer.
func understood(c *dns.Conn, i int, victim string) error {
	prefix := "u"
	if i%5 == 0 {
		prefix = "t"
	}
	q := new(dns.Msg).SetQuestion(fmt.Sprintf("%s%d.mutants.example.net.", prefix, i), []uint16{dns.TypeA, dns.TypeHTTPS}[i%2])
	if err := c.WriteMsg(q); err != nil {
		return err
	}
	b := make([]byte, 65535)
	n, err := c.Conn.Read(b)
	var m dns.Msg
	if err == nil && m.Unpack(b[:n]) != nil && wire.CheckReply(b[:n]) == nil && m.Id == q.Id {
		return nil // what is in a parameter of HTTPS is between the two ends
	}
	if err != nil || m.Unpack(b[:n]) != nil || m.Id != q.Id || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeServerFailure && m.Rcode != dns.RcodeNameError {
		return fmt.Errorf("%s: % x, %v", q.Question[0].Name, b[:n], err)
	}
	for _, rr := range append(m.Answer, append(m.Ns, m.Extra...)...) {
		if strings.EqualFold(rr.Header().Name, victim) {
			return fmt.Errorf("%s: the client is told %s", q.Question[0].Name, rr)
		}
	}
	return nil
}
