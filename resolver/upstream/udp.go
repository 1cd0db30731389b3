package upstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/resolver/wire"
)

// maxCaseErrors is how many replies in another case than asked show that a
// server does not keep it.
const maxCaseErrors = 3

var (
	errNoReply = errors.New("no reply in time")
	longAgo    = time.Unix(1, 0) // a deadline that ends a Read at once
)

// udpServer is a server asked over UDP, and over TCP where UDP does not do.
type udpServer struct {
	*server
	pool      *pool          // for TCP
	fresh     *freshSockets  // for queries that have a port of their own
	shared    *sharedSockets // nil: each query has one
	exchanges sync.Pool      // of *exchange, that are over
	caseError atomic.Int32   // replies in another case, in a row
}

func newUDP(s *server) *udpServer {
	c := &s.config
	u := &udpServer{server: s, pool: newPool(c), fresh: &freshSockets{dial: c.Dial, spoofable: c.Spoofable, idle: c.Timeouts.Idle}}
	if !c.Spoofable {
		u.shared = newShared(c)
	}
	u.exchanges.New = func() any { return &exchange{server: u, desk: new(desk)} }
	return u
}

// keepsCase reports whether the name's case is randomised for this server.
func (s *udpServer) keepsCase() bool {
	return s.config.Spoofable && s.caseError.Load() < maxCaseErrors
}

func (s *udpServer) Exchange(ctx context.Context, q Query) (Reply, error) {
	if wire.Question(q.Msg) == nil {
		return Reply{}, errNoQuestion
	}
	start := time.Now()
	s.health.asked(start)
	x := s.exchanges.Get().(*exchange)
	x.begin(ctx, q, start)
	reply, err := x.run(ctx)
	if err != nil && x.addr.IsValid() {
		s.config.Where.failed(ctx, x.addr)
	}
	s.settle(ctx, start, &reply, err)
	if x.over() {
		s.exchanges.Put(x)
	}
	return reply, err
}

// rank orders what came back, worst first.
type rank uint8

const (
	nothing     rank = iota
	unreachable      // an ICMP error, which anybody can send
	cut              // a truncated reply
	bareError        // an error code without our question
	errorCode        // an error code
	suspicious       // what Query.Suspect says looks forged
	good
)

// watchAfter is how long an exchange may take before it watches for the end of
// its context: most end sooner.
const watchAfter = 100 * time.Millisecond

// exchange is one query to one server. It runs in the goroutine of its caller
// but for TCP, which wakes it through the socket's read deadline.
type exchange struct {
	server *udpServer
	*desk
	query  Query
	trip   trip
	start  time.Time
	end    time.Time      // at which it gives up
	addr   netip.AddrPort // of the server, that is asked
	conn   socket
	resend time.Time
	best   candidate
	tcp    overTCP
	stop   func() bool // ends the watch for the end of its context; nil: there is none yet
}

// desk is what an exchange writes on.
type desk struct {
	sent  []byte // as on the wire: our ID, our case
	exact bool   // a reply must repeat the case
	notes []string
	spent spending // where nobody else counts
	buf   [wire.MaxUDP + 1]byte
}

// begin makes x the exchange of q.
func (x *exchange) begin(ctx context.Context, q Query, start time.Time) {
	d := x.desk
	d.sent, d.exact, d.notes = append(d.sent[:0], q.Msg...), false, nil
	*x = exchange{server: x.server, desk: d, query: q, start: start, end: start.Add(x.server.config.Timeouts.Total)}
	if t, ok := ctx.Value(tripKey{}).(trip); ok {
		x.trip = t
		return
	}
	d.spent.reset(q.Purse)
	x.trip.spent = &d.spent
}

// over reports whether nobody has to do with x any more.
func (x *exchange) over() bool { return !x.tcp.asked && (x.stop == nil || x.stop()) }

// candidate is the best reply so far, returned at until if no better one
// comes.
type candidate struct {
	rank  rank
	msg   []byte
	err   error
	until time.Time
}

// overTCP is the same query on its way over TCP.
type overTCP struct {
	asked  bool
	start  time.Time
	done   chan Reply // of one Try
	cancel context.CancelFunc
	failed *Try
}

func (x *exchange) run(ctx context.Context) (Reply, error) {
	if err := x.open(ctx); err != nil {
		return x.fail(err)
	}
	defer x.close()
	if err := x.send(ctx, x.sent); err != nil {
		return x.fail(err)
	}
	for {
		// The deadline is set before the two things that may have moved it
		// into the past are looked at, so that neither is missed.
		x.conn.SetReadDeadline(x.alarm())
		select {
		case r := <-x.tcp.done:
			if x.tookTCP(r) {
				return x.finishTCP(r)
			}
			continue
		default:
		}
		if ctx.Err() != nil {
			return x.giveUp(context.Cause(ctx))
		}
		if !time.Now().Before(x.end) {
			return x.giveUp(errNoReply)
		}
		n, err := x.conn.Read(x.buf[:])
		switch {
		case err == nil:
			x.received(ctx, x.buf[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
			x.tick(ctx)
		case errors.Is(err, errFragments):
			x.offer(cut, nil, err)
			x.askTCP(ctx, "reply in fragments, asked over tcp")
		case errors.Is(err, net.ErrClosed):
			return x.giveUp(err)
		default:
			x.offer(unreachable, nil, plain(err))
			x.askTCP(ctx, "")
		}
		if x.decided() {
			return x.finish()
		}
	}
}

func (x *exchange) close() {
	x.conn.Close()
	if x.tcp.asked {
		x.tcp.cancel()
	}
}

// wake ends a Read, for somebody else's news. It may come when the socket has
// gone on to another query, which then looks once more for nothing.
func (x *exchange) wake() { x.conn.SetReadDeadline(longAgo) }

// alarm returns when to stop reading and do something.
func (x *exchange) alarm() time.Time {
	first := x.end
	for _, at := range [...]time.Time{x.resend, x.best.until} {
		if !at.IsZero() && at.Before(first) {
			first = at
		}
	}
	if watch := x.start.Add(watchAfter); x.stop == nil && watch.Before(first) {
		return watch
	}
	return first
}

// open makes the message, and the socket. That has a new port wherever somebody
// could forge a reply, chosen by the kernel at random. It is connected, so it
// takes replies from the right address and port only (RFC 5452 section 9.2).
func (x *exchange) open(ctx context.Context) error {
	c := &x.server.config
	addrs, err := c.Where.addresses(ctx)
	if err != nil {
		return err
	}
	x.addr = addrs[0]
	if x.server.shared != nil {
		t, err := x.server.shared.seat(ctx, x.addr)
		if err != nil {
			return err
		}
		if t != nil {
			x.conn = t
			wire.SetID(x.sent, t.id)
			return nil
		}
	}
	if x.conn, err = x.server.fresh.take(ctx, x.addr); err != nil {
		return err
	}
	var random [2 + 32]byte
	rand.Read(random[:])
	copy(x.sent, random[:2])
	if x.exact = x.server.keepsCase(); x.exact {
		q := wire.Question(x.sent)
		wire.Randomize0x20(q[:len(q)-4], random[2:])
	}
	return nil
}

// ignoreForgedMTU makes the kernel ignore path MTUs on this socket: a forged
// one would have it send fragments, which can be replaced. Where it cannot be
// set, the 1232 octets asked for are protection enough.
func ignoreForgedMTU(conn net.Conn, v4 bool) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		if v4 {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
		} else {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
		}
	})
}

// send sends msg and sets when to do so again. That happens on the same socket
// and under the same ID: a second ID would give a forger two to hit.
func (x *exchange) send(ctx context.Context, msg []byte) error {
	x.resend = time.Now().Add(x.server.config.Timeouts.Try)
	if !x.trip.packet() {
		x.resend = time.Time{}
		return errSpent
	}
	// Whoever is about to send does so right after us: packets that come
	// together wake the other side once, which costs more than to send one.
	runtime.Gosched()
	_, err := x.conn.Write(msg)
	if errors.Is(err, syscall.ECONNREFUSED) {
		// The kernel reports an ICMP error that came before; this packet was
		// not sent.
		x.offer(unreachable, nil, plain(err))
		x.askTCP(ctx, "")
		return nil
	}
	if err != nil {
		return fmt.Errorf("sending: %w", plain(err))
	}
	return nil
}

// received judges one datagram. What does not answer our question is dropped:
// the right reply may be behind it.
func (x *exchange) received(ctx context.Context, msg []byte) {
	switch wire.MatchReply(x.sent, msg) {
	case wire.WrongID:
		if !x.tcp.asked {
			x.server.health.suspect()
			x.askTCP(ctx, "wrong ID, asked over tcp")
		}
		return
	case wire.CaseDiffers:
		if x.exact && x.server.caseError.Add(1) < maxCaseErrors {
			x.askTCP(ctx, "case of the name changed, asked over tcp")
			return
		}
		x.exact = false
	case wire.NoMatch:
		if wire.BareError(x.sent, msg) {
			x.refused(ctx, bareError, msg)
		}
		return
	}
	if wire.Truncated(msg) || len(msg) > wire.MaxUDP {
		x.offer(cut, nil, errTruncated)
		x.askTCP(ctx, "truncated, asked over tcp")
		return
	}
	if wire.CheckReply(msg) != nil {
		return
	}
	if x.exact {
		x.server.caseError.Store(0)
	}
	switch {
	case isError(wire.RCode(msg)):
		x.refused(ctx, errorCode, msg)
	case x.query.Suspect != nil && x.query.Suspect(x.server.config.Text, msg):
		x.offer(suspicious, msg, nil)
	default:
		x.offer(good, msg, nil)
	}
}

// refused takes an error code. A server that knows no EDNS says FORMERR, so
// the query is sent again without OPT, once; the reply to the first one may
// still come.
func (x *exchange) refused(ctx context.Context, r rank, msg []byte) {
	first := x.best.rank < bareError
	x.offer(r, msg, fmt.Errorf("%w %d", errBare, wire.RCode(msg)))
	if !first || wire.RCode(msg) != wire.FormErr || !wire.HasOPT(x.sent) {
		return
	}
	x.notes = append(x.notes, "FORMERR to EDNS, asked without")
	x.sent = wire.AppendWithoutOPT(nil, x.sent)
	if x.send(ctx, x.sent) == nil {
		x.best.until = time.Now().Add(x.server.config.Timeouts.Try)
	}
}

// offer keeps what came if it is better than what is there, and sets how long
// to wait for better still.
func (x *exchange) offer(r rank, msg []byte, err error) {
	refusal := r == bareError || r == errorCode
	if refusal || r == unreachable {
		x.trip.stuck()
	}
	until := time.Now().Add(x.hold(r))
	switch {
	case r > x.best.rank:
		x.best = candidate{rank: r, msg: bytes.Clone(msg), err: err, until: until}
	case refusal && until.Before(x.best.until):
		// The second refusal answers the query without OPT.
		x.best.until = until
	}
}

// hold returns how long to listen on after a reply of rank r.
func (x *exchange) hold(r rank) time.Duration {
	c := &x.server.config
	switch {
	case r <= cut && c.Spoofable:
		// Anybody can send an ICMP error, and a forger who has no answer a
		// truncated one; the group goes on without waiting for us.
		return c.Timeouts.Try
	case r < errorCode:
		return c.Timeouts.Hold
	case r == good || !c.Spoofable:
		return 0
	case r == errorCode:
		return max(c.Timeouts.Hold, x.query.Hold)
	}
	return x.query.Hold
}

// tick does what is due.
func (x *exchange) tick(ctx context.Context) {
	if x.stop == nil {
		x.stop = context.AfterFunc(ctx, x.wake)
	}
	if x.resend.IsZero() || time.Now().Before(x.resend) {
		return
	}
	x.trip.stuck()
	if t, ok := x.conn.(*seat); ok {
		t.retire()
	}
	if x.best.rank < bareError {
		x.askTCP(ctx, "no reply, asked over tcp too")
	}
	if err := x.send(ctx, x.sent); err != nil && !errors.Is(err, errSpent) {
		x.offer(unreachable, nil, err)
	}
}

// decided reports whether the best reply is to be returned.
func (x *exchange) decided() bool {
	switch {
	case x.best.rank == good:
		return true
	case x.best.rank == nothing || time.Now().Before(x.best.until):
		return false
	case x.best.rank >= errorCode:
		return true
	}
	// Nothing usable came over UDP. TCP, where it was asked, decides.
	if x.tcp.asked && x.tcp.failed == nil {
		x.best.until = time.Time{}
		return false
	}
	return true
}

// askTCP asks the same over TCP, once; whichever good reply comes first wins.
func (x *exchange) askTCP(ctx context.Context, note string) {
	if x.tcp.asked {
		return
	}
	if note != "" {
		x.notes = append(x.notes, note)
	}
	x.tcp.asked, x.tcp.start, x.tcp.done = true, time.Now(), make(chan Reply, 1)
	ctx, x.tcp.cancel = context.WithTimeoutCause(ctx, x.server.config.Timeouts.Stream, errNoReply)
	query, trip, server := bytes.Clone(x.query.Msg), x.trip, x.server
	go func() {
		start := time.Now()
		msg, note, err := exchangeEDNS(ctx, server.pool, query, trip)
		x.tcp.done <- Reply{Msg: msg, Tries: []Try{{
			Server: server.config.Text, Proto: "tcp", Took: time.Since(start), Note: note, Err: err,
		}}}
		x.wake()
	}()
}

// tookTCP reports whether r, what came of TCP, ends the exchange.
func (x *exchange) tookTCP(r Reply) bool {
	if r.Tries[0].Err == nil {
		return true
	}
	x.tcp.failed = &r.Tries[0]
	if x.best.rank < errorCode {
		x.trip.stuck()
		if x.best.rank != nothing {
			x.best.until = time.Now().Add(x.server.config.Timeouts.Hold)
		}
	}
	return false
}

// finishTCP returns the reply that came over TCP.
func (x *exchange) finishTCP(r Reply) (Reply, error) {
	r.Tries = []Try{x.udpTry(nil), r.Tries[0]}
	wire.CopyQuestion(r.Msg, x.query.Msg)
	r.Suspicious = x.query.Suspect != nil && x.query.Suspect(x.server.config.Text, r.Msg)
	return r, nil
}

// finish returns the best that came over UDP.
func (x *exchange) finish() (Reply, error) {
	if x.best.rank < errorCode {
		return x.fail(x.best.err)
	}
	wire.CopyQuestion(x.best.msg, x.query.Msg)
	return Reply{
		Msg:        x.best.msg,
		Suspicious: x.best.rank == suspicious,
		Tries:      append(x.tcpTry(), x.udpTry(nil)),
	}, nil
}

// giveUp ends the exchange because its time is over: with the best reply that
// is held, else with the reason.
func (x *exchange) giveUp(cause error) (Reply, error) {
	if x.best.rank >= errorCode {
		return x.finish()
	}
	if x.best.err == nil {
		return x.fail(cause)
	}
	return x.fail(several{cause, x.best.err})
}

func (x *exchange) fail(err error) (Reply, error) {
	tries := append(x.tcpTry(), x.udpTry(err))
	if x.tcp.failed != nil {
		err = fmt.Errorf("%w; over tcp: %w", err, x.tcp.failed.Err)
	}
	return Reply{Tries: tries}, err
}

func (x *exchange) udpTry(err error) Try {
	return Try{
		Server: x.server.config.Text, Proto: "udp", Took: time.Since(x.start),
		Note: strings.Join(x.notes, "; "), Err: err,
	}
}

// tcpTry returns the try over TCP that did not decide, if there was one.
func (x *exchange) tcpTry() []Try {
	switch {
	case !x.tcp.asked:
		return nil
	case x.tcp.failed != nil:
		return []Try{*x.tcp.failed}
	}
	return []Try{{
		Server: x.server.config.Text, Proto: "tcp", Took: time.Since(x.tcp.start),
		Note: "udp was first",
	}}
}
