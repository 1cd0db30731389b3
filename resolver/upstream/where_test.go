package upstream_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"smartdns/resolver/upstream"
)

// book is a Lookup whose entries the test changes.
type book struct {
	entry   atomic.Pointer[[]netip.Addr]
	lookups atomic.Int32
}

func (b *book) set(addrs ...string) {
	var all []netip.Addr
	for _, a := range addrs {
		all = append(all, netip.MustParseAddr(a))
	}
	b.entry.Store(&all)
}

func (b *book) lookup(context.Context, string) ([]netip.Addr, error) {
	b.lookups.Add(1)
	if e := b.entry.Load(); e != nil {
		return *e, nil
	}
	return nil, errors.New("nobody knows")
}

// Every address of a name is tried, dead ones first or not; the one that
// answered is the first of the next time.
func TestEveryAddressIsTried(t *testing.T) {
	f := serve(t, truthUDP, truthTCP)
	var b book
	b.set("127.0.0.3", "127.0.0.2", "127.0.0.1") // nothing listens at the first two
	var found atomic.Int32
	where := upstream.Named("dns.test", f.addr.Port(), nil, b.lookup, func(a []netip.AddrPort) { found.Add(int32(len(a))) })
	ex := newServer(t, upstream.Config{Scheme: "tcp", Where: where})
	want(t, ex, query(asked), right)
	if known := where.Known(); len(known) != 3 || known[0] != f.addr || found.Load() != 3 {
		t.Errorf("known %v, told of %d", known, found.Load())
	}
	if status := upstream.Health(ex)[0]; status.Proto != "tcp" || len(status.Addrs) != 3 || status.Addrs[0] != f.addr.Addr() {
		t.Errorf("%+v", status)
	}
	if n := b.lookups.Load(); n != 1 {
		t.Errorf("looked up %d times", n)
	}
}

// One that nobody knows is an error that says so, and costs one lookup, not one
// a query.
func TestNameThatNobodyKnows(t *testing.T) {
	var b book
	ex := newServer(t, upstream.Config{Scheme: "tls", Where: upstream.Named("dns.test", 853, nil, b.lookup, nil)})
	for range 3 {
		if _, err := ex.Exchange(testContext(t), query(asked)); err == nil || !strings.Contains(err.Error(), "dns.test") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v", err)
		}
	}
	if n := b.lookups.Load(); n != 1 {
		t.Errorf("looked up %d times", n)
	}
}

// The errors of several addresses stand in one line, each address once.
func TestErrorsOfSeveralAddresses(t *testing.T) {
	var b book
	b.set("127.0.0.2", "127.0.0.3")
	group := upstream.Group([]upstream.Exchanger{
		newServer(t, upstream.Config{Scheme: "tcp", Where: upstream.Named("a.test", 1, nil, b.lookup, nil), Text: "tcp://a.test:1"}),
		newServer(t, upstream.Config{Scheme: "tls", Where: upstream.Named("b.test", 1, nil, b.lookup, nil), Text: "tls://b.test:1"}),
	}, upstream.InOrder)
	_, err := group.Exchange(testContext(t), query(asked))
	if err == nil {
		t.Fatal("answered")
	}
	const wanted = "tcp://a.test:1: connecting: 127.0.0.2: connect: connection refused; 127.0.0.3: connect: connection refused; " +
		"tls://b.test:1: connecting: 127.0.0.2: connect: connection refused; 127.0.0.3: connect: connection refused"
	if err.Error() != wanted {
		t.Errorf("%s", err)
	}
}

// socks5Proxy is a proxy that asks for a password, and what it was asked for.
func socks5Proxy(t *testing.T, user, password string, targets chan<- string) netip.AddrPort {
	f := serve(t, nil, func(c *conn) {
		read := func(n int) []byte {
			b := make([]byte, n)
			if _, err := io.ReadFull(c, b); err != nil {
				return make([]byte, n)
			}
			return b
		}
		methods := read(int(read(2)[1]))
		if !slices.Contains(methods, 2) {
			c.Write([]byte{5, 0xff})
			return
		}
		c.Write([]byte{5, 2})
		name := read(int(read(2)[1]))
		secret := read(int(read(1)[0]))
		if string(name) != user || string(secret) != password {
			c.Write([]byte{1, 1})
			return
		}
		c.Write([]byte{1, 0})
		head := read(4)
		if head[3] != 1 {
			return
		}
		to := read(6)
		ip, _ := netip.AddrFromSlice(to[:4])
		addr := netip.AddrPortFrom(ip, binary.BigEndian.Uint16(to[4:]))
		targets <- addr.String()
		far, err := net.Dial("tcp", addr.String())
		if err != nil {
			c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
			return
		}
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		go func() { io.Copy(far, c); far.Close() }()
		io.Copy(c, far)
	})
	return f.addr
}

func TestSOCKS5(t *testing.T) {
	f := serve(t, truthUDP, truthTCP)
	targets := make(chan string, 9)
	proxy := socks5Proxy(t, "alice", "secret", targets)
	through := upstream.SOCKS5{Addr: proxy, User: "alice", Password: "secret"}.Through(dial)
	want(t, newServer(t, upstream.Config{Scheme: "tcp", Where: upstream.At(f.addr), Dial: through}), query(asked), right)
	if got := <-targets; got != f.addr.String() {
		t.Errorf("it was asked for %s", got)
	}
	for name, tt := range map[string]struct {
		dial   upstream.Dial
		scheme string
		want   string
	}{
		"wrong password": {upstream.SOCKS5{Addr: proxy, User: "alice", Password: "guess"}.Through(dial), "tcp", "asking the SOCKS5 proxy"},
		"refused there":  {through, "tls", "asking the SOCKS5 proxy"},
		"datagrams":      {through, "udp", "carries no udp"},
	} {
		t.Run(name, func(t *testing.T) {
			ex := newServer(t, upstream.Config{Scheme: tt.scheme, Where: upstream.At(netip.MustParseAddrPort("127.0.0.9:1")), Dial: tt.dial, Timeouts: quick})
			if _, err := ex.Exchange(testContext(t), query(asked)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
