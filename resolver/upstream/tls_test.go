package upstream_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smartdns/resolver/upstream"
)

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue makes a certificate for dns.test and 127.0.0.1, changed by edit.
func (a authority) issue(t testing.TB, edit func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"dns.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsServer answers over TLS and counts full and resumed handshakes.
func tlsServer(t testing.TB, settings *tls.Config, full, resumed *atomic.Int32) *fake {
	return serve(t, truthUDP, func(c *conn) {
		secure := tls.Server(c.Conn, settings)
		if secure.Handshake() != nil {
			return
		}
		if secure.ConnectionState().DidResume {
			resumed.Add(1)
		} else {
			full.Add(1)
		}
		inner := &conn{Conn: secure, f: c.f}
		for range 2 {
			if q := inner.query(); q != nil {
				inner.send(reply(q, right))
			}
		}
	})
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	for name, serverName := range map[string]string{"by name": "dns.test", "by address": ""} {
		t.Run(name, func(t *testing.T) {
			var full, resumed atomic.Int32
			f := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, nil)}}, &full, &resumed)
			ex := newServer(t, upstream.Config{Scheme: "tls", Where: upstream.At(f.addr), ServerName: serverName, RootCAs: ca.pool()})
			for range 8 {
				want(t, ex, query(asked), right)
			}
			if full.Load() != 1 || resumed.Load() != 3 {
				t.Errorf("%d full handshakes, %d resumed", full.Load(), resumed.Load())
			}
		})
	}
}

// A certificate that is valid at the time that is known, by a clock that is far
// behind, is valid; and the other way round.
func TestTLSIsJudgedByTheTimeThatIsKnown(t *testing.T) {
	ca := newAuthority(t)
	var full, resumed atomic.Int32
	f := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, nil)}}, &full, &resumed)
	for now, valid := range map[time.Time]bool{time.Now(): true, time.Unix(0, 0): false, time.Now().AddDate(10, 0, 0): false} {
		ex := newServer(t, upstream.Config{
			Scheme: "tls", Where: upstream.At(f.addr), ServerName: "dns.test", RootCAs: ca.pool(), Now: func() time.Time { return now },
		})
		if _, err := ex.Exchange(testContext(t), query(asked)); (err == nil) != valid {
			t.Errorf("at %s: %v", now, err)
		}
	}
}

// (SECURITY S-18)
func TestTLSImpostors(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	for name, settings := range map[string]*tls.Config{
		"unknown authority": {Certificates: []tls.Certificate{stranger.issue(t, nil)}},
		"wrong name": {Certificates: []tls.Certificate{ca.issue(t, func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = []string{"other.test"}, []net.IP{net.IPv4(127, 0, 0, 2)}
		})}},
		"expired": {Certificates: []tls.Certificate{ca.issue(t, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		})}},
		"SHA-1": {Certificates: []tls.Certificate{ca.issue(t, func(c *x509.Certificate) {
			c.SignatureAlgorithm = x509.SHA1WithRSA
		})}},
		"TLS 1.1": {Certificates: []tls.Certificate{ca.issue(t, nil)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
	} {
		for _, serverName := range []string{"dns.test", ""} {
			t.Run(name, func(t *testing.T) {
				var full, resumed atomic.Int32
				f := tlsServer(t, settings, &full, &resumed)
				ex := newServer(t, upstream.Config{Scheme: "tls", Where: upstream.At(f.addr), ServerName: serverName, RootCAs: ca.pool()})
				if _, err := ex.Exchange(testContext(t), query(asked)); err == nil {
					t.Error("answered")
				}
				if f.queriesTCP.Load() != 0 || f.queriesUDP.Load() != 0 {
					t.Errorf("%d queries reached it", f.queriesTCP.Load())
				}
			})
		}
	}
}

// TestNoDowngrade looks at every octet that leaves while TLS cannot be had.
// (SECURITY S-17)
func TestNoDowngrade(t *testing.T) {
	ca := newAuthority(t)
	for name, tcp := range map[string]tcpHandler{
		"refused": nil,
		"closed":  func(*conn) {},
		"silent":  func(c *conn) { c.Read(make([]byte, 4096)); c.Read(make([]byte, 4096)) },
		"plain":   truthTCP,
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, truthUDP, tcp)
			var sent recorder
			ex := newServer(t, upstream.Config{Scheme: "tls", Where: upstream.At(f.addr), ServerName: "dns.test", RootCAs: ca.pool(), Timeouts: quick, Dial: sent.dial})
			if _, err := ex.Exchange(testContext(t), query(asked)); err == nil {
				t.Error("answered")
			}
			if f.queriesUDP.Load() != 0 || strings.Contains(strings.ToLower(sent.String()), "example") {
				t.Errorf("asked in the open: %q", sent.String())
			}
		})
	}
}

// recorder keeps what its connections write.
type recorder struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (r *recorder) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := dial(ctx, network, address)
	return recorded{c, r}, err
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all.String()
}

type recorded struct {
	net.Conn
	r *recorder
}

func (c recorded) Write(b []byte) (int, error) {
	c.r.mu.Lock()
	c.r.all.Write(b)
	c.r.mu.Unlock()
	return c.Conn.Write(b)
}
