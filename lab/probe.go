package lab

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// probeTimeout bounds one step of a probe when its context does not.
const probeTimeout = 5 * time.Second

// Seen is what a server says about a session.
type Seen struct {
	Peer  netip.AddrPort // who it is talking to
	Local netip.AddrPort // its own address in the session
	Place string         // the name of its namespace
}

// ThroughTunnel reports whether the session came out of the tunnel.
func (s Seen) ThroughTunnel() bool { return throughTunnel(s.Peer.Addr()) }

// dialer opens a connection to an address. from may be the zero AddrPort.
type dialer func(ctx context.Context, network string, from, to netip.AddrPort) (net.Conn, error)

// dialHere is the dialer of the namespace that the calling thread is in.
func dialHere(ctx context.Context, network string, from, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: probeTimeout}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
	}
	return d.DialContext(ctx, network, to.String())
}

// Dial opens a connection from the namespace. network is "tcp" or "udp"; from
// may be the zero AddrPort.
func (n *Namespace) Dial(ctx context.Context, network string, from, to netip.AddrPort) (net.Conn, error) {
	var c net.Conn
	err := n.Do(func() error {
		var err error
		c, err = dialHere(ctx, network, from, to)
		return err
	})
	return c, err
}

// Session is an open TCP session with a server of the lab. It is for one
// goroutine.
type Session struct {
	Seen Seen
	conn net.Conn
	r    *bufio.Reader
}

// Connect opens a session from the namespace.
func (n *Namespace) Connect(ctx context.Context, to netip.AddrPort) (*Session, error) {
	return dialer(n.Dial).connect(ctx, netip.AddrPort{}, to)
}

func (d dialer) connect(ctx context.Context, from, to netip.AddrPort) (*Session, error) {
	c, err := d(ctx, "tcp", from, to)
	if err != nil {
		return nil, err
	}
	s := &Session{conn: c, r: bufio.NewReader(c)}
	line, err := s.line(ctx)
	if err == nil {
		s.Seen, err = parseGreeting(line)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("talking to %s: %w", to, err)
	}
	return s, nil
}

// bound makes ctx end what c is doing; the result undoes it.
func bound(ctx context.Context, c net.Conn) (stop func()) {
	c.SetDeadline(time.Now().Add(probeTimeout))
	off := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if off() {
			c.SetDeadline(time.Time{})
		}
	}
}

func (s *Session) line(ctx context.Context) (string, error) {
	defer bound(ctx, s.conn)()
	l, err := s.r.ReadString('\n')
	return strings.TrimSuffix(l, "\n"), err
}

// Say sends one line and waits for its echo.
func (s *Session) Say(ctx context.Context, text string) error {
	stop := bound(ctx, s.conn)
	defer stop()
	if _, err := fmt.Fprintf(s.conn, "say %s\n", text); err != nil {
		return err
	}
	got, err := s.line(ctx)
	if err == nil && got != text {
		return fmt.Errorf("saying %q: heard %q", text, got)
	}
	return err
}

// Upload sends n bytes and waits until the server has them.
func (s *Session) Upload(ctx context.Context, n int64) error {
	stop := bound(ctx, s.conn)
	defer stop()
	if _, err := fmt.Fprintf(s.conn, "up %d\n", n); err != nil {
		return err
	}
	if _, err := io.CopyN(s.conn, zeros{}, n); err != nil {
		return fmt.Errorf("uploading: %w", err)
	}
	got, err := s.line(ctx)
	if want := fmt.Sprintf("got %d", n); err == nil && got != want {
		return fmt.Errorf("uploading: the server says %q", got)
	}
	return err
}

// Download receives n bytes.
func (s *Session) Download(ctx context.Context, n int64) error {
	defer bound(ctx, s.conn)()
	if _, err := fmt.Fprintf(s.conn, "down %d\n", n); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, s.r, n); err != nil {
		return fmt.Errorf("downloading: %w", err)
	}
	return nil
}

// LocalAddr returns our end of the session.
func (s *Session) LocalAddr() netip.AddrPort { return addrPort(s.conn.LocalAddr()) }

// Close ends the session, and waits up to a second for the server's end of it:
// after Close no more packets of the session are on their way.
func (s *Session) Close() error { return hangUp(s.conn) }

func hangUp(c net.Conn) error {
	under := c
	if t, ok := c.(*tls.Conn); ok {
		under = t.NetConn()
	}
	if t, ok := under.(*net.TCPConn); ok && t.CloseWrite() == nil {
		t.SetReadDeadline(time.Now().Add(time.Second))
		io.Copy(io.Discard, t)
	}
	return c.Close()
}

// Visit opens a session, and closes it.
func (n *Namespace) Visit(ctx context.Context, to netip.AddrPort) (Seen, error) {
	s, err := n.Connect(ctx, to)
	if err != nil {
		return Seen{}, err
	}
	return s.Seen, s.Close()
}

// Datagram sends one datagram to a server of the lab and waits for the answer.
func (n *Namespace) Datagram(ctx context.Context, to netip.AddrPort) (Seen, error) {
	c, err := n.Dial(ctx, "udp", netip.AddrPort{}, to)
	if err != nil {
		return Seen{}, err
	}
	defer c.Close()
	return askDatagram(ctx, c)
}

func askDatagram(ctx context.Context, c net.Conn) (Seen, error) {
	defer bound(ctx, c)()
	if _, err := c.Write([]byte("who\n")); err != nil {
		return Seen{}, err
	}
	b := make([]byte, 512)
	k, err := c.Read(b)
	if err != nil {
		return Seen{}, err
	}
	return parseGreeting(string(b[:k]))
}
