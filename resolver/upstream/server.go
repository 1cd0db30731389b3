package upstream

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"smartdns/resolver/wire"
)

// Config describes one server.
type Config struct {
	Scheme     string         // "udp", "tcp" or "tls" (RFC 7858)
	Addr       netip.AddrPort // where it listens
	ServerName string         // the name its certificate must show; "": Addr's IP address
	Text       string         // its URL as the config file writes it
	Dial       Dial           // opens connections on the server's path
	// Spoofable says that somebody between here and the server could forge
	// UDP replies: the name's case is randomised, and bad or suspicious
	// replies are held while a better one may come.
	Spoofable bool
	Timeouts  Timeouts
	RootCAs   *x509.CertPool // nil: the system's
	Logger    *slog.Logger   // nil: silent; learns when the server goes down and comes back
}

// Timeouts are a server's time limits; zero fields take the defaults.
type Timeouts struct {
	Try    time.Duration // until a UDP query is sent again, and TCP tried too; 800 ms
	Total  time.Duration // of one exchange; 5 s
	Stream time.Duration // of connecting, and of TCP after UDP; 2 s
	Hold   time.Duration // of an error reply that could be forged; 200 ms
	Idle   time.Duration // until an unused connection is closed; 10 s, TLS 30 s
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
	if scheme == "tls" {
		set(&t.Idle, 30*time.Second)
	}
	set(&t.Idle, 10*time.Second)
	return t
}

// New returns an Exchanger for one server. It opens nothing: connections are
// made when a query needs one and close themselves when unused, so an
// Exchanger needs no closing. TLS is never replaced by anything less.
func New(c Config) (Exchanger, error) {
	switch {
	case !c.Addr.IsValid() || c.Addr.Port() == 0:
		return nil, fmt.Errorf("upstream %s: address %s has no port", c.Text, c.Addr)
	case c.Dial == nil:
		return nil, fmt.Errorf("upstream %s: no way to dial", c.Text)
	}
	if c.Text == "" {
		c.Text = c.Scheme + "://" + c.Addr.String()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Timeouts = c.Timeouts.withDefaults(c.Scheme)
	s := &server{config: c, health: newHealth(c.Text, c.Logger), pool: newPool(c)}
	switch c.Scheme {
	case "udp":
		return &udpServer{server: s}, nil
	case "tcp", "tls":
		return &streamServer{server: s}, nil
	}
	return nil, fmt.Errorf("upstream %s: scheme %q is none of udp, tcp, tls", c.Text, c.Scheme)
}

// server is what all kinds of servers have in common.
type server struct {
	config Config
	health *health
	pool   *pool
}

func (s *server) String() string   { return s.config.Text }
func (s *server) report() []Status { return []Status{s.health.status()} }

// enoughToBlame is how long a server may stay silent before giving up on it
// says something about the server rather than about who gave up.
const enoughToBlame = 500 * time.Millisecond

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

// dialer returns how the server's streams are opened.
func dialer(c Config) func(context.Context) (net.Conn, error) {
	dial := func(ctx context.Context) (net.Conn, error) {
		return c.Dial(ctx, "tcp", c.Addr.String())
	}
	if c.Scheme != "tls" {
		return dial
	}
	settings := &tls.Config{
		ServerName:         c.ServerName,
		MinVersion:         tls.VersionTLS12,
		RootCAs:            c.RootCAs,
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
	if settings.ServerName == "" {
		settings.ServerName = c.Addr.Addr().Unmap().WithZone("").String()
	}
	return func(ctx context.Context) (net.Conn, error) {
		raw, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, settings)
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("agreeing on tls: %w", err)
		}
		return conn, nil
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
