package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// webPorts are those of the servers at home and abroad; InboundPort is the one
// of the gateway, the client, the box and the far end. All speak the protocol
// below over TCP, and over UDP answer each datagram with a greeting.
var webPorts = []uint16{80, 123, 443, 1234}

// InboundPort is where the gateway, the client, the box and the far end listen.
const InboundPort = 2222

// The protocol is made of lines. The server begins:
//
//	hello PEER LOCAL PLACE     who it thinks we are, where we reached it, and its name
//
// and then answers:
//
//	say TEXT   with TEXT
//	up N       and N bytes, with "got N"
//	down N     with N bytes
type servers struct {
	mu      sync.Mutex // guards following
	closers []io.Closer
	conns   map[net.Conn]bool
	closed  bool
	running sync.WaitGroup
}

func newServers() *servers { return &servers{conns: map[net.Conn]bool{}} }

// serve listens on every address of ns.
func (s *servers) serve(ns *Namespace, ports ...uint16) error {
	return ns.Do(func() error {
		for _, p := range ports {
			// Who is silent sends nothing: a test decides what is sent.
			lc := net.ListenConfig{KeepAlive: -1}
			l, err := lc.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", p))
			if err != nil {
				return err
			}
			s.add(l)
			s.running.Go(func() { s.accept(l, ns.Name) })
			for _, network := range []string{"udp4", "udp6"} {
				c, err := net.ListenPacket(network, fmt.Sprintf(":%d", p))
				if err != nil {
					return err
				}
				s.add(c)
				if err := s.datagrams(c, network, ns.Name); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (s *servers) add(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closers = append(s.closers, c)
}

func (s *servers) accept(l net.Listener, place string) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // that connection's trouble
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			c.Close()
			return
		}
		s.conns[c] = true
		s.running.Go(func() { s.talk(c, place) })
		s.mu.Unlock()
	}
}

func (s *servers) talk(c net.Conn, place string) {
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	fmt.Fprint(c, greeting(addrPort(c.RemoteAddr()), addrPort(c.LocalAddr()), place))
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var n int64
		if verb == "up" || verb == "down" {
			if _, err := fmt.Sscan(arg, &n); err != nil {
				return
			}
		}
		switch verb {
		case "say":
			_, err = fmt.Fprintln(c, arg)
		case "up":
			if n, err = io.CopyN(io.Discard, r, n); err == nil {
				_, err = fmt.Fprintf(c, "got %d\n", n)
			}
		case "down":
			_, err = io.CopyN(c, zeros{}, n)
		default:
			return
		}
		if err != nil {
			return
		}
	}
}

// zeros is an endless source of bytes.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func greeting(peer, local netip.AddrPort, place string) string {
	return fmt.Sprintf("hello %s %s %s\n", peer, local, place)
}

func parseGreeting(line string) (Seen, error) {
	f := strings.Fields(line)
	if len(f) < 4 || f[0] != "hello" {
		return Seen{}, fmt.Errorf("reading greeting: %q", line)
	}
	peer, err := netip.ParseAddrPort(f[1])
	if err != nil {
		return Seen{}, fmt.Errorf("reading greeting: %w", err)
	}
	local, err := netip.ParseAddrPort(f[2])
	if err != nil {
		return Seen{}, fmt.Errorf("reading greeting: %w", err)
	}
	return Seen{Peer: peer, Local: local, Place: strings.Join(f[3:], " ")}, nil
}

// datagrams answers from the address that was asked, of which the host may have
// 65,536.
func (s *servers) datagrams(c net.PacketConn, network, place string) error {
	var receive func(b []byte) (from net.Addr, dst net.IP, err error)
	var reply func(b []byte, src net.IP, to net.Addr) error
	if network == "udp4" {
		p := ipv4.NewPacketConn(c)
		if err := p.SetControlMessage(ipv4.FlagDst, true); err != nil {
			return err
		}
		receive = func(b []byte) (net.Addr, net.IP, error) {
			_, cm, from, err := p.ReadFrom(b)
			if cm == nil {
				return nil, nil, err
			}
			return from, cm.Dst, err
		}
		reply = func(b []byte, src net.IP, to net.Addr) error {
			_, err := p.WriteTo(b, &ipv4.ControlMessage{Src: src}, to)
			return err
		}
	} else {
		p := ipv6.NewPacketConn(c)
		if err := p.SetControlMessage(ipv6.FlagDst, true); err != nil {
			return err
		}
		receive = func(b []byte) (net.Addr, net.IP, error) {
			_, cm, from, err := p.ReadFrom(b)
			if cm == nil {
				return nil, nil, err
			}
			return from, cm.Dst, err
		}
		reply = func(b []byte, src net.IP, to net.Addr) error {
			_, err := p.WriteTo(b, &ipv6.ControlMessage{Src: src}, to)
			return err
		}
	}
	port := addrPort(c.LocalAddr()).Port()
	s.running.Go(func() {
		b := make([]byte, 2048)
		for {
			from, dst, err := receive(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			local, ok := netip.AddrFromSlice(dst)
			if err != nil || !ok {
				continue
			}
			hello := greeting(addrPort(from), netip.AddrPortFrom(local.Unmap(), port), place)
			reply([]byte(hello), dst, from) // the asker may be gone
		}
	})
	return nil
}

func (s *servers) close() error {
	s.mu.Lock()
	s.closed = true
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
	return errors.Join(errs...)
}
