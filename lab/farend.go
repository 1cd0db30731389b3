package lab

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// FarEnd is the tunnel's other end: a userspace WireGuard device on a host of
// its own, which forwards what comes out of the tunnel.
type FarEnd struct {
	*Namespace
	at     place
	keys   keys
	bind   *hostBind
	device *device.Device
}

// keys are a tunnel's: two key pairs and a preshared key.
type keys struct {
	far, near *ecdh.PrivateKey
	shared    [32]byte
}

func newKeys() (keys, error) {
	var k keys
	var err error
	if k.far, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		return k, err
	}
	if k.near, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		return k, err
	}
	_, err = rand.Read(k.shared[:])
	return k, err
}

// place is where a far end is, and the addresses of its tunnel's ends.
type place struct {
	endpoint     netip.AddrPort
	near4, near6 netip.Addr // the gateway's
	far4, far6   netip.Addr
	hosting      [2]netip.Prefix // the network that it is in
	link, name   string          // that network's link in the world; the host's
}

func firstPlace() place {
	return place{
		endpoint: Endpoint, near4: TunnelV4, near6: TunnelV6, far4: FarV4, far6: FarV6,
		hosting: [2]netip.Prefix{hostingV4, hostingV6}, link: "hosting", name: "far end",
	}
}

// secondPlace is that of a second tunnel, which a test can ask for.
func secondPlace() place {
	return place{
		endpoint: SecondEndpoint, near4: SecondV4, near6: SecondV6,
		far4: netip.MustParseAddr("10.10.0.1"), far6: netip.MustParseAddr("fd10::1"),
		hosting: [2]netip.Prefix{netip.MustParsePrefix("45.77.1.0/24"), netip.MustParsePrefix("2001:19f0:2::/64")},
		link:    "hosting2", name: "second far end",
	}
}

// tunnelMTU is wg-quick's for an uplink of 1500.
const tunnelMTU = 1420

// insideName is the far end's WireGuard link.
const insideName = "wg-far"

func startFarEnd(ns *Namespace, at place, logf func(string, ...any)) (*FarEnd, error) {
	f := &FarEnd{Namespace: ns, at: at}
	var err error
	if f.keys, err = newKeys(); err != nil {
		return nil, fmt.Errorf("making keys: %w", err)
	}
	err = ns.Do(func() error {
		t, err := tun.CreateTUN(insideName, tunnelMTU)
		if err != nil {
			return fmt.Errorf("creating TUN device: %w", err)
		}
		f.bind = &hostBind{Bind: conn.NewStdNetBind(), ns: ns}
		f.device = device.NewDevice(hostTUN{t}, f.bind, &device.Logger{
			Verbosef: device.DiscardLogf,
			Errorf:   func(format string, args ...any) { logf("far end: "+format, args...) },
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := f.configure(); err != nil {
		f.device.Close()
		return nil, err
	}
	return f, nil
}

func (f *FarEnd) configure() error {
	if err := f.device.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\npreshared_key=%s\nallowed_ip=%s/32\nallowed_ip=%s/128\nallowed_ip=192.168.8.0/24\nallowed_ip=fd00:8::/64\n",
		hex.EncodeToString(f.keys.far.Bytes()), f.at.endpoint.Port(), hex.EncodeToString(f.keys.near.PublicKey().Bytes()),
		hex.EncodeToString(f.keys.shared[:]), f.at.near4, f.at.near6)); err != nil {
		return fmt.Errorf("configuring the far end: %w", err)
	}
	if err := f.device.Up(); err != nil {
		return fmt.Errorf("bringing the far end up: %w", err)
	}
	if err := f.up(insideName, netip.PrefixFrom(f.at.far4, 24), netip.PrefixFrom(f.at.far6, 64)); err != nil {
		return err
	}
	// The LAN behind the tunnel is reached for inbound tests.
	for _, p := range []netip.Prefix{netip.PrefixFrom(ClientV4, 24).Masked(), netip.PrefixFrom(ClientV6, 64).Masked()} {
		if err := f.AddRoute(Route{To: p, Dev: insideName}); err != nil {
			return err
		}
	}
	return nil
}

// SetSilent makes the far end drop all that it receives and send nothing, or
// behave again.
func (f *FarEnd) SetSilent(silent bool) { f.bind.silent.Store(silent) }

// Heard returns how many bytes of WireGuard data the far end has received.
func (f *FarEnd) Heard() (int64, error) {
	s, err := f.device.IpcGet()
	if err != nil {
		return 0, fmt.Errorf("asking the far end: %w", err)
	}
	var n int64
	for line := range strings.Lines(s) {
		if _, err := fmt.Sscanf(line, "rx_bytes=%d", &n); err == nil {
			break
		}
	}
	return n, nil
}

// ClientConfig returns the wg-quick file of the gateway's end.
func (f *FarEnd) ClientConfig() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`[Interface]
PrivateKey = %s
Address = %s/32, %s/128
DNS = %s

[Peer]
PublicKey = %s
PresharedKey = %s
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = %s
PersistentKeepalive = 25
`, b64(f.keys.near.Bytes()), f.at.near4, f.at.near6, f.at.far4, b64(f.keys.far.PublicKey().Bytes()), b64(f.keys.shared[:]), f.at.endpoint)
}

// clientUAPI is ClientConfig in the device's own language.
func (f *FarEnd) clientUAPI(mark uint32) string {
	return fmt.Sprintf("private_key=%s\nfwmark=%d\npublic_key=%s\npreshared_key=%s\nendpoint=%s\npersistent_keepalive_interval=25\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n",
		hex.EncodeToString(f.keys.near.Bytes()), mark, hex.EncodeToString(f.keys.far.PublicKey().Bytes()), hex.EncodeToString(f.keys.shared[:]), f.at.endpoint)
}

func (f *FarEnd) closeDevice() error {
	f.device.Close()
	return nil
}

// hostTUN knows its MTU in every namespace.
type hostTUN struct{ tun.Device }

func (hostTUN) MTU() (int, error) { return tunnelMTU, nil }

// hostBind opens its sockets in a namespace, whichever goroutine asks.
type hostBind struct {
	conn.Bind
	ns     *Namespace
	silent atomic.Bool
}

func (b *hostBind) Open(port uint16) (fns []conn.ReceiveFunc, actual uint16, err error) {
	err = b.ns.Do(func() error {
		var err error
		fns, actual, err = b.Bind.Open(port)
		return err
	})
	for i, f := range fns {
		fns[i] = func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			n, err := f(packets, sizes, eps)
			if b.silent.Load() {
				clear(sizes[:n]) // a size of zero is ignored
			}
			return n, err
		}
	}
	return fns, actual, err
}

func (b *hostBind) Send(bufs [][]byte, ep conn.Endpoint) error {
	if b.silent.Load() {
		return nil
	}
	return b.Bind.Send(bufs, ep)
}
