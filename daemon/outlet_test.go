package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"smartdns/resolver/upstream"
	"smartdns/routing"
)

// While a tunnel is down only encrypted servers are asked, by the way around it
// where when_down says so; and no stream outlives a change of the way.
func TestOutlet(t *testing.T) {
	by := func(way string, far *net.Conn) upstream.Dial {
		return func(context.Context, string, string) (net.Conn, error) {
			near, other := net.Pipe()
			*far = other
			return namedConn{near, way}, nil
		}
	}
	through, around := outletWay{by: "wg0"}, outletWay{routing.Direct, 1}
	for _, c := range []struct {
		name      string
		way       outletWay
		encrypted bool
		want      string // "" when it is refused
	}{
		{"through, plain", through, false, "through"},
		{"through, encrypted", through, true, "through"},
		{"around, plain", around, false, ""},
		{"around, encrypted", around, true, "mark 1"},
		{"by the stand-in, plain", outletWay{"wg1", 3}, false, "mark 3"},
		{"by the stand-in, encrypted", outletWay{"wg1", 3}, true, "mark 3"},
		{"blocked, plain", outletWay{}, false, ""},
		{"blocked, encrypted", outletWay{}, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := outlets{}.of("wg0")
			o.set(c.way)
			var far net.Conn
			dial := o.dial(by("through", &far), func(mark uint32) upstream.Dial { return by(fmt.Sprint("mark ", mark), &far) }, c.encrypted)
			for _, network := range []string{"udp", "tcp"} {
				conn, err := dial(t.Context(), network, "192.0.2.1:853")
				if c.want == "" {
					if !errors.Is(err, errTunnelDown) {
						t.Errorf("%s: %v, want %v", network, err, errTunnelDown)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := wayOf(conn); got != c.want {
					t.Errorf("%s went %s, want %s", network, got, c.want)
				}
			}
			if c.want == "" {
				return
			}
			o.set(outletWay{"wg2", 4})
			if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("after the way changed the stream is open: %v", err)
			}
		})
	}
}

type namedConn struct {
	net.Conn
	way string
}

func wayOf(c net.Conn) string {
	if kept, ok := c.(*outletConn); ok {
		c = kept.Conn
	}
	return c.(namedConn).way
}
