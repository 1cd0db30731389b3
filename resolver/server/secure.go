package server

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The transports, as Client and the story of a query name them.
const (
	UDP   = "udp"
	TCP   = "tcp"
	TLS   = "tls"   // DNS over TLS (RFC 7858)
	HTTPS = "https" // DNS over HTTPS (RFC 8484)
)

// A Certificate returns what a client is shown. It is called for each
// handshake, from many goroutines.
type Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// Secure is where encrypted queries are taken. An address is in one of the
// lists only.
type Secure struct {
	TLS, HTTPS  []netip.AddrPort
	Certificate Certificate
}

// secureSet holds the listeners of the encrypted transports.
type secureSet struct {
	rooms  sync.Pool  // of *[answerRoom]byte, for answers over HTTPS
	mu     sync.Mutex // guards following
	shown  Certificate
	open   map[secureKey]*secureListener
	closed bool
}

type secureKey struct {
	addr      netip.AddrPort
	transport string
}

// secureListener is one address of one encrypted transport.
type secureListener struct {
	gate   *gate
	serve  func()
	stop   func()
	served chan struct{} // closed when serve has returned

	handlers sync.WaitGroup // of HTTPS
	mu       sync.Mutex     // guards following
	closed   bool
}

// ListenSecure makes want what is served over encrypted transports, as Listen
// does for the plain ones, and its Certificate that of the next handshakes.
func (s *Server) ListenSecure(want Secure) error {
	keys := map[secureKey]bool{}
	for _, a := range want.TLS {
		keys[secureKey{a, TLS}] = true
	}
	for _, a := range want.HTTPS {
		keys[secureKey{a, HTTPS}] = true
	}
	set := &s.secure
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.closed {
		return errors.New("listening: the server is closed")
	}
	set.shown = want.Certificate
	if set.open == nil {
		set.open = map[secureKey]*secureListener{}
	}
	for k, l := range set.open {
		if !keys[k] {
			l.close()
			delete(set.open, k)
		}
	}
	var errs []error
	for k := range keys {
		if set.open[k] != nil {
			continue
		}
		l, err := s.openSecure(k)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		set.open[k] = l
	}
	return errors.Join(errs...)
}

// SecureAddrs returns where encrypted queries are taken, sorted.
func (s *Server) SecureAddrs() Secure {
	set := &s.secure
	set.mu.Lock()
	defer set.mu.Unlock()
	var all Secure
	for k := range set.open {
		if k.transport == TLS {
			all.TLS = append(all.TLS, k.addr)
		} else {
			all.HTTPS = append(all.HTTPS, k.addr)
		}
	}
	slices.SortFunc(all.TLS, netip.AddrPort.Compare)
	slices.SortFunc(all.HTTPS, netip.AddrPort.Compare)
	return all
}

func (set *secureSet) close() {
	set.mu.Lock()
	defer set.mu.Unlock()
	set.closed = true
	for k, l := range set.open {
		l.close()
		delete(set.open, k)
	}
}

func (set *secureSet) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	set.mu.Lock()
	get := set.shown
	set.mu.Unlock()
	if get == nil {
		return nil, errors.New("there is no certificate")
	}
	return get(hello)
}

func (s *Server) openSecure(k secureKey) (*secureListener, error) {
	s.mu.Lock()
	tl, err := s.listenTCP(k.addr, k.addr.String())
	lane := s.lane
	s.mu.Unlock()
	if err != nil {
		return nil, listenError(k.addr, "tcp", err)
	}
	l := &secureListener{served: make(chan struct{})}
	if l.gate, err = newGate(s, k.addr, tl, lane); err != nil {
		return nil, listenError(k.addr, "tcp", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.secure.certificate}
	if k.transport == TLS {
		config.NextProtos = []string{"dot"}
		l.serve, l.stop = func() { s.serveTLS(l.gate, config) }, func() {}
	} else {
		config.NextProtos = []string{"h2", "http/1.1"}
		h := s.httpServer(l)
		l.serve = func() { _ = h.Serve(tls.NewListener(l.gate, config)) } // ends with Close alone
		l.stop = func() { h.Close() }
	}
	go func() {
		defer close(l.served)
		l.serve()
	}()
	return l, nil
}

// enter counts a handler in; it reports false when the listener is closed
// already. Each one that is in leaves by handlers.Done.
func (l *secureListener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.handlers.Add(1)
	return true
}

func (l *secureListener) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.gate.Close()
	l.stop()
	<-l.served
	l.handlers.Wait()
}

// serveTLS hands each connection that finishes its handshake in time to the
// same code that serves plain TCP.
func (s *Server) serveTLS(g *gate, config *tls.Config) {
	g.serve(func(c *gated) {
		tc := tls.Server(c, config)
		defer tc.Close() // says goodbye, where the other end still listens
		_ = c.SetDeadline(time.Now().Add(s.limits.TCPFirst))
		if tc.HandshakeContext(s.ctx) != nil {
			return
		}
		_ = c.SetDeadline(time.Time{})
		from := client(c, TLS)
		from.Listener = g.addr
		s.serveConn(tc, from, g.lane)
	})
}
