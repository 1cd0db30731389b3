package upstream_test

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"smartdns/resolver/upstream"
)

// A server that says GOAWAY answers what is on its way, and what comes behind
// goes over a new connection: no query notices, over HTTP/2.
func TestGOAWAYOverHTTP2FailsNoQuery(t *testing.T) {
	ca := newAuthority(t)
	const waiting = 20
	var asks atomic.Int32
	all := make(chan struct{}) // have arrived
	web := serveWeb(t, "https", certificate(t, ca), func(w http.ResponseWriter, r *http.Request) {
		switch n := asks.Add(1); {
		case n == 1:
		case n == 1+waiting:
			// The last one of those that wait says it for all.
			w.Header().Set("Connection", "close")
			close(all)
		case n < 1+waiting:
			<-all
		}
		answerHTTP(w, r)
	})
	ex := newServer(t, upstream.Config{Scheme: "https", Where: named(web.addr), Path: "/dns-query", RootCAs: ca.pool()})
	want(t, ex, query(asked), right) // the connection is there
	for range 3 {
		var queries sync.WaitGroup
		for range waiting {
			queries.Go(func() { want(t, ex, query(asked), right) })
		}
		queries.Wait()
	}
	// Of those that come at once, up to 4 begin to connect.
	if n := web.accepted.Load(); n < 2 || n > 1+4 {
		t.Errorf("%d connections, want the one that ended and a few more", n)
	}
}

// The same over HTTP/3.
func TestGOAWAYOverHTTP3FailsNoQuery(t *testing.T) {
	ca := newAuthority(t)
	var asks, accepted atomic.Int32
	arrived, told := make(chan struct{}), make(chan struct{})
	const waiting = 20
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := asks.Add(1); n > 1 && n <= 1+waiting {
			if n == 1+waiting {
				close(arrived)
			}
			<-told
		}
		answerHTTP(w, r)
	})
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	settings := http3.ConfigureTLSConfig(certificate(t, ca))
	l, err := quic.Listen(pc, settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, second := &http3.Server{Handler: handler}, &http3.Server{Handler: handler}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			server := first
			if accepted.Add(1) > 1 {
				server = second
			}
			serving.Go(func() { server.ServeQUICConn(conn) })
		}
	})
	t.Cleanup(func() { first.Close(); second.Close(); l.Close(); pc.Close(); serving.Wait() })

	ex := newServer(t, upstream.Config{
		Scheme: "h3", Where: named(pc.LocalAddr().(*net.UDPAddr).AddrPort()), Path: "/dns-query", RootCAs: ca.pool(),
	})
	want(t, ex, query(asked), right)
	var queries sync.WaitGroup
	for range waiting {
		queries.Go(func() { want(t, ex, query(asked), right) })
	}
	<-arrived
	var ending sync.WaitGroup
	ending.Go(func() {
		if err := first.Shutdown(testContext(t)); err != nil {
			t.Errorf("the server is not let go: %v", err)
		}
	})
	// New ones come while the old ones are still waited for. Those that were
	// sent before the GOAWAY was read are answered, too.
	for range 3 {
		want(t, ex, query(asked), right)
	}
	close(told)
	queries.Wait()
	for range 3 {
		want(t, ex, query(asked), right)
	}
	ending.Wait()
	if n := accepted.Load(); n != 2 {
		t.Errorf("%d connections, want the one that ended and another", n)
	}
}
