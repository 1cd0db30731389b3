package server

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// gate is a TCP listener of any transport. It gives out connections of those
// who may ask and are below their limits, and closes all others before they
// hold anything or a handshake costs anything: a stranger who wants to be told
// so asks over UDP. A connection gives its place back when it is closed.
type gate struct {
	*net.TCPListener
	server *Server
	addr   netip.AddrPort // as it was asked for
	lane   *streamLane

	mu     sync.Mutex // guards following
	closed bool
	conns  map[*gated]struct{}
}

// gated is a connection that holds one of the places.
type gated struct {
	*net.TCPConn
	gate *gate
	from netip.AddrPort
	once sync.Once
}

// newGate returns the gate of l, which it closes when it cannot.
func newGate(s *Server, addr netip.AddrPort, l *net.TCPListener, fast Lane) (*gate, error) {
	lane, err := fast.forStreams()
	if err != nil {
		l.Close()
		return nil, err
	}
	return &gate{TCPListener: l, server: s, addr: addr, lane: lane, conns: map[*gated]struct{}{}}, nil
}

// Accept waits for the next connection that is let in. Its error is
// net.ErrClosed, and nothing else.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			g.server.untilResumed()
			continue
		}
		if err != nil {
			// Out of descriptors, mostly: wait, so that this loop does not spin.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-g.server.ctx.Done():
			}
			continue
		}
		if in := g.admit(c); in != nil {
			return in, nil
		}
		c.Close()
	}
}

// serve hands each connection that is let in to each, in a goroutine of its own
// that ends before Server.Close does. It returns when g is closed.
func (g *gate) serve(each func(*gated)) {
	for {
		c, err := g.Accept()
		if err != nil {
			return
		}
		g.server.inFlight.Go(func() {
			defer c.Close()
			each(c.(*gated))
		})
	}
}

// admit returns c with a place of its own, nil when it gets none.
func (g *gate) admit(c *net.TCPConn) *gated {
	s, from := g.server, unmap(c.RemoteAddr().(*net.TCPAddr).AddrPort())
	switch {
	case !s.knows(&Client{Addr: from, Listener: g.addr}):
		s.count.refused.Add(1)
		return nil
	case !s.tcp.conns.take(from.Addr()):
		s.count.tcpRefused.Add(1)
		return nil
	}
	in := &gated{TCPConn: c, gate: g, from: from}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		s.tcp.conns.release(from.Addr())
		return nil
	}
	g.conns[in] = struct{}{}
	return in
}

// Close implements net.Conn.
func (c *gated) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() {
		c.gate.mu.Lock()
		delete(c.gate.conns, c)
		c.gate.mu.Unlock()
		c.gate.server.tcp.conns.release(c.from.Addr())
	})
	return err
}

// Close closes the listener and every connection that came through it.
func (g *gate) Close() error {
	err := g.TCPListener.Close()
	g.mu.Lock()
	g.closed = true
	var open []*gated
	for c := range g.conns {
		open = append(open, c)
	}
	g.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
	g.lane.close()
	return err
}

// client is who is at the other end of a connection to one of our addresses.
func client(c net.Conn, transport string) Client {
	local, _ := c.LocalAddr().(*net.TCPAddr)
	remote, _ := c.RemoteAddr().(*net.TCPAddr)
	if local == nil || remote == nil {
		return Client{Transport: transport}
	}
	return Client{Addr: unmap(remote.AddrPort()), Local: unmap(local.AddrPort()).Addr(), Transport: transport}
}
