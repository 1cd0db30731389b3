package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"smartdns/resolver/wire"
)

// latch is a condition that stays once it is set.
type latch struct{ atomic.Bool }

func (l *latch) set()        { l.Store(true) }
func (l *latch) isSet() bool { return l.Load() }

// packetSize is what a QUIC packet takes: it passes every IPv6 path, the inside
// of a tunnel too.
const packetSize = 1232

// quicDialer returns how QUIC connections to the server of c are opened. Each
// has a socket of its own, which ends with it.
func (c *Config) quicDialer(protocol string) func(context.Context) (*quic.Conn, error) {
	settings := c.settings(protocol)
	config := &quic.Config{
		HandshakeIdleTimeout:           c.Timeouts.Stream,
		MaxIdleTimeout:                 c.Timeouts.Idle,
		InitialStreamReceiveWindow:     maxReply,
		MaxStreamReceiveWindow:         2 * maxLongReply,
		InitialConnectionReceiveWindow: 2 * maxLongReply,
		MaxConnectionReceiveWindow:     1 << 20,
		MaxIncomingStreams:             -1,
		MaxIncomingUniStreams:          8, // of HTTP/3's own
		InitialPacketSize:              packetSize,
		DisablePathMTUDiscovery:        true,
	}
	one := func(ctx context.Context, addr netip.AddrPort) (*quic.Conn, error) {
		socket, err := c.Dial(ctx, "udp", addr.String())
		if err != nil {
			return nil, plain(err)
		}
		t := &quic.Transport{Conn: packetConn{socket}}
		conn, err := t.Dial(ctx, socket.RemoteAddr(), settings, config)
		if err != nil {
			t.Close()
			socket.Close()
			return nil, fmt.Errorf("agreeing on quic: %w", quicError(err))
		}
		context.AfterFunc(conn.Context(), func() {
			t.Close()
			socket.Close()
		})
		return conn, nil
	}
	return func(ctx context.Context) (*quic.Conn, error) {
		return connect(ctx, c.Where, one, func(conn *quic.Conn) { conn.CloseWithError(0, "") })
	}
}

// quicError returns err without the words that package quic repeats.
func quicError(err error) error {
	if e, ok := errors.AsType[*quic.TransportError](err); ok && e.ErrorCode.IsCryptoError() && e.ErrorMessage != "" {
		return errors.New(e.ErrorMessage)
	}
	return err
}

// packetConn is a connected socket as package quic wants it: one that takes
// packets from the server alone. What it could do beside is of no use for a
// few small packets.
type packetConn struct{ net.Conn }

func (c packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, err := c.Read(b)
		// Anybody can send an ICMP error. The handshake has a time limit.
		if err == nil || !isICMP(err) {
			return n, c.RemoteAddr(), err
		}
	}
}

func (c packetConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	n, err := c.Write(b)
	if err != nil && isICMP(err) {
		return len(b), nil
	}
	return n, err
}

// The few packets of DNS need no larger buffers.
func (packetConn) SetReadBuffer(int) error  { return nil }
func (packetConn) SetWriteBuffer(int) error { return nil }

// quicTransport asks by DNS over QUIC, RFC 9250: each query has a stream of its
// own.
type quicTransport struct {
	dial func(context.Context) (*quic.Conn, error)
	once sync.Once
	done chan struct{} // closed when conn or err is set
	conn *quic.Conn
	err  error
}

// The codes of RFC 9250 section 4.3.
const (
	doqNoError          = 0x0
	doqRequestCancelled = 0x3
)

func newQUIC(c *Config) kept {
	dial := c.quicDialer("doq")
	return &sessions{open: func() transport {
		q := &quicTransport{done: make(chan struct{})}
		q.dial = func(ctx context.Context) (*quic.Conn, error) {
			ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), c.Timeouts.Stream, errNoReply)
			defer cancel()
			return dial(ctx)
		}
		return q
	}}
}

func (q *quicTransport) close() {
	q.once.Do(func() { q.err = errLost; close(q.done) })
	go func() {
		<-q.done
		if q.conn != nil {
			q.conn.CloseWithError(doqNoError, "")
		}
	}()
}

// connect returns the connection, made at the first call.
func (q *quicTransport) connect(ctx context.Context) (*quic.Conn, error) {
	q.once.Do(func() {
		go func() {
			defer close(q.done)
			q.conn, q.err = q.dial(ctx)
		}()
	})
	select {
	case <-q.done:
		return q.conn, q.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (q *quicTransport) carry(ctx context.Context, msg []byte, limit int) ([]byte, error) {
	conn, err := q.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConnecting, err)
	}
	lost := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %w", errLost, quicError(err))
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, lost(err)
	}
	defer stream.CancelRead(doqRequestCancelled)
	defer context.AfterFunc(ctx, func() { stream.CancelRead(doqRequestCancelled) })()
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg)))
	if _, err := stream.Write(append(framed, msg...)); err != nil {
		return nil, lost(err)
	}
	stream.Close() // says that no more comes
	var prefix [2]byte
	if _, err := io.ReadFull(stream, prefix[:]); err != nil {
		return nil, lost(err)
	}
	size := int(binary.BigEndian.Uint16(prefix[:]))
	switch {
	case size < wire.HeaderLen:
		return nil, fmt.Errorf("replied with a message of %d octets", size)
	case size > limit:
		return nil, errTooLong
	}
	reply := make([]byte, size)
	if _, err := io.ReadFull(stream, reply); err != nil {
		return nil, lost(err)
	}
	return reply, nil
}
