package upstream_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

const messageType = "application/dns-message"

// answerHTTP is a healthy server of RFC 8484.
func answerHTTP(w http.ResponseWriter, r *http.Request) {
	query, _ := io.ReadAll(r.Body)
	if r.Method != http.MethodPost || r.URL.Path != "/dns-query" || r.Header.Get("Content-Type") != messageType || len(query) < 12 || wire.ID(query) != 0 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	sendMessage(w, reply(query, right))
}

func sendMessage(w http.ResponseWriter, msg []byte) {
	w.Header().Set("Content-Type", messageType)
	w.Write(msg)
}

// webServer is an HTTP server of one version, and what happened to it.
type webServer struct {
	addr     netip.AddrPort
	accepted *atomic.Int32
	asked    atomic.Int32
}

// serveWeb answers by HTTP/2, or HTTP/3 where the scheme is h3.
func serveWeb(t testing.TB, scheme string, settings *tls.Config, handle http.HandlerFunc) *webServer {
	t.Helper()
	s := &webServer{accepted: new(atomic.Int32)}
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		handle(w, r)
	})
	if scheme == "h3" {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.addr = pc.LocalAddr().(*net.UDPAddr).AddrPort()
		web := &http3.Server{
			Handler: counted, TLSConfig: http3.ConfigureTLSConfig(settings.Clone()),
			ConnContext: func(ctx context.Context, _ *quic.Conn) context.Context { s.accepted.Add(1); return ctx },
		}
		done := make(chan struct{})
		go func() { defer close(done); web.Serve(pc) }()
		t.Cleanup(func() { web.Close(); pc.Close(); <-done })
		return s
	}
	web := httptest.NewUnstartedServer(counted)
	web.EnableHTTP2 = true
	web.TLS = settings.Clone()
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.accepted.Add(1)
		}
	}
	web.StartTLS()
	t.Cleanup(func() { web.CloseClientConnections(); web.Close() })
	s.addr = web.Listener.Addr().(*net.TCPAddr).AddrPort()
	return s
}

func certificate(t testing.TB, ca authority) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{ca.issue(t, nil)}}
}

// named is where a server is of which the name is known.
func named(addr netip.AddrPort) *upstream.Where {
	return upstream.Named("dns.test", addr.Port(), []netip.Addr{addr.Addr()}, nil, nil)
}

func TestHTTPKeepsOneConnection(t *testing.T) {
	ca := newAuthority(t)
	for _, scheme := range []string{"https", "h3"} {
		for name, where := range map[string]func(netip.AddrPort) *upstream.Where{
			"by name": named, "by address": func(a netip.AddrPort) *upstream.Where { return upstream.At(a) },
		} {
			t.Run(scheme+" "+name, func(t *testing.T) {
				web := serveWeb(t, scheme, certificate(t, ca), answerHTTP)
				ex := newServer(t, upstream.Config{Scheme: scheme, Where: where(web.addr), Path: "/dns-query", RootCAs: ca.pool()})
				r := want(t, ex, query(asked), right)
				if got := r.Tries[0].Proto; got != scheme {
					t.Errorf("over %q", got)
				}
				var all sync.WaitGroup
				for range 20 {
					all.Go(func() { want(t, ex, query(asked), right) })
				}
				all.Wait()
				if n := web.accepted.Load(); n != 1 {
					t.Errorf("%d connections", n)
				}
			})
		}
	}
}

func TestHTTPServersThatMisbehave(t *testing.T) {
	ca := newAuthority(t)
	body := func(r *http.Request) []byte { b, _ := io.ReadAll(r.Body); return b }
	for name, tt := range map[string]struct {
		handle http.HandlerFunc
		want   string // in the error
	}{
		"wrong content type": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Write(reply(body(r), right))
		}, "something else than application/dns-message"},
		"error status": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", messageType)
			w.WriteHeader(500)
			w.Write(reply(body(r), right))
		}, "HTTP status 500"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/dns-query" {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
				return
			}
			sendMessage(w, reply(body(r), right))
		}, "HTTP status 307"},
		"oversized": {func(w http.ResponseWriter, r *http.Request) {
			sendMessage(w, append(reply(body(r), right), make([]byte, 70000)...))
		}, "longer than allowed"},
		"oversized, of unsaid length": {func(w http.ResponseWriter, r *http.Request) {
			msg := reply(body(r), right)
			w.Header().Set("Content-Type", messageType)
			for range 100 {
				w.Write(append(msg, make([]byte, 1000)...))
				w.(http.Flusher).Flush()
			}
		}, "longer than allowed"},
		"another question": {func(w http.ResponseWriter, r *http.Request) {
			sendMessage(w, reply(query("\x05other\x00").Msg, right))
		}, "does not match"},
		"garbage": {func(w http.ResponseWriter, r *http.Request) { sendMessage(w, []byte("<html>")) }, "does not match"},
		"slow": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", messageType)
			w.Write(reply(body(r), right)[:20])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "no reply in time"},
		"cut": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", messageType)
			w.Write(reply(body(r), right)[:20])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "lost"},
	} {
		for _, scheme := range []string{"https", "h3"} {
			t.Run(scheme+" "+name, func(t *testing.T) {
				web := serveWeb(t, scheme, certificate(t, ca), tt.handle)
				ex := newServer(t, upstream.Config{Scheme: scheme, Where: named(web.addr), Path: "/dns-query", RootCAs: ca.pool(), Timeouts: upstream.Timeouts{Total: 700 * time.Millisecond}})
				_, err := ex.Exchange(testContext(t), query(asked))
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("%v, want %q", err, tt.want)
				}
				if strings.Contains(err.Error(), "\n") || strings.Count(err.Error(), "127.0.0.1") > 0 {
					t.Errorf("error text %q", err)
				}
				if n := web.asked.Load(); n > 2 {
					t.Errorf("asked %d times", n)
				}
			})
		}
	}
}

// A connection that its server gives up in between is made anew, and the query
// that met it gets its answer.
func TestHTTPConnectionIsMadeAnew(t *testing.T) {
	ca := newAuthority(t)
	for name, end := range map[string]func(w http.ResponseWriter, r *http.Request){
		"GOAWAY":        func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close"); answerHTTP(w, r) },
		"cut in answer": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			web := serveWeb(t, "https", certificate(t, ca), func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) == 2 {
					end(w, r)
					return
				}
				answerHTTP(w, r)
			})
			ex := newServer(t, upstream.Config{Scheme: "https", Where: named(web.addr), Path: "/dns-query", RootCAs: ca.pool()})
			for range 4 {
				want(t, ex, query(asked), right)
			}
			if n := web.accepted.Load(); n != 2 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// quicServer is DNS over QUIC: handle gets each query and says what is sent
// back, as octets of the stream.
func quicServer(t testing.TB, settings *tls.Config, handle func(conn *quic.Conn, query []byte) []byte) (netip.AddrPort, *atomic.Int32) {
	t.Helper()
	settings = settings.Clone()
	settings.NextProtos = []string{"doq"}
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	transport := &quic.Transport{Conn: pc}
	l, err := transport.Listen(settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	accepted := new(atomic.Int32)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			accepted.Add(1)
			running.Go(func() {
				for {
					stream, err := conn.AcceptStream(context.Background())
					if err != nil {
						return
					}
					running.Go(func() {
						defer stream.Close()
						b, err := io.ReadAll(stream)
						if err == nil && len(b) > 14 {
							stream.Write(handle(conn, b[2:]))
						}
					})
				}
			})
		}
	})
	t.Cleanup(func() { transport.Close(); pc.Close(); running.Wait() })
	return l.Addr().(*net.UDPAddr).AddrPort(), accepted
}

func TestQUIC(t *testing.T) {
	ca := newAuthority(t)
	addr, accepted := quicServer(t, certificate(t, ca), func(_ *quic.Conn, q []byte) []byte {
		if wire.ID(q) != 0 {
			return nil
		}
		return frame(reply(q, right))
	})
	ex := newServer(t, upstream.Config{Scheme: "quic", Where: named(addr), RootCAs: ca.pool()})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { want(t, ex, query(asked), right) })
	}
	all.Wait()
	if n := accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestQUICServersThatMisbehave(t *testing.T) {
	ca := newAuthority(t)
	for name, tt := range map[string]struct {
		handle func(*quic.Conn, []byte) []byte
		want   string
	}{
		"another question": {func(_ *quic.Conn, q []byte) []byte { return frame(reply(query("\x05other\x00").Msg, right)) }, "does not match"},
		"short":            {func(*quic.Conn, []byte) []byte { return frame([]byte("short")) }, "5 octets"},
		"cut":              {func(_ *quic.Conn, q []byte) []byte { return frame(reply(q, right))[:20] }, "lost"},
		"oversized":        {func(_ *quic.Conn, q []byte) []byte { return frame(append(reply(q, right), make([]byte, 20000)...)) }, "longer than allowed"},
		"closed":           {func(c *quic.Conn, q []byte) []byte { c.CloseWithError(0, ""); return nil }, "lost"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := quicServer(t, certificate(t, ca), tt.handle)
			ex := newServer(t, upstream.Config{Scheme: "quic", Where: named(addr), RootCAs: ca.pool(), Timeouts: quick})
			if _, err := ex.Exchange(testContext(t), query(asked)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestQUICConnectionIsMadeAnew(t *testing.T) {
	ca := newAuthority(t)
	var n atomic.Int32
	addr, accepted := quicServer(t, certificate(t, ca), func(c *quic.Conn, q []byte) []byte {
		if n.Add(1) == 2 {
			c.CloseWithError(0, "")
			return nil
		}
		return frame(reply(q, right))
	})
	ex := newServer(t, upstream.Config{Scheme: "quic", Where: named(addr), RootCAs: ca.pool()})
	for range 3 {
		want(t, ex, query(asked), right)
	}
	if n := accepted.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// secureServer answers truthfully over any of the encrypted schemes.
func secureServer(t *testing.T, scheme string, settings *tls.Config) (addr netip.AddrPort, queries func() int) {
	switch scheme {
	case "quic":
		var n atomic.Int32
		addr, _ := quicServer(t, settings, func(_ *quic.Conn, q []byte) []byte { n.Add(1); return frame(reply(q, right)) })
		return addr, func() int { return int(n.Load()) }
	case "tls":
		var full, resumed atomic.Int32
		f := tlsServer(t, settings, &full, &resumed)
		return f.addr, func() int { return int(f.queriesTCP.Load()) }
	}
	web := serveWeb(t, scheme, settings, answerHTTP)
	return web.addr, func() int { return int(web.asked.Load()) }
}

// (SECURITY S-18)
func TestEveryEncryptedSchemeRefusesImpostors(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	otherName := func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = []string{"other.test"}, []net.IP{net.IPv4(127, 0, 0, 2)}
	}
	for _, scheme := range []string{"tls", "https", "h3", "quic"} {
		for name, cert := range map[string]tls.Certificate{
			"unknown authority": stranger.issue(t, nil),
			"wrong name":        ca.issue(t, otherName),
		} {
			t.Run(scheme+" "+name, func(t *testing.T) {
				addr, queries := secureServer(t, scheme, &tls.Config{Certificates: []tls.Certificate{cert}})
				ex := newServer(t, upstream.Config{Scheme: scheme, Where: named(addr), Path: "/dns-query", RootCAs: ca.pool(), Timeouts: quick})
				_, err := ex.Exchange(testContext(t), query(asked))
				if err == nil || !strings.Contains(err.Error(), "certificate") {
					t.Errorf("%v", err)
				}
				if n := queries(); n != 0 {
					t.Errorf("%d queries reached it", n)
				}
			})
		}
	}
}

// A pinned key is the server's, whoever vouches for it; any other is not,
// whoever does.
func TestPins(t *testing.T) {
	ca := newAuthority(t)
	cert := newAuthority(t).issue(t, nil)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pin := upstream.Pin(sha256.Sum256(leaf.RawSubjectPublicKeyInfo))
	for _, scheme := range []string{"tls", "https", "h3", "quic"} {
		t.Run(scheme, func(t *testing.T) {
			addr, _ := secureServer(t, scheme, &tls.Config{Certificates: []tls.Certificate{cert}})
			ex := newServer(t, upstream.Config{Scheme: scheme, Where: named(addr), Path: "/dns-query", Pins: []upstream.Pin{{1}, pin}})
			for range 4 { // the resumed session too
				want(t, ex, query(asked), right)
			}
			addr, queries := secureServer(t, scheme, certificate(t, ca))
			ex = newServer(t, upstream.Config{Scheme: scheme, Where: named(addr), Path: "/dns-query", Pins: []upstream.Pin{pin}, RootCAs: ca.pool(), Timeouts: quick})
			if _, err := ex.Exchange(testContext(t), query(asked)); err == nil || !strings.Contains(err.Error(), "pinned") {
				t.Errorf("%v", err)
			}
			if n := queries(); n != 0 {
				t.Errorf("%d queries reached it", n)
			}
		})
	}
}
