// Package server receives queries and sends answers: it is the only place that
// reads DNS sockets of clients.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"smartdns/resolver/cache"
	"smartdns/resolver/wire"
	"smartdns/resolver/work"
)

// Handler answers queries that the accept function let in.
type Handler interface {
	// Answer appends the packed reply to q to dst, or returns nil to stay silent.
	// It may keep neither dst nor q nor what q aliases.
	Answer(ctx context.Context, dst []byte, q wire.Query, from Client) []byte
}

// Client is who asks, and how.
type Client struct {
	Addr      netip.AddrPort // as an Access gets it
	Local     netip.Addr     // the address that was asked
	Listener  netip.AddrPort // that took the query
	Transport string         // UDP, TCP, TLS or HTTPS
	View      cache.View     // what the accept function found
}

// Limits bound what clients can make us hold (SECURITY 6.2).
type Limits struct {
	InFlight       int           // queries being answered at once, over all transports
	PerClient      int           // of one address, over all connections
	TCPConns       int           // connections in total, encrypted or not
	TCPPerClient   int           // connections of one address
	TCPFirst       time.Duration // for the first query of a connection
	TCPIdle        time.Duration // between queries
	TCPWrite       time.Duration // for a client to take an answer
	TCPConcurrent  int           // queries of one connection answered at once
	TCPPerLifetime int           // queries of one connection until it is closed
	Resolve        time.Duration // for one answer
}

// DefaultLimits are the limits of a home gateway.
func DefaultLimits() Limits {
	return Limits{
		InFlight: 4096, PerClient: 200, TCPConns: 256, TCPPerClient: 20, TCPFirst: 2 * time.Second, TCPIdle: 10 * time.Second,
		TCPWrite: 3 * time.Second, TCPConcurrent: 10, TCPPerLifetime: 1000, Resolve: 6 * time.Second,
	}
}

// Stats counts what the listeners did.
type Stats struct {
	UDP, TCP   uint64 // queries accepted
	Sealed     uint64 // of those over any transport, answered by the fast lane
	Receives   uint64 // system calls that took queries over UDP
	Sends      uint64 // system calls that sent answers of the fast lane
	TLS, HTTPS uint64 // of the encrypted transports
	Refused    uint64 // not on the access list
	Rejected   uint64 // malformed, or something we do not do
	Dropped    uint64 // not a query at all, or over a limit
	Panics     uint64 // answers lost to a bug
	TCPRefused uint64 // connections over a limit
}

type counters struct {
	tcp, tls, https, sealed, refused, rejected, dropped, panics, tcpRefused atomic.Uint64 // sealed: but for those over UDP
}

// inFlight is the queries that the handler answers.
type inFlight struct {
	sync.WaitGroup                // over connections, and these themselves
	udp            sync.WaitGroup // grows only while the sockets are read
	slots          chan struct{}  // one for each
	ends           *work.Deadlines
	crew           work.Crew // for those over UDP
}

// Server listens on a changing set of addresses. Its methods are safe for
// concurrent use.
type Server struct {
	handler Handler
	limits  Limits
	log     *slog.Logger

	access   atomic.Pointer[Access]
	tcp      streamLimits
	count    counters
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	inFlight inFlight

	mu   sync.Mutex // guards following
	lane Lane
	plainSet
	udp    udpState
	secure secureSet
}

// plainSet is the listeners without encryption, and what those of all transports
// take over.
type plainSet struct {
	listeners map[netip.AddrPort]*listener
	given     []Socket
	paused    atomic.Pointer[chan struct{}] // closed by Resume; nil: not paused; needs no lock
}

// New returns a Server that listens nowhere and serves nobody yet.
func New(h Handler, l Limits, log *slog.Logger) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		handler: h, limits: l, log: log,
		inFlight: inFlight{slots: make(chan struct{}, l.InFlight), ends: work.NewDeadlines(ctx, l.Resolve)}, tcp: newStreamLimits(l),
		ctx: ctx, cancel: cancel,
	}
	s.listeners = map[netip.AddrPort]*listener{}
	s.lane.Sealed = cache.NewSealed(0, &cache.Generation{})
	s.udp.packets = newPackets()
	s.secure.rooms.New = func() any { return new([answerRoom]byte) }
	s.Allow(nil)
	return s
}

// A ListenError is an address on which we could not listen.
type ListenError struct {
	Addr   netip.AddrPort
	Holder string // who has it, when somebody does and it can be seen
	Err    error
}

func (e *ListenError) Error() string {
	if e.Holder != "" {
		return fmt.Sprintf("listening on %s: %s has it", e.Addr, e.Holder)
	}
	return fmt.Sprintf("listening on %s: %v", e.Addr, e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }

// Listen makes addrs the addresses that are served, over UDP and TCP: it opens
// those that are new, closes those that are gone and leaves the others as they
// are. It opens what it can and returns one ListenError, joined, for each address
// that it could not open.
func (s *Server) Listen(addrs []netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return errors.New("listening: the server is closed")
	}
	for a, l := range s.listeners {
		if !slices.Contains(addrs, a) {
			s.close(l)
		}
	}
	var errs []error
	for _, a := range addrs {
		if s.listeners[a] != nil {
			continue
		}
		l, err := s.open(a)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.listeners[a] = l
	}
	return errors.Join(errs...)
}

// Addrs returns the addresses that are served, sorted.
func (s *Server) Addrs() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	var addrs []netip.AddrPort
	for a := range s.listeners {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	return addrs
}

// Stats returns the counts since New.
func (s *Server) Stats() Stats {
	c := &s.count
	s.mu.Lock()
	udp := s.udp.gone
	for _, l := range s.listeners {
		udp.add(l)
	}
	s.mu.Unlock()
	return Stats{
		UDP: udp.sealed + udp.resolved, Sealed: udp.sealed + c.sealed.Load(), Receives: udp.receives, Sends: udp.sends,
		TCP: c.tcp.Load(), TLS: c.tls.Load(), HTTPS: c.https.Load(), TCPRefused: c.tcpRefused.Load(),
		Refused: c.refused.Load(), Rejected: c.rejected.Load(), Dropped: c.dropped.Load(), Panics: c.panics.Load(),
	}
}

// Close stops listening, abandons what is in flight and waits for it.
func (s *Server) Close() {
	s.cancel()
	s.mu.Lock()
	for _, l := range s.listeners {
		s.close(l)
	}
	s.mu.Unlock()
	s.CloseUnwanted()
	s.secure.close()
	s.inFlight.Wait()
	s.inFlight.udp.Wait()
	s.inFlight.crew.Close()
}

// close closes a listener. Its caller holds mu.
func (s *Server) close(l *listener) {
	l.close()
	s.udp.gone.add(l)
	delete(s.listeners, l.addr)
}

// RFC 8914 section 4.19.
const edeProhibited = 18

// accept decides what becomes of a message before anything in it is unpacked.
// It is the one door of every transport. When the message is not to be
// answered by the handler, ok is false and reply, unless empty, is what to
// send. Otherwise it has filled in from.View.
func (s *Server) accept(dst, msg []byte, from *Client) (q wire.Query, reply []byte, ok bool) {
	q, action, rcode := wire.ParseQuery(msg)
	switch {
	case action == wire.Drop:
		s.count.dropped.Add(1)
		return q, nil, false
	case !s.knows(from):
		s.count.refused.Add(1)
		return q, wire.AppendError(dst, q, wire.Refused, edeProhibited, "not on the access list"), false
	case action == wire.Reply:
		s.count.rejected.Add(1)
		return q, wire.AppendError(dst, q, rcode, -1, ""), false
	}
	return q, nil, true
}

// answer appends to dst what the handler says; a panic in it costs one answer, not the process.
func (s *Server) answer(dst []byte, q wire.Query, from Client) (reply []byte) {
	defer func() {
		if r := recover(); r != nil {
			s.count.panics.Add(1)
			s.log.Error("a bug lost an answer", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			reply = wire.AppendError(nil, q, wire.ServFail, 0, "a bug lost this answer; the log has it")
		}
	}()
	return s.handler.Answer(s.inFlight.ends.Context(), dst, q, from)
}

// take reserves one of the in-flight slots; it reports whether there was one.
func (s *Server) take() bool {
	select {
	case s.inFlight.slots <- struct{}{}:
		return true
	default:
		s.count.dropped.Add(1)
		return false
	}
}

func (s *Server) release() { <-s.inFlight.slots }
