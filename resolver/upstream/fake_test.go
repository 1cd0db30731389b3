package upstream_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smartdns/lab/netnstest"
	"smartdns/resolver/upstream"
	"smartdns/resolver/wire"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var be = binary.BigEndian

// fake is a DNS server made of bytes: its two functions say what it sends for
// each query. A nil function means that nothing listens there.
type fake struct {
	addr netip.AddrPort
	udp  *net.UDPConn
	tcp  net.Listener

	queriesUDP, queriesTCP, accepted atomic.Int32
	mu                               sync.Mutex
	seen                             []packet
	conns                            []net.Conn
	handlers                         sync.WaitGroup
}

// packet is a query that came over UDP.
type packet struct {
	msg  []byte
	from netip.AddrPort
}

// client is who sent a query over UDP.
type client struct {
	server *net.UDPConn
	from   netip.AddrPort
}

func (c client) send(msg []byte) { c.server.WriteToUDPAddrPort(msg, c.from) }

type udpHandler func(w client, query []byte)

// tcpHandler has a connection for itself.
type tcpHandler func(c *conn)

func serve(t testing.TB, udp udpHandler, tcp tcpHandler) *fake {
	t.Helper()
	f := new(fake)
	var err error
	// The TCP port of the same number may be taken: try another pair.
	for range 20 {
		if f.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		f.addr = f.udp.LocalAddr().(*net.UDPAddr).AddrPort()
		if f.tcp, err = net.Listen("tcp4", f.addr.String()); err == nil {
			break
		}
		f.udp.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if udp == nil {
		f.udp.Close()
	} else {
		f.handlers.Go(func() { f.serveUDP(udp) })
	}
	if tcp == nil {
		f.tcp.Close()
	} else {
		f.handlers.Go(func() { f.serveTCP(tcp) })
	}
	t.Cleanup(func() {
		f.udp.Close()
		f.tcp.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			c.Close()
		}
		f.mu.Unlock()
		f.handlers.Wait()
	})
	return f
}

func (f *fake) serveUDP(handle udpHandler) {
	buf := make([]byte, 65536)
	for {
		n, from, err := f.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of a client that has gone
		}
		f.queriesUDP.Add(1)
		query := bytes.Clone(buf[:n])
		f.mu.Lock()
		f.seen = append(f.seen, packet{query, from})
		f.mu.Unlock()
		handle(client{f.udp, from}, query)
	}
}

func (f *fake) serveTCP(handle tcpHandler) {
	for {
		c, err := f.tcp.Accept()
		if err != nil {
			return
		}
		f.accepted.Add(1)
		f.mu.Lock()
		f.conns = append(f.conns, c)
		f.mu.Unlock()
		f.handlers.Go(func() {
			defer c.Close()
			handle(&conn{Conn: c, f: f})
		})
	}
}

// packets returns the queries that came over UDP so far.
func (f *fake) packets() []packet {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

// conn is a connection with framed messages.
type conn struct {
	net.Conn
	f *fake
}

// query returns the next query, nil when the client has gone.
func (c *conn) query() []byte {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil
	}
	msg := make([]byte, be.Uint16(size[:]))
	if _, err := io.ReadFull(c, msg); err != nil {
		return nil
	}
	c.f.queriesTCP.Add(1)
	return msg
}

func (c *conn) send(msg []byte) { c.Write(frame(msg)) }

func frame(msg []byte) []byte {
	return append([]byte{byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

var (
	right = netip.MustParseAddr("192.0.2.1")
	other = netip.MustParseAddr("192.0.2.99")
)

// reply answers query with one address.
func reply(query []byte, a netip.Addr) []byte {
	msg := rcode(query, 0)
	msg[7] = 1
	msg = append(msg, 0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4)
	return append(msg, a.AsSlice()...)
}

// rcode answers query with a code and nothing else.
func rcode(query []byte, code byte) []byte {
	q := wire.Question(query)
	msg := append(bytes.Clone(query[:2]), 0x81, 0x80|code, 0, 1, 0, 0, 0, 0, 0, 0)
	return append(msg, q...)
}

// edit returns a copy of msg that f has changed.
func edit(msg []byte, f func(m []byte)) []byte {
	msg = bytes.Clone(msg)
	f(msg)
	return msg
}

// truthUDP and truthTCP are a healthy server.
func truthUDP(w client, query []byte) { w.send(reply(query, right)) }

func truthTCP(c *conn) {
	for query := c.query(); query != nil; query = c.query() {
		c.send(reply(query, right))
	}
}

func silentUDP(client, []byte) {}

// silentTCP takes queries and says nothing.
func silentTCP(c *conn) {
	for c.query() != nil {
	}
}

const asked = "\x03wWw\x07example\x00"

// query packs a question for an address.
func query(name string) upstream.Query {
	msg := wire.AppendQuery(nil, []byte(name), wire.TypeA, false, false, nil)
	wire.SetID(msg, 4711)
	return upstream.Query{Msg: msg}
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// quick are timeouts for tests that have to wait for one.
var quick = upstream.Timeouts{
	Try: 100 * time.Millisecond, Total: 2 * time.Second, Stream: time.Second,
	Hold: 50 * time.Millisecond, Idle: 5 * time.Second,
}

func newServer(t testing.TB, c upstream.Config) upstream.Exchanger {
	t.Helper()
	if c.Dial == nil {
		c.Dial = dial
	}
	ex, err := upstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return ex
}

// spoofable returns an Exchanger that asks f over UDP on an open path.
func spoofable(t testing.TB, f *fake) upstream.Exchanger {
	return newServer(t, upstream.Config{Scheme: "udp", Where: upstream.At(f.addr), Spoofable: true, Timeouts: quick})
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// ask exchanges q and returns the address of the only answer.
func ask(t testing.TB, ex upstream.Exchanger, q upstream.Query) (netip.Addr, upstream.Reply) {
	t.Helper()
	r, err := ex.Exchange(testContext(t), q)
	if err != nil {
		t.Fatalf("%v (tries %+v)", err, r.Tries)
	}
	if wire.MatchReply(q.Msg, r.Msg) != wire.Matches {
		t.Fatalf("reply % x to % x", r.Msg, q.Msg)
	}
	if len(r.Tries) == 0 || r.Tries[len(r.Tries)-1].Err != nil {
		t.Errorf("tries %+v", r.Tries)
	}
	return address(t, r.Msg), r
}

func address(t testing.TB, msg []byte) netip.Addr {
	t.Helper()
	if be.Uint16(msg[6:]) != 1 {
		t.Fatalf("reply without an answer: % x", msg)
	}
	a, _ := netip.AddrFromSlice(msg[len(msg)-4:])
	return a
}

// want asks and compares.
func want(t testing.TB, ex upstream.Exchanger, q upstream.Query, a netip.Addr) upstream.Reply {
	t.Helper()
	got, r := ask(t, ex, q)
	if got != a {
		t.Fatalf("answer %s, want %s (tries %+v)", got, a, r.Tries)
	}
	return r
}

// listenFrom makes an impostor's socket.
func listenFrom(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
