package wg

import (
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

func TestListenPort(t *testing.T) {
	for _, c := range []struct {
		name             string
		want, have, last int
		step             string // "": none
	}{
		{"a fresh device gets it", 51820, 0, 0, "wg set wg0 listen-port 51820"},
		{"it is there", 51820, 51820, 51820, ""},
		{"somebody changed it", 51820, 7, 51820, "wg set wg0 listen-port 51820"},
		{"any is fine", 0, 7, 0, ""},
		{"a device without IPv6 does not show it", 51820, 0, 51820, ""},
		{"nor the one it had before", 51821, 0, 51820, "wg set wg0 listen-port 51821"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := desired{name: "wg0", config: &Config{ListenPort: uint16(c.want)}}
			steps := w.diff(&wgtypes.Device{ListenPort: c.have}, given{port: c.last})
			var got string
			for _, s := range steps {
				got += s.String()
			}
			if got != c.step {
				t.Errorf("got %q, want %q", got, c.step)
			}
		})
	}
}
