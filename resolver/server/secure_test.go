package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/lab/netnstest"
	"smartdns/resolver/server"
	"smartdns/resolver/wire"
)

const (
	dotAddr = "127.0.0.1:8853"
	dohAddr = "127.0.0.1:8443"
	dohURL  = "https://" + dohAddr + "/dns-query"
)

// shown is a certificate for 127.0.0.1, and the roots that know it.
func shown(t *testing.T) (server.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "smartdns"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, IsCA: true, BasicConstraintsValid: true,
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
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }, roots
}

// startSecure serves DoT and DoH on loopback.
func startSecure(t *testing.T, h handler, l server.Limits) (*server.Server, *tls.Config) {
	t.Helper()
	netnstest.Require(t)
	cert, roots := shown(t)
	s := server.New(h, l, slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	err := s.ListenSecure(server.Secure{
		TLS:         []netip.AddrPort{netip.MustParseAddrPort(dotAddr)},
		HTTPS:       []netip.AddrPort{netip.MustParseAddrPort(dohAddr)},
		Certificate: cert,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}

func dialTLS(t *testing.T, to string, config *tls.Config) *tls.Conn {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", to, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// webClient speaks one version of HTTP.
func webClient(t *testing.T, config *tls.Config, two bool) *http.Client {
	tr := &http.Transport{TLSClientConfig: config.Clone(), Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP2(two)
	tr.Protocols.SetHTTP1(!two)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, []byte) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return r, body(t, r)
}

func body(t *testing.T, r *http.Response) []byte {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encoded(msg []byte) string { return dohURL + "?dns=" + base64.RawURLEncoding.EncodeToString(msg) }

func TestDoTAnswers(t *testing.T) {
	s, config := startSecure(t, echoA, server.DefaultLimits())
	for name, change := range map[string]func(*tls.Config){
		"with ALPN":    func(c *tls.Config) { c.NextProtos = []string{"dot"} },
		"without ALPN": func(c *tls.Config) {},
		"TLS 1.2":      func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
	} {
		config := config.Clone()
		change(config)
		c := dns.Conn{Conn: dialTLS(t, dotAddr, config)}
		for range 2 {
			c.Write(query("www.example.com"))
			if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 {
				t.Errorf("%s: %v, %v", name, m, err)
			}
		}
	}
	if got := s.Stats().TLS; got != 6 {
		t.Errorf("counted %d queries over TLS, want 6", got)
	}
	for name, config := range map[string]*tls.Config{
		"TLS 1.1":          {InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"another protocol": {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
	} {
		if c, err := tls.Dial("tcp", dotAddr, config); err == nil {
			c.Close()
			t.Errorf("%s got through the handshake", name)
		}
	}
}

func TestDoHAnswersGETAndPOSTOverBothVersions(t *testing.T) {
	s, config := startSecure(t, echoA, server.DefaultLimits())
	for _, two := range []bool{false, true} {
		c := webClient(t, config, two)
		r, b := get(t, c, encoded(query("www.example.com")))
		checkDoH(t, "GET", r, b, two)
		r, err := c.Post(dohURL, "application/dns-message", bytes.NewReader(query("www.example.com")))
		if err != nil {
			t.Fatal(err)
		}
		checkDoH(t, "POST", r, body(t, r), two)
	}
	if got := s.Stats().HTTPS; got != 4 {
		t.Errorf("counted %d queries over HTTPS, want 4", got)
	}
}

func checkDoH(t *testing.T, method string, r *http.Response, b []byte, two bool) {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(b); err != nil || len(m.Answer) != 1 || r.StatusCode != 200 {
		t.Errorf("%s: %s, %v, %v", method, r.Status, &m, err)
	}
	if got := r.Header.Get("Content-Type"); got != "application/dns-message" {
		t.Errorf("%s: Content-Type %q", method, got)
	}
	if got := r.Header.Get("Cache-Control"); got != "max-age=60" {
		t.Errorf("%s: Cache-Control %q, want the answer's TTL", method, got)
	}
	if (r.ProtoMajor == 2) != two {
		t.Errorf("%s: spoke %s", method, r.Proto)
	}
}

// (SECURITY R-20)
func TestDoHSaysWhatIsWrongWithARequest(t *testing.T) {
	_, config := startSecure(t, echoA, server.DefaultLimits())
	post := func(media string, b []byte) func(*http.Client) (*http.Response, error) {
		return func(c *http.Client) (*http.Response, error) { return c.Post(dohURL, media, bytes.NewReader(b)) }
	}
	fetch := func(url string) func(*http.Client) (*http.Response, error) {
		return func(c *http.Client) (*http.Response, error) { return c.Get(url) }
	}
	response := query("www.example.com")
	response[2] |= 0x80
	for name, tt := range map[string]struct {
		send func(*http.Client) (*http.Response, error)
		want []int
	}{
		"GET without a query":   {fetch(dohURL), []int{400}},
		"GET with bad base64":   {fetch(dohURL + "?dns=@@@@"), []int{400}},
		"GET with plain base64": {fetch(dohURL + "?dns=AA%2B%2FAAAA"), []int{400}},
		"GET with a runt":       {fetch(dohURL + "?dns=AAAA"), []int{400}},
		"GET of 8 KiB":          {fetch(dohURL + "?dns=" + strings.Repeat("A", 8<<10)), []int{414}},
		"GET of 1 MiB":          {fetch(dohURL + "?dns=" + strings.Repeat("A", 1<<20)), []int{414, 431}},
		"another path":          {fetch("https://" + dohAddr + "/debug/pprof"), []int{404}},
		"JSON":                  {post("application/json", []byte("{}")), []int{415}},
		"no media type":         {post("", query("www.example.com")), []int{415}},
		"POST of 64 KiB":        {post("application/dns-message", bytes.Repeat([]byte{0xff}, 64<<10)), []int{413}},
		"POST of 64 KiB, unannounced": {func(c *http.Client) (*http.Response, error) {
			return c.Post(dohURL, "application/dns-message", io.MultiReader(bytes.NewReader(bytes.Repeat([]byte{0xff}, 64<<10))))
		}, []int{413}},
		"a response": {post("application/dns-message", response), []int{400}},
		"PUT": {func(c *http.Client) (*http.Response, error) {
			r, _ := http.NewRequest("PUT", dohURL, bytes.NewReader(query("www.example.com")))
			return c.Do(r)
		}, []int{405}},
	} {
		for _, two := range []bool{false, true} {
			web := webClient(t, config, two)
			r, err := tt.send(web)
			if err != nil {
				// A server may hang up on a body that it does not want.
				if !two && strings.Contains(name, "64 KiB") || strings.Contains(name, "1 MiB") {
					continue
				}
				t.Errorf("%s: %v", name, err)
				continue
			}
			body(t, r)
			web.CloseIdleConnections() // or there are soon more than one client may have
			if fmt.Sprint(tt.want) != fmt.Sprint([]int{r.StatusCode}) && (len(tt.want) < 2 || r.StatusCode != tt.want[0] && r.StatusCode != tt.want[1]) {
				t.Errorf("%s over %s: %s, want %d", name, r.Proto, r.Status, tt.want)
			}
			if r.StatusCode == 405 && r.Header.Get("Allow") != "GET, POST" {
				t.Errorf("%s: Allow is %q", name, r.Header.Get("Allow"))
			}
		}
	}
}

func TestDoHErrorsOfDNSAreAnswers(t *testing.T) {
	_, config := startSecure(t, echoA, server.DefaultLimits())
	update := query("www.example.com")
	update[2] |= 5 << 3
	transfer := query("www.example.com")
	binary.BigEndian.PutUint16(transfer[len(transfer)-4:], dns.TypeAXFR)
	for want, msg := range map[int][]byte{dns.RcodeNotImplemented: update, dns.RcodeRefused: transfer, dns.RcodeFormatError: append(query("www.example.com"), 0)} {
		r, b := get(t, webClient(t, config, true), encoded(msg))
		if len(b) < 12 || r.StatusCode != 200 || int(b[3]&15) != want || r.Header.Get("Cache-Control") != "max-age=0" {
			t.Errorf("%s, Cache-Control %q, %x; want %s", r.Status, r.Header.Get("Cache-Control"), b, dns.RcodeToString[want])
		}
	}
}

func TestStrangersGetNoHandshake(t *testing.T) {
	addAddr(t, "lo", "198.18.2.1/32")
	s, _ := startSecure(t, echoA, server.DefaultLimits())
	for _, to := range []string{dotAddr, dohAddr} {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.18.2.1:0")), Timeout: 5 * time.Second}
		if c, err := tls.DialWithDialer(&d, "tcp", to, &tls.Config{InsecureSkipVerify: true}); err == nil {
			c.Close()
			t.Errorf("a stranger shook hands at %s", to)
		}
	}
	if got := s.Stats().Refused; got != 2 {
		t.Errorf("counted %d refused, want 2", got)
	}
}

func TestListenSecureFollowsTheWantedAddresses(t *testing.T) {
	s, config := startSecure(t, echoA, server.DefaultLimits())
	c := dns.Conn{Conn: dialTLS(t, dotAddr, config)}
	cert, _ := shown(t)
	want := server.Secure{TLS: []netip.AddrPort{netip.MustParseAddrPort(dotAddr)}, Certificate: cert}
	if err := s.ListenSecure(want); err != nil {
		t.Fatal(err)
	}
	if got := s.SecureAddrs(); len(got.TLS) != 1 || len(got.HTTPS) != 0 {
		t.Errorf("listening on %v", got)
	}
	if c, err := net.Dial("tcp", dohAddr); err == nil {
		c.Close()
		t.Error("the address that is gone still takes connections")
	}
	c.Write(query("www.example.com"))
	if _, err := c.ReadMsg(); err != nil {
		t.Errorf("a connection to the address that stayed: %v", err)
	}
	if _, err := tls.Dial("tcp", dotAddr, config); err == nil {
		t.Error("a new connection is shown the old certificate")
	}
	err := s.ListenSecure(server.Secure{HTTPS: want.TLS, Certificate: cert})
	if err != nil || len(s.SecureAddrs().HTTPS) != 1 {
		t.Errorf("another transport on the same address: %v, %v", s.SecureAddrs(), err)
	}
}

// ednsQuery has an OPT with these options.
func ednsQuery(name string, options ...dns.EDNS0) []byte {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = options
	b, _ := m.Pack()
	return b
}

// echoOPT answers with an OPT, as the resolver does.
func echoOPT(ctx context.Context, q wire.Query, c server.Client) []byte {
	return wire.AppendOPT(echoA(ctx, q, c), false, -1, "")
}

func option(m *dns.Msg, code uint16) dns.EDNS0 {
	if m.IsEdns0() == nil {
		return nil
	}
	for _, o := range m.IsEdns0().Option {
		if o.Option() == code {
			return o
		}
	}
	return nil
}

func TestAnswersArePaddedForWhoPads(t *testing.T) {
	_, config := startSecure(t, echoOPT, server.DefaultLimits())
	c := dialTLS(t, dotAddr, config)
	dc := dns.Conn{Conn: c}
	web := webClient(t, config, true)
	for _, padded := range []bool{true, false} {
		msg := ednsQuery("www.example.com")
		if padded {
			msg = ednsQuery("www.example.com", &dns.EDNS0_PADDING{Padding: make([]byte, 10)})
		}
		dc.Write(msg)
		b := make([]byte, 4096)
		n, err := dc.Read(b)
		if err != nil || (n%468 == 0) != padded {
			t.Errorf("over TLS: %d octets (%v) for a query that is padded: %v", n, err, padded)
		}
		_, b = get(t, web, encoded(msg))
		if (len(b)%468 == 0) != padded {
			t.Errorf("over HTTPS: %d octets for a query that is padded: %v", len(b), padded)
		}
		if err := new(dns.Msg).Unpack(b); err != nil {
			t.Errorf("padded answer: %v", err)
		}
	}
}

func TestKeepaliveIsToldToWhoAsks(t *testing.T) {
	start(t, echoOPT, server.DefaultLimits(), loopback)
	_, config := startSecure(t, echoOPT, server.DefaultLimits())
	tc, err := net.Dial("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Close()
	tc.SetDeadline(time.Now().Add(5 * time.Second))
	uc, err := net.Dial("udp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer uc.Close()
	uc.SetDeadline(time.Now().Add(5 * time.Second))
	for name, c := range map[string]net.Conn{"tcp": tc, "tls": dialTLS(t, dotAddr, config), "udp": uc} {
		for _, asked := range []bool{true, false} {
			dc := dns.Conn{Conn: c, UDPSize: 1232}
			msg := ednsQuery("www.example.com")
			if asked {
				msg = ednsQuery("www.example.com", &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE})
			}
			dc.Write(msg)
			m, err := dc.ReadMsg()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			o, _ := option(m, dns.EDNS0TCPKEEPALIVE).(*dns.EDNS0_TCP_KEEPALIVE)
			if want := asked && name != "udp"; (o != nil) != want || want && o.Timeout != 100 {
				t.Errorf("%s, asked %v: %v", name, asked, o)
			}
		}
	}
}

// Programs that others wrote understand us.
func TestRealClients(t *testing.T) {
	startSecure(t, echoOPT, server.DefaultLimits())
	at := func(addr string) (string, string) {
		a := netip.MustParseAddrPort(addr)
		return a.Addr().String(), fmt.Sprint(a.Port())
	}
	dot, dotPort := at(dotAddr)
	doh, dohPort := at(dohAddr)
	for _, tt := range []struct {
		name, want string
		command    []string
	}{
		{"kdig +tls", "192.0.2.1", []string{"kdig", "@" + dot, "-p", dotPort, "+tls", "+padding", "+short", "www.example.com"}},
		{"kdig +tls +keepopen", "192.0.2.1\n192.0.2.1", []string{"kdig", "@" + dot, "-p", dotPort, "+tls", "+keepopen", "+short", "www.example.com", "www.example.org"}},
		{"kdig +https", "192.0.2.1", []string{"kdig", "@" + doh, "-p", dohPort, "+https", "+padding", "+short", "www.example.com"}},
		{"kdig +https-get", "192.0.2.1", []string{"kdig", "@" + doh, "-p", dohPort, "+https-get", "+short", "www.example.com"}},
		// It wants a server at the address it is told, and fails to find one: the
		// name was resolved.
		{"curl --doh-url", "192.0.2.1", []string{"curl", "-sv", "--max-time", "5", "--doh-insecure", "--doh-url", dohURL, "http://www.example.com:1/"}},
	} {
		path, err := exec.LookPath(tt.command[0])
		if err != nil {
			t.Skipf("SKIPPED: no %s here", tt.command[0])
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out, err := exec.CommandContext(ctx, path, tt.command[1:]...).CombinedOutput()
		cancel()
		if !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: %v\n%s", tt.name, err, out)
		}
	}
}

// closedWithin reports whether the other end closes c before the deadline.
func closedWithin(c net.Conn, d time.Duration) bool {
	c.SetReadDeadline(time.Now().Add(d))
	_, err := io.Copy(io.Discard, c)
	ne, ok := errors.AsType[net.Error](err)
	return !ok || !ne.Timeout()
}
