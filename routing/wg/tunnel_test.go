package wg_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"smartdns/lab/netnstest"
	"smartdns/routing"
	"smartdns/routing/wg"
)

const mark = 0x1000000

// pair is the keys of two ends.
type pair struct{ nearKey, farKey, psk string }

func newPair(t testing.TB) pair { return pair{key(t), key(t), key(t)} }

func public(t testing.TB, private string) string {
	t.Helper()
	return parse(t, "[Interface]\nPrivateKey="+private).PrivateKey.PublicKey().String()
}

func (p pair) near(t *testing.T, endpoint string) *wg.Config {
	t.Helper()
	return parse(t, fmt.Sprintf("[Interface]\nPrivateKey=%s\nAddress=10.9.0.2/24\n[Peer]\nPublicKey=%s\nPresharedKey=%s\nAllowedIPs=0.0.0.0/0,::/0\nEndpoint=%s\n",
		p.nearKey, public(t, p.farKey), p.psk, endpoint))
}

func (p pair) far(t testing.TB) peerSpec {
	t.Helper()
	return peerSpec{
		Name: "wgfar",
		Conf: fmt.Sprintf("[Interface]\nPrivateKey=%s\nListenPort=51820\n[Peer]\nPublicKey=%s\nPresharedKey=%s\nAllowedIPs=10.9.0.2/32,fd09::2/128\n",
			p.farKey, public(t, p.nearKey), p.psk),
		Addrs: []string{"10.9.0.1/24", "fd09::1/64"},
	}
}

func open(t *testing.T, o wg.Options) *wg.Tunnel {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	tunnel, err := wg.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tunnel.Close() })
	return tunnel
}

// echo sends text to the peer's echo service until it comes back.
func echo(ctx context.Context, to, text string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 2000)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := c.Write([]byte(text)); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := c.Read(b); err == nil && string(b[:n]) == text {
			return nil
		}
	}
}

func mustEcho(t *testing.T, to string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := echo(ctx, to, strings.Repeat("x", 1200)); err != nil {
		t.Fatalf("nothing comes back from %s: %v", to, err)
	}
}

func steps(all []routing.Step) []string {
	var text []string
	for _, s := range all {
		text = append(text, s.String())
	}
	return text
}

func mustSet(t *testing.T, tunnel *wg.Tunnel, c *wg.Config, want ...string) {
	t.Helper()
	got, err := tunnel.Set(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, steps(got)); d != "" {
		t.Errorf("steps (-want +got)\n%s", d)
	}
}

func TestTunnel(t *testing.T) {
	netnstest.Require(t, "wg", "ping", "ss")
	far := netnstest.New(t)
	veth(t, far)
	keys := newPair(t)
	startPeer(t, &far, keys.far(t))
	config := keys.near(t, "198.51.100.2:51820")
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	tunnel := open(t, wg.Options{Name: "wgnear", Config: config, Kind: wg.Auto, FwMark: mark, Links: &fakeLinks{fail: syscall.EOPNOTSUPP}})
	if tunnel.Kind() != wg.Userspace {
		t.Fatalf("kind %s", tunnel.Kind())
	}
	must(t, setUp("wgnear", "10.9.0.2/24", "fd09::2/64"))
	must(t, tunnel.Up())
	must(t, tunnel.Up())
	peerKey := public(t, keys.farKey)

	t.Run("carries packets", func(t *testing.T) {
		mustEcho(t, "10.9.0.1:7")
		mustEcho(t, "[fd09::1]:7")
		run(t, "ping", "-c1", "-W5", "10.9.0.1")
		o, err := tunnel.Observe(t.Context())
		must(t, err)
		p := o.Peers[config.Peers[0].PublicKey]
		if o.Kind != wg.Userspace || o.Drifted || p.Handshake.IsZero() || p.RX == 0 || p.TX == 0 || p.Endpoint != ap("198.51.100.2:51820") {
			t.Errorf("observed %+v", o)
		}
	})
	t.Run("differs where somebody changed it", func(t *testing.T) {
		differs := func(name string, want ...string) {
			t.Helper()
			got, err := wg.Diff(name, config, mark)
			must(t, err)
			if d := cmp.Diff(want, steps(got)); d != "" {
				t.Errorf("steps (-want +got)\n%s", d)
			}
		}
		differs("wgnear")
		run(t, "wg", "set", "wgnear", "fwmark", "7", "peer", peerKey, "allowed-ips", "10.0.0.0/8", "endpoint", "198.51.100.2:7")
		differs("wgnear", "wg set wgnear fwmark 0x1000000", "wg set wgnear peer "+peerKey+" allowed-ips 0.0.0.0/0,::/0")
		run(t, "wg", "set", "wgnear", "fwmark", fmt.Sprint(mark), "peer", peerKey, "allowed-ips", "0.0.0.0/0,::/0", "endpoint", "198.51.100.2:51820")
		differs("wgnear")
		differs("wgnone", "wg set wgnone fwmark 0x1000000 private-key (hidden)",
			"wg set wgnone peer "+peerKey+" preshared-key (hidden) endpoint 198.51.100.2:51820 allowed-ips 0.0.0.0/0,::/0")
	})
	t.Run("has no link-local address", func(t *testing.T) {
		if out := run(t, "ip", "-6", "address", "show", "wgnear"); strings.Contains(out, "fe80") {
			t.Error(out)
		}
	})
	t.Run("its own packets carry the mark", func(t *testing.T) {
		if out := run(t, "ss", "-uaepn"); !strings.Contains(out, "fwmark:0x1000000") {
			t.Error(out)
		}
		// Who has no mark is refused here.
		run(t, "ip", "rule", "add", "pref", "90", "fwmark", "0x1000000/0x3f000000", "lookup", "main")
		run(t, "ip", "rule", "add", "pref", "91", "to", "198.51.100.0/24", "unreachable")
		defer run(t, "ip", "rule", "del", "pref", "90")
		defer run(t, "ip", "rule", "del", "pref", "91")
		mustEcho(t, "10.9.0.1:7")
		run(t, "wg", "set", "wgnear", "fwmark", "0")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := echo(ctx, "10.9.0.1:7", "x"); err == nil {
			t.Error("packets without a mark pass: the rule proves nothing")
		}
		mustSet(t, tunnel, config, "wg set wgnear fwmark 0x1000000")
		mustEcho(t, "10.9.0.1:7")
	})
	t.Run("a second Set has no steps", func(t *testing.T) {
		mustSet(t, tunnel, config)
	})
	t.Run("what others change comes back", func(t *testing.T) { // SECURITY F-12
		other := public(t, key(t))
		for command, step := range map[string]string{
			"peer " + peerKey + " remove":                  "peer " + peerKey + " preshared-key (hidden) endpoint 198.51.100.2:51820 allowed-ips 0.0.0.0/0,::/0",
			"peer " + peerKey + " allowed-ips 10.0.0.0/8":  "peer " + peerKey + " allowed-ips 0.0.0.0/0,::/0",
			"peer " + peerKey + " preshared-key /dev/null": "peer " + peerKey + " preshared-key (hidden)",
			"peer " + peerKey + " persistent-keepalive 9":  "peer " + peerKey + " persistent-keepalive 0",
			"peer " + other + " allowed-ips 192.0.2.1/32":  "peer " + other + " remove",
			"private-key /dev/null":                        "private-key (hidden)",
		} {
			run(t, append([]string{"wg", "set", "wgnear"}, strings.Fields(command)...)...)
			if o, err := tunnel.Observe(t.Context()); err != nil || !o.Drifted {
				t.Errorf("%s: not noticed (%v)", command, err)
			}
			mustSet(t, tunnel, config, "wg set wgnear "+step)
			mustSet(t, tunnel, config)
		}
		mustEcho(t, "10.9.0.1:7")
	})
	t.Run("a peer that roamed stays where it is", func(t *testing.T) {
		run(t, "wg", "set", "wgnear", "peer", peerKey, "endpoint", "198.51.100.3:51820")
		mustEcho(t, "10.9.0.1:7")
		mustSet(t, tunnel, config)
	})
	t.Run("a new endpoint in the file is called", func(t *testing.T) {
		config = keys.near(t, "198.51.100.3:51820")
		mustSet(t, tunnel, config, "wg set wgnear peer "+peerKey+" endpoint 198.51.100.3:51820")
		mustEcho(t, "10.9.0.1:7")
	})
	t.Run("steps print no secret", func(t *testing.T) { // SECURITY W-09
		run(t, "wg", "set", "wgnear", "private-key", "/dev/null", "peer", peerKey, "remove")
		all, err := tunnel.Set(t.Context(), config)
		must(t, err)
		text := fmt.Sprintf("%v %+v %#v %x %v %#v", all, all, all, all, tunnel, tunnel)
		if shows(text, keys.nearKey) || shows(text, keys.psk) {
			t.Error("a key is printed")
		}
	})
	t.Run("its configuration socket comes back", func(t *testing.T) {
		must(t, os.Remove("/var/run/wireguard/wgnear.sock"))
		eventually(t, func() bool { return exec.Command("wg", "show", "wgnear").Run() == nil })
		mustSet(t, tunnel, config)
	})
	t.Run("a renamed link is made anew", func(t *testing.T) { // SECURITY F-13
		run(t, "ip", "link", "set", "wgnear", "down", "name", "wgelse")
		if o, err := tunnel.Observe(t.Context()); err != nil || !o.Drifted {
			t.Errorf("not noticed (%v)", err)
		}
		mustSet(t, tunnel, config, madeAnew(peerKey)...)
		if _, err := net.InterfaceByName("wgelse"); err == nil {
			t.Error("the renamed link is left")
		}
		must(t, setUp("wgnear", "10.9.0.2/24", "fd09::2/64"))
		must(t, tunnel.Up())
		mustEcho(t, "10.9.0.1:7")
	})
	t.Run("a deleted link is made anew", func(t *testing.T) { // SECURITY F-13
		done := tunnel.Done()
		run(t, "ip", "link", "delete", "wgnear")
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody noticed")
		}
		mustSet(t, tunnel, config, madeAnew(peerKey)...)
		must(t, setUp("wgnear", "10.9.0.2/24", "fd09::2/64"))
		must(t, tunnel.Up())
		mustEcho(t, "10.9.0.1:7")
	})
	t.Run("Close leaves nothing", func(t *testing.T) {
		done := tunnel.Done()
		must(t, tunnel.Close())
		must(t, tunnel.Close())
		<-done
		if _, err := net.InterfaceByName("wgnear"); err == nil {
			t.Error("the link is left")
		}
		if _, err := os.Stat("/var/run/wireguard/wgnear.sock"); err == nil {
			t.Error("the socket is left")
		}
		if _, err := tunnel.Observe(t.Context()); err == nil {
			t.Error("a closed tunnel is observed")
		}
		eventually(t, func() bool {
			runtime.GC()                                                           // ipc.UAPIOpen leaves one file to the collector
			return runtime.NumGoroutine() <= goroutines+1 && openFiles(t) <= files // +1: this subtest
		})
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(all)
}

func TestEndpointByIPv6(t *testing.T) {
	netnstest.Require(t)
	far := netnstest.New(t)
	veth(t, far)
	keys := newPair(t)
	startPeer(t, &far, keys.far(t))
	tunnel := open(t, wg.Options{Name: "wgsix", Config: keys.near(t, "[2001:db8::2]:51820"), Kind: wg.Userspace, FwMark: mark})
	must(t, setUp("wgsix", "10.9.0.2/24", "fd09::2/64"))
	must(t, tunnel.Up())
	mustEcho(t, "10.9.0.1:7")
	mustEcho(t, "[fd09::1]:7")
}

func TestBusyListenPort(t *testing.T) {
	netnstest.Require(t)
	busy, err := net.ListenPacket("udp4", ":51833")
	must(t, err)
	defer busy.Close()
	config := newPair(t).near(t, "198.51.100.2:51820")
	config.ListenPort = 51833
	tunnel := open(t, wg.Options{Name: "wgbusy", Config: config, Kind: wg.Userspace})
	must(t, setUp("wgbusy"))
	if err := tunnel.Up(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
	must(t, busy.Close())
	must(t, tunnel.Up())
}

func madeAnew(peerKey string) []string {
	return []string{
		"wireguard-go wgnear",
		"wg set wgnear fwmark 0x1000000 private-key (hidden)",
		"wg set wgnear peer " + peerKey + " preshared-key (hidden) endpoint 198.51.100.3:51820 allowed-ips 0.0.0.0/0,::/0",
	}
}

// eventually polls what sends no event.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it does not happen")
		}
	}
}

// (SECURITY C-02)
func TestSocketOfAKilledProcessIsTakenOver(t *testing.T) {
	netnstest.Require(t)
	killed := startPeer(t, nil, peerSpec{Name: "wgkill"})
	killed.kill()
	if _, err := os.Stat("/var/run/wireguard/wgkill.sock"); err != nil {
		t.Fatalf("the killed process left no socket, so this proves nothing: %v", err)
	}
	config := newPair(t).near(t, "198.51.100.2:51820")
	tunnel := open(t, wg.Options{Name: "wgkill", Config: config, Kind: wg.Userspace})
	mustSet(t, tunnel, config)
}

func TestAnothersLinkIsLeftAlone(t *testing.T) {
	netnstest.Require(t)
	config := newPair(t).near(t, "198.51.100.2:51820")
	for name, c := range map[string]struct {
		make func(t *testing.T)
		want string
	}{
		"a bridge": {func(t *testing.T) {
			must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "wgother"}}))
			t.Cleanup(func() { run(t, "ip", "link", "delete", "wgother") })
		}, "there is a link of that name that is not WireGuard's"},
		"another process's tunnel": {func(t *testing.T) { startPeer(t, nil, peerSpec{Name: "wgother"}) }, "another process serves"},
	} {
		for _, o := range []wg.Options{{Kind: wg.Userspace}, {Kind: wg.Auto, Links: &fakeLinks{fail: syscall.EEXIST}}} {
			t.Run(name+"/"+string(o.Kind), func(t *testing.T) {
				c.make(t)
				o.Name, o.Config, o.Logger = "wgother", config, slog.New(slog.DiscardHandler)
				_, err := wg.Open(t.Context(), o)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
				if _, err := net.InterfaceByName("wgother"); err != nil {
					t.Errorf("the link is gone: %v", err)
				}
			})
		}
	}
}

func TestOnlyAKernelWithoutWireGuardFallsBack(t *testing.T) {
	netnstest.Require(t)
	config := newPair(t).near(t, "198.51.100.2:51820")
	for _, c := range []struct {
		name string
		kind wg.Kind
		fail error
		want string // "": it opens
	}{
		{"unsupported, auto", wg.Auto, fmt.Errorf("adding: %w", syscall.EOPNOTSUPP), ""},
		{"unsupported, kernel", wg.Kernel, syscall.EOPNOTSUPP, "this kernel has no WireGuard"},
		{"not permitted", wg.Auto, syscall.EPERM, "CAP_NET_ADMIN"},
		{"out of memory", wg.Auto, syscall.ENOMEM, "cannot allocate memory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tunnel, err := wg.Open(t.Context(), wg.Options{
				Name: "wgfall", Config: config, Kind: c.kind, Links: &fakeLinks{fail: c.fail}, Logger: slog.New(slog.DiscardHandler),
			})
			if err == nil {
				defer tunnel.Close()
			}
			if (c.want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.want) || !errors.Is(err, c.fail)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestKernelDevice(t *testing.T) {
	netnstest.Require(t, "wg")
	links := &fakeLinks{devices: map[string]*peer{}}
	config := newPair(t).near(t, "198.51.100.2:51820")
	o := wg.Options{Name: "wgkern", Config: config, Kind: wg.Kernel, FwMark: mark, Links: links}
	tunnel := open(t, o)
	if tunnel.Kind() != wg.Kernel {
		t.Fatalf("kind %s", tunnel.Kind())
	}
	mustSet(t, tunnel, config)
	if out := run(t, "wg", "show", "wgkern", "fwmark"); out != "0x1000000\n" {
		t.Errorf("fwmark %s", out)
	}
	links.devices["wgkern"].kill()
	delete(links.devices, "wgkern")
	if o, err := tunnel.Observe(t.Context()); err != nil || !o.Drifted {
		t.Errorf("its deletion is not noticed (%v)", err)
	}
	got, err := tunnel.Set(t.Context(), config)
	must(t, err)
	if len(got) != 3 || got[0].String() != "ip link add wgkern type wireguard" {
		t.Errorf("steps %v", steps(got))
	}
	must(t, tunnel.Up())
	done := tunnel.Done()
	must(t, tunnel.Close())
	<-done
	if d := cmp.Diff([]string{"wgkern"}, links.deleted); d != "" {
		t.Errorf("deleted links (-want +got)\n%s", d)
	}
}

func TestEndpointThatIsAName(t *testing.T) {
	netnstest.Require(t)
	keys := newPair(t)
	config := keys.near(t, "vpn.example.com:51820")
	peerKey, k := public(t, keys.farKey), config.Peers[0].PublicKey
	tunnel := open(t, wg.Options{Name: "wgname", Config: config, Kind: wg.Userspace})
	if o, err := tunnel.Observe(t.Context()); err != nil || o.Peers[k].Endpoint.IsValid() {
		t.Errorf("it has an endpoint before anybody resolved it: %+v (%v)", o, err)
	}
	step, err := tunnel.SetEndpoint(t.Context(), k, ap("198.51.100.2:51820"))
	must(t, err)
	want := "wg set wgname peer " + peerKey + " remove peer " + peerKey +
		" preshared-key (hidden) endpoint 198.51.100.2:51820 allowed-ips 0.0.0.0/0,::/0"
	if step.String() != want {
		t.Errorf("step %s\nwant %s", step, want)
	}
	mustSet(t, tunnel, config)
	// Another name: the old address is forgotten.
	mustSet(t, tunnel, keys.near(t, "other.example.com:51820"),
		"wg set wgname peer "+peerKey+" remove peer "+peerKey+" preshared-key (hidden) allowed-ips 0.0.0.0/0,::/0")
	if o, err := tunnel.Observe(t.Context()); err != nil || o.Drifted || o.Peers[k].Endpoint.IsValid() {
		t.Errorf("observed %+v (%v)", o, err)
	}
	if _, err := tunnel.SetEndpoint(t.Context(), wg.PublicKey{1}, ap("198.51.100.2:51820")); err == nil {
		t.Error("a peer that is not there has an endpoint")
	}
}

// A peer that is called over IPv4 first and then over IPv6 is called at that
// address, and not at one that has bytes of both.
func TestEndpointTurnsFromIPv4ToIPv6(t *testing.T) {
	netnstest.Require(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // each keeps addresses of its own
	far := netnstest.New(t)
	veth(t, far)
	keys := newPair(t)
	startPeer(t, &far, keys.far(t))
	config := keys.near(t, "vpn.example.com:51820")
	k := config.Peers[0].PublicKey
	tunnel := open(t, wg.Options{Name: "wgturn", Config: config, Kind: wg.Userspace, FwMark: mark})
	must(t, setUp("wgturn", "10.9.0.2/24"))
	must(t, tunnel.Up())
	call := func(to string, wait time.Duration) error {
		t.Helper()
		_, err := tunnel.SetEndpoint(t.Context(), k, ap(to))
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		return echo(ctx, "10.9.0.1:7", to)
	}
	for range 3 {
		if call("198.51.100.2:9", 100*time.Millisecond) == nil { // where nobody listens
			t.Fatal("it is answered over IPv4")
		}
		if err := call("[2001:db8::2]:51820", 4*time.Second); err != nil { // before the next handshake
			t.Error(err)
		}
	}
}

func TestMonitorFindsTheFarEnd(t *testing.T) {
	netnstest.Require(t)
	far := netnstest.New(t)
	veth(t, far)
	keys := newPair(t)
	startPeer(t, &far, keys.far(t))
	config := keys.near(t, "vpn.example.com:51820")
	tunnel := open(t, wg.Options{Name: "wgfind", Config: config, Kind: wg.Userspace, FwMark: mark})
	must(t, setUp("wgfind", "10.9.0.2/24"))
	must(t, tunnel.Up())
	var asked atomic.Int32
	up := make(chan wg.Status, 1)
	m := wg.NewMonitor(wg.MonitorOptions{
		Name: "wgfind", Config: config, Device: tunnel,
		Probe:   func(ctx context.Context) error { return echo(ctx, "10.9.0.1:7", "probe") },
		Lookups: []wg.Lookup{lookup(&asked, "198.51.100.66"), lookup(&asked, "198.51.100.2")},
		Changed: func(s wg.Status) {
			if s.State == wg.Up {
				up <- s
			}
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go m.Run(ctx)
	select {
	case s := <-up:
		if s.Endpoint != ap("198.51.100.2:51820") || s.Kind != wg.Userspace || s.RX == 0 {
			t.Errorf("status %+v", s)
		}
	case <-ctx.Done():
		t.Errorf("it is not found: %+v", m.Status())
	}
}
