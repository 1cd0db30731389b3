package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// outletWay is how an outlet's connections leave: by the tunnel itself, or,
// while it is down, by its stand-in, direct or not at all ("").
type outletWay struct {
	by   routing.Path
	mark uint32 // of the packets
}

// outlet is how sides ask their servers by a tunnel. While that is down their
// queries go by the tunnel that stands in, or fail at once, or go direct: then
// to encrypted servers only, for nobody on that way may read or forge them.
type outlet struct {
	path routing.Path

	mu    sync.Mutex // guards following
	way   outletWay
	conns map[io.Closer]bool // what would outlive a change of the way
	until context.Context    // ends with the way
	end   context.CancelFunc
}

// outlets has one for each tunnel that there ever was.
type outlets map[routing.Path]*outlet

func (o outlets) of(p routing.Path) *outlet {
	if o[p] == nil {
		o[p] = &outlet{path: p, way: outletWay{by: p}, conns: map[io.Closer]bool{}}
		o[p].until, o[p].end = context.WithCancel(context.Background())
	}
	return o[p]
}

// outletConn is a stream that leaves the outlet's list when it is closed.
type outletConn struct {
	net.Conn
	from *outlet
}

func (c *outletConn) Close() error {
	c.from.forget(c)
	return c.Conn.Close()
}

// outletSocket is the same for datagrams. It has what its user may ask of a
// socket.
type outletSocket struct {
	*net.UDPConn
	from *outlet
}

func (c *outletSocket) Close() error {
	c.from.forget(c)
	return c.UDPConn.Close()
}

func (o *outlet) forget(c io.Closer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.conns, c)
}

var errTunnelDown = errors.New("is down")

// open reports whether packets can go through the tunnel, or the one that stands
// in, as far as we know.
func (o *outlet) open() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.way.by.IsTunnel()
}

// dial is through while the tunnel is not known to be down. Another way is taken
// by what by makes of its mark.
func (o *outlet) dial(through upstream.Dial, by func(mark uint32) upstream.Dial, encrypted bool) upstream.Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		o.mu.Lock()
		way, until := o.way, o.until
		o.mu.Unlock()
		// What is being opened when the way changes would wait for nothing.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(until, cancel)()
		dial := through
		switch {
		case way.by == o.path:
		case way.by.IsTunnel(), way.by == routing.Direct && encrypted:
			dial = by(way.mark)
		default:
			return nil, fmt.Errorf("tunnel %s %w", o.path, errTunnelDown)
		}
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		var kept net.Conn = &outletConn{c, o}
		if socket, ok := c.(*net.UDPConn); ok {
			kept = &outletSocket{socket, o}
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.way != way {
			c.Close()
			return nil, fmt.Errorf("tunnel %s %w", o.path, errTunnelDown)
		}
		o.conns[kept] = true
		return kept, nil
	}
}

// set changes the way, and ends the streams that went another.
func (o *outlet) set(way outletWay) {
	if way.by == o.path {
		way.mark = 0 // its dialer has it
	}
	o.mu.Lock()
	if o.way == way {
		o.mu.Unlock()
		return
	}
	o.way = way
	o.end()
	o.until, o.end = context.WithCancel(context.Background())
	old := o.conns
	o.conns = map[io.Closer]bool{}
	o.mu.Unlock()
	for c := range old {
		// A reset, once and now: a FIN would be sent again by the old way until
		// somebody answers it.
		if s, ok := c.(*outletConn); ok {
			if t, ok := s.Conn.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}
		}
		c.Close()
	}
}
