package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"smartdns/resolver/wire"
)

type handlerFunc func(context.Context, wire.Query, Client) []byte

func (f handlerFunc) Answer(ctx context.Context, dst []byte, q wire.Query, from Client) []byte {
	return append(dst, f(ctx, q, from)...)
}

// A client that takes no answer is hung up on when its time is over. Nobody
// waits for it to take a goodbye too (SECURITY
//
func TestNoGoodbyeToAClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe() // holds nothing: a write waits for its reader
		defer theirs.Close()
		limits := DefaultLimits()
		limits.TCPConcurrent = 1 // nobody waits for a mutex, which would stop the clock
		s := New(handlerFunc(func(_ context.Context, q wire.Query, _ Client) []byte {
			return q.Msg
		}), limits, slog.New(slog.DiscardHandler))
		client := tls.Client(theirs, &tls.Config{InsecureSkipVerify: true})
		done := make(chan struct{})
		go func() {
			defer close(done)
			c := tls.Server(ours, &tls.Config{
				Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}, SessionTicketsDisabled: true,
			})
			defer c.Close()
			s.serveConn(c, Client{Addr: netip.MustParseAddrPort("127.0.0.1:5353"), Transport: TLS}, &streamLane{sealed: s.lane.Sealed})
		}()
		if err := client.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		query := []byte{0, 24, 0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 'w', 'w', 'w', 2, 'c', 'n', 0, 0, 1, 0, 1}
		for err = nil; err == nil; {
			_, err = client.Write(query)
		}
		<-done
		if took := time.Since(begun); took > limits.TCPWrite {
			t.Errorf("hung up after %s, want %s", took, limits.TCPWrite)
		}
	})
}
