package hostdns_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"

	"smartdns/lab/netnstest"
	"smartdns/resolver/server"
	"smartdns/routing/hostdns"
)

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func (m *machine) startResolved() *exec.Cmd {
	m.t.Helper()
	return m.up("org.freedesktop.resolve1", unpacked(m.t, "/lib/systemd/systemd-resolved"), nil)
}

// resolve1 calls a method of systemd-resolved, as resolvectl would.
func (m *machine) resolve1(method string, link string, args ...any) {
	m.t.Helper()
	must(m.t, m.tryResolve1(method, link, args...))
}

func (m *machine) tryResolve1(method string, link string, args ...any) error {
	m.t.Helper()
	i, err := net.InterfaceByName(link)
	must(m.t, err)
	o := m.connect().Object("org.freedesktop.resolve1", "/org/freedesktop/resolve1")
	return o.Call("org.freedesktop.resolve1.Manager."+method, 0, append([]any{int32(i.Index)}, args...)...).Err
}

type (
	busServer struct {
		Family  int32
		Address []byte
	}
	busDomain struct {
		Name      string
		RouteOnly bool
	}
)

// providerOn gives the uplink the servers that a DHCP client would.
func (m *machine) providerOn(link string) {
	m.t.Helper()
	m.resolve1("SetLinkDNS", link, []busServer{{2, provider.AsSlice()}})
	m.resolve1("SetLinkDomains", link, []busDomain{{"lan.example", false}})
}

// onLink returns what systemd-resolved knows for a link.
func (m *machine) onLink(link string) string {
	m.t.Helper()
	i, err := net.InterfaceByName(link)
	must(m.t, err)
	conn := m.connect()
	var path dbus.ObjectPath
	must(m.t, conn.Object("org.freedesktop.resolve1", "/org/freedesktop/resolve1").
		Call("org.freedesktop.resolve1.Manager.GetLink", 0, int32(i.Index)).Store(&path))
	var all []string
	for _, p := range []string{"DNS", "Domains", "DefaultRoute"} {
		v, err := conn.Object("org.freedesktop.resolve1", path).GetProperty("org.freedesktop.resolve1.Link." + p)
		must(m.t, err)
		all = append(all, p+" "+v.String())
	}
	return strings.Join(all, "; ")
}

// (SECURITY F-34)
func TestSystemdResolved(t *testing.T) {
	m := newMachine(t)
	m.serveBoth()
	resolved := m.startResolved()
	must(t, os.Symlink("../run/systemd/resolve/stub-resolv.conf", etcConf))
	m.providerOn("uplink")
	uplink, tunnel := m.onLink("uplink"), m.onLink("t0")
	m.expectLook("systemd-resolved", false)
	m.goesTo("127.0.0.53", "provider")

	h, changed, p := m.host("t0")
	for range 2 {
		must(t, h.Set())
		m.expectLook("systemd-resolved", true)
	}
	m.goesTo("127.0.0.53", "us")
	if to, err := os.Readlink(etcConf); to != "../run/systemd/resolve/stub-resolv.conf" {
		t.Errorf("resolv.conf is now %q (%v)", to, err)
	}
	stop := run(t, h)

	m.resolve1("RevertLink", "t0") // somebody else's
	if err := wait(t, changed); err != nil {
		t.Errorf("after somebody reverted our link: %v", err)
	}
	m.goesTo("127.0.0.53", "us")

	kill(resolved)
	must(t, os.RemoveAll("/run/systemd/resolve"))
	m.startResolved()
	if err := wait(t, changed); err != nil {
		t.Errorf("after systemd-resolved began anew: %v", err)
	}
	m.expectLook("systemd-resolved", true)
	m.goesTo("127.0.0.53", "us")
	m.providerOn("uplink") // its DHCP client comes later
	m.goesTo("127.0.0.53", "us")
	stop()

	next := hostdns.New(hostdns.Options{Path: p.path, Saved: p.saved, Bus: m.bus}) // after a crash
	if got := next.Kept(); !slices.Equal(got, []string{"resolvectl revert t0"}) {
		t.Errorf("Kept says %q", got)
	}
	must(t, next.Restore())
	m.expectLook("systemd-resolved", false)
	m.goesTo("127.0.0.53", "provider")
	if now := m.onLink("t0"); now != tunnel {
		t.Errorf("t0 has %s, had %s", now, tunnel)
	}
	if now := m.onLink("uplink"); now != uplink {
		t.Errorf("the uplink has %s, had %s", now, uplink)
	}
	p.expectForgotten(t)

	t.Run("on an uplink", func(t *testing.T) {
		h, _, p := m.host("uplink")
		must(t, h.Set())
		m.goesTo("127.0.0.53", "us")
		if now := m.onLink("uplink"); !strings.Contains(now, "lan.example") {
			t.Errorf("its search list is lost: %s", now)
		}
		other := hostdns.New(m.options(p, "t0", make(chan error, 1))) // a tunnel came with a reload
		must(t, other.Set())
		m.goesTo("127.0.0.53", "us")
		if now := m.onLink("uplink"); now != uplink {
			t.Errorf("the uplink has %s, had %s", now, uplink)
		}
		must(t, other.Restore())
		m.goesTo("127.0.0.53", "provider")
		p.expectForgotten(t)
	})
	t.Run("on a link that is not used", func(t *testing.T) {
		m.ip("addr flush dev t0")
		t.Cleanup(func() { m.ip("addr add 10.9.0.1/24 dev t0") })
		h, _, p := m.host("t0")
		if err := h.Set(); err == nil || !strings.Contains(err.Error(), "does not ask the servers of t0, which is down or has no address") {
			t.Errorf("got %v", err)
		}
		must(t, h.Restore())
		p.expectForgotten(t)
	})
	t.Run("on no link", func(t *testing.T) {
		h, _, _ := m.host("")
		if err := h.Set(); err == nil || !strings.Contains(err.Error(), "neither a tunnel nor") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("without the stub", func(t *testing.T) {
		must(t, os.Remove(etcConf))
		must(t, os.Symlink("/run/systemd/resolve/resolv.conf", etcConf))
		h, _, p := m.host("t0")
		must(t, h.Set())
		if !asks(etcConf, loopback4) {
			t.Errorf("programs that read resolv.conf ask others:\n%s", p.read(t))
		}
		must(t, os.WriteFile("/etc/nsswitch.conf", []byte("hosts: files resolve [!UNAVAIL=return] dns\n"), 0o644))
		m.expectLook(hostdns.ByUs, true)
		must(t, h.Restore())
		if to, err := os.Readlink(etcConf); to != "/run/systemd/resolve/resolv.conf" {
			t.Errorf("resolv.conf is now %q (%v)", to, err)
		}
		p.expectForgotten(t)
	})
	t.Run("as the C library's other resolver", func(t *testing.T) {
		must(t, os.WriteFile("/etc/nsswitch.conf", []byte("hosts: files resolve [!UNAVAIL=return] dns\n"), 0o644))
		must(t, os.Remove(etcConf))
		must(t, os.WriteFile(etcConf, []byte(original), 0o644))
		h, _, p := m.host("t0")
		must(t, h.Set())
		m.expectLook(hostdns.ByUs, true)
		m.goesTo("127.0.0.53", "us")
		must(t, h.Restore())
		if got := p.read(t); got != original {
			t.Errorf("resolv.conf is %q", got)
		}
		m.goesTo("127.0.0.53", "provider")
		p.expectForgotten(t)
	})
	t.Run("on a link of networkd's", func(t *testing.T) { testNetworkd(t, m) })
}

// One in another network namespace is none of this host's, though we see its
// bus.
func TestSystemdResolvedOfAnotherNamespace(t *testing.T) {
	m := newMachine(t)
	netnstest.Require(t, "unshare")
	m.up("org.freedesktop.resolve1", "unshare", nil, "--net", unpacked(t, "/lib/systemd/systemd-resolved"))
	must(t, os.Symlink("../run/systemd/resolve/stub-resolv.conf", etcConf))
	h, _, p := m.host("t0")
	must(t, h.Set())
	m.expectLook(hostdns.ByUs, true)
	p.expectKept(t, "saved")
	must(t, h.Restore())
	if to, err := os.Readlink(etcConf); to != "../run/systemd/resolve/stub-resolv.conf" {
		t.Errorf("resolv.conf is now %q (%v)", to, err)
	}
}

// networkd stands in for the real one, which manages no link without udev.
type networkd struct{ calls chan string }

func (n networkd) say(s string) *dbus.Error { n.calls <- s; return nil }

func (n networkd) SetLinkDNS(_ int32, s []busServer) *dbus.Error {
	a, _ := netip.AddrFromSlice(s[0].Address)
	return n.say("DNS " + a.String())
}
func (n networkd) SetLinkDomains(_ int32, d []busDomain) *dbus.Error {
	return n.say("domain " + d[0].Name)
}
func (n networkd) SetLinkDefaultRoute(int32, bool) *dbus.Error { return n.say("default route") }
func (n networkd) SetLinkDNSOverTLS(int32, string) *dbus.Error { return nil }
func (n networkd) SetLinkDNSSEC(int32, string) *dbus.Error     { return nil }
func (n networkd) RevertLinkDNS(int32) *dbus.Error             { return n.say("revert") }

// What systemd-resolved refuses, because networkd looks after the link, is said
// to networkd.
func testNetworkd(t *testing.T, m *machine) {
	i, err := net.InterfaceByName("t0")
	must(t, err)
	dir := "/run/systemd/netif/links"
	must(t, os.MkdirAll(dir, 0o755))
	state := filepath.Join(dir, strconv.Itoa(i.Index))
	must(t, os.WriteFile(state, []byte("ADMIN_STATE=configured\nOPER_STATE=routable\nCARRIER_STATE=carrier\nADDRESS_STATE=routable\n"), 0o644))
	t.Cleanup(func() { os.RemoveAll("/run/systemd/netif") })
	n := networkd{make(chan string, 16)}
	conn := m.connect()
	must(t, conn.Export(n, "/org/freedesktop/network1", "org.freedesktop.network1.Manager"))
	if _, err := conn.RequestName("org.freedesktop.network1", 0); err != nil {
		t.Fatal(err)
	}
	m.ip("link set t0 down")
	m.ip("link set t0 up") // systemd-resolved looks again
	if err := m.tryResolve1("SetLinkDNS", "t0", []busServer{{2, loopback4.AsSlice()}}); err == nil {
		t.Skip("SKIPPED: this systemd-resolved does not heed networkd's state")
	}
	h, _, _ := m.host("t0")
	_ = h.Set() // the stand-in does not tell systemd-resolved
	var said []string
	for range 3 {
		said = append(said, <-n.calls) // in no order: the stand-in takes each call in a goroutine
	}
	slices.Sort(said)
	if want := []string{"DNS 127.0.0.1", "default route", "domain ."}; !slices.Equal(said, want) {
		t.Errorf("networkd was told %q, want %q", said, want)
	}
}

// systemd-resolved's 127.0.0.53 leaves us 127.0.0.1, and keeps us from 0.0.0.0.
func TestTheStubIsNoClash(t *testing.T) { // SECURITY F-35
	m := newMachine(t)
	m.startResolved()
	s := server.New(nil, server.DefaultLimits(), testLog(t))
	t.Cleanup(func() { s.Close() })
	must(t, s.Listen([]netip.AddrPort{netip.AddrPortFrom(loopback4, 53)}))
	must(t, s.Listen(nil))
	err := s.Listen([]netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")})
	le, ok := errors.AsType[*server.ListenError](err)
	if !ok || !strings.HasPrefix(le.Holder, "systemd-resolve") {
		t.Fatalf("0.0.0.0:53 beside the stub: %v", err)
	}
}

// Nothing is said to a program that is not there, and a bus that is not there
// is no error.
func TestWithoutABus(t *testing.T) {
	p := newPlace(t, "# Generated by NetworkManager\nnameserver 192.0.2.1\n")
	h := hostdns.New(hostdns.Options{
		Path: p.path, Saved: p.saved, Servers: []netip.Addr{loopback4}, Bus: "unix:path=" + t.TempDir() + "/none", Logger: testLog(t),
	})
	must(t, h.Set())
	if v := hostdns.Look(context.Background(), p.path, "unix:path=/nowhere", loopback4); !v.Asks {
		t.Errorf("Look says %+v", v)
	}
	must(t, h.Restore())
	p.expect(t, "# Generated by NetworkManager\nnameserver 192.0.2.1\n", 0o640, p.gid)
	p.expectForgotten(t)
}
