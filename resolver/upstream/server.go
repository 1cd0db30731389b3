package upstream

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"smartdns/resolver/wire"
)

// Config describes one server.
type Config struct {
	// Scheme is "udp", "tcp", "tls" (RFC 7858), "https" (RFC 8484), "h3" (the
	// same over HTTP/3) or "quic" (RFC 9250).
	Scheme     string
	Where      *Where // where it listens
	Path       string // of https and h3, as it stands in a URL: "/dns-query"
	ServerName string // the name its certificate must show; "": the name or the address that Where was made of
	Pins       []Pin  // of the keys it may have, instead of a certificate that somebody vouches for
	Text       string // its URL as the config file writes it
	Dial       Dial   // opens connections on the server's path
	// Spoofable says that somebody between here and the server could forge
	// UDP replies: the name's case is randomised, and bad or suspicious
	// replies are held while a better one may come.
	Spoofable bool
	Timeouts  Timeouts
	RootCAs   *x509.CertPool // nil: the system's
	// Now says what time it is for certificates; nil: the system's clock.
	Now    func() time.Time
	Logger *slog.Logger // nil: silent; learns when the server goes down and comes back
}

// Timeouts are a server's time limits; zero fields take the defaults.
type Timeouts struct {
	Try    time.Duration // until a UDP query is sent again, and TCP tried too; 800 ms
	Total  time.Duration // of one exchange; 5 s
	Stream time.Duration // of connecting, and of TCP after UDP; 2 s
	Hold   time.Duration // of an error reply that could be forged; 200 ms
	Idle   time.Duration // until an unused connection is closed; 10 s, encrypted 30 s
}

func (t Timeouts) withDefaults(scheme string) Timeouts {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&t.Try, 800*time.Millisecond)
	set(&t.Total, 5*time.Second)
	set(&t.Stream, 2*time.Second)
	set(&t.Hold, 200*time.Millisecond)
	if scheme != "udp" && scheme != "tcp" {
		set(&t.Idle, 30*time.Second)
	}
	set(&t.Idle, 10*time.Second)
	return t
}

// New returns an Exchanger for one server. It opens nothing: connections are
// made when a query needs one and close themselves when unused, so an
// Exchanger needs no closing. An encrypted protocol is never replaced by
// anything less.
func New(c Config) (Exchanger, error) {
	switch {
	case c.Where == nil || c.Where.lookup == nil && len(c.Where.addrs) == 0:
		return nil, fmt.Errorf("upstream %s: no address", c.Text)
	case slices.ContainsFunc(c.Where.addrs, func(a netip.AddrPort) bool { return !a.IsValid() || a.Port() == 0 }):
		return nil, fmt.Errorf("upstream %s: an address has no port", c.Text)
	case c.Dial == nil:
		return nil, fmt.Errorf("upstream %s: no way to dial", c.Text)
	}
	if c.Text == "" {
		c.Text = c.Scheme + "://" + net.JoinHostPort(c.authority(), strconv.Itoa(int(c.Where.port)))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Timeouts = c.Timeouts.withDefaults(c.Scheme)
	s := &server{config: c, health: newHealth(c.Text, c.Scheme, c.Logger)}
	switch c.Scheme {
	case "udp":
		return newUDP(s), nil
	case "tcp", "tls":
		return &keptServer{s, newPool(&s.config)}, nil
	case "https":
		return &keptServer{s, newHTTPS(&s.config)}, nil
	case "h3":
		return &keptServer{s, newHTTP3(&s.config)}, nil
	case "quic":
		return &keptServer{s, newQUIC(&s.config)}, nil
	}
	return nil, fmt.Errorf("upstream %s: scheme %q is none of udp, tcp, tls, https, h3, quic", c.Text, c.Scheme)
}

// server is what all kinds of servers have in common.
type server struct {
	config Config
	health *health
}

func (s *server) String() string { return s.config.Text }

func (s *server) report() []Status {
	status := s.health.status()
	for _, a := range s.config.Where.Known() {
		status.Addrs = append(status.Addrs, a.Addr())
	}
	return []Status{status}
}

// enoughToBlame is how long a server may stay silent before giving up on it
// says something about the server rather than about who gave up: until a packet
// was sent three times and a connection not made. One that was lost is no
// server's fault.
const enoughToBlame = 2 * time.Second

// settle notes the outcome of an exchange in the server's health.
func (s *server) settle(ctx context.Context, start time.Time, reply *Reply, err error) {
	took := time.Since(start)
	switch {
	case err == nil:
		s.health.replied(took, isError(wire.RCode(reply.Msg)))
	case ctx.Err() == nil || took >= enoughToBlame:
		s.health.failed(err)
	}
}

var errNoQuestion = errors.New("query has no question")

// isError reports whether rcode says that the server could not or would not
// answer, as opposed to what the answer is. Any server may say it of any
// name, and so may a forger who knows no answer.
func isError(rcode uint16) bool {
	return rcode != wire.NoError && rcode != wire.NXDomain
}

// randomID returns an ID nobody can guess.
func randomID() uint16 {
	var b [2]byte
	rand.Read(b[:])
	return uint16(b[0])<<8 | uint16(b[1])
}
