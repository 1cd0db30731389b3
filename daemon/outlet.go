package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// outletWay is how an outlet's connections leave.
type outletWay uint8

const (
	wayThrough outletWay = iota // the tunnel
	wayAround                   // it is down, and when_down is direct
	wayBlocked                  // it is down
)

// outlet is how sides ask their servers by a tunnel. While that is down their
// queries fail at once, or go direct: then to encrypted servers only, for
// nobody on that way may read or forge them.
type outlet struct {
	path routing.Path

	mu    sync.Mutex // guards following
	way   outletWay
	conns map[*outletConn]bool // streams, which would outlive a change of the way
	until context.Context      // ends with the way
	end   context.CancelFunc
}

// outlets has one for each tunnel that there ever was.
type outlets map[routing.Path]*outlet

func (o outlets) of(p routing.Path) *outlet {
	if o[p] == nil {
		o[p] = &outlet{path: p, conns: map[*outletConn]bool{}}
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
	c.from.mu.Lock()
	delete(c.from.conns, c)
	c.from.mu.Unlock()
	return c.Conn.Close()
}

var errTunnelDown = errors.New("it is down")

// dial is through while the tunnel is not known to be down.
func (o *outlet) dial(through, around upstream.Dial, encrypted bool) upstream.Dial {
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
		case way == wayAround && encrypted:
			dial = around
		case way != wayThrough:
			return nil, fmt.Errorf("dialing %s via %s: %w", address, o.path, errTunnelDown)
		}
		c, err := dial(ctx, network, address)
		if err != nil || network != "tcp" {
			return c, err
		}
		kept := &outletConn{c, o}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.way != way {
			c.Close()
			return nil, fmt.Errorf("dialing %s via %s: %w", address, o.path, errTunnelDown)
		}
		o.conns[kept] = true
		return kept, nil
	}
}

// set changes the way, and ends the streams that went another.
func (o *outlet) set(way outletWay) {
	o.mu.Lock()
	if o.way == way {
		o.mu.Unlock()
		return
	}
	o.way = way
	o.end()
	o.until, o.end = context.WithCancel(context.Background())
	old := o.conns
	o.conns = map[*outletConn]bool{}
	o.mu.Unlock()
	for c := range old {
		// A reset, once and now: a FIN would be sent again by the old way until
		// somebody answers it.
		if t, ok := c.Conn.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		c.Close()
	}
}
