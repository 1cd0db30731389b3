package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/lab"
)

// strictly is the gateway's configuration with the kill switch.
func strictly(config string) string { return config + "\n[routing]\nstrict = true\n" }

// closed checks that nothing leaves the gateway but to the LAN.
func (w *world) closed(when string) {
	w.t.Helper()
	for _, from := range w.hosts() {
		for _, to := range []netip.Addr{lab.AbroadWebV4, lab.AbroadWebV6, lab.HomeWebV4} {
			if s, err := from.Visit(w.context(300*time.Millisecond), port443(to)); err == nil {
				w.t.Errorf("%s: %s reached %s: %s", when, from.Name, to, way(s))
			}
		}
	}
	if _, err := w.Client.Connect(w.context(5*time.Second), netip.AddrPortFrom(lab.LANV4, lab.InboundPort)); err != nil {
		w.t.Errorf("%s: the LAN: %v", when, err)
	}
	w.noLeaks()
}

// The kill switch closes before there is a daemon, is taken over by it without a
// gap, and stays closed over a stop, a crash, a flushed table and configurations
// that are broken, empty or no longer say it; down alone opens it, and leaves the
// host as it was (SECURITY 6.4; L-01, L-08, L-09, L-12, F-30).
func TestKillSwitch(t *testing.T) {
	w := newWorld(t)
	w.config = strictly(w.config)
	w.writeResolvConf("nameserver 223.5.5.5\\n")
	before := w.dump()
	gateway := w.Gateway.Namespace
	old, err := gateway.Connect(w.context(5*time.Second), port443(lab.AbroadWebV4))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if w.Sniffer.Leaks() == 0 {
		t.Fatal("the sniffer is blind") // L-01
	}
	w.Sniffer.Reset()

	lockdown := func(config string) (string, error) {
		if err := w.Gateway.WriteConfig(config); err != nil {
			t.Fatal(err)
		}
		return w.cli("lockdown", "--from-config")
	}
	if out, err := lockdown(w.config + "strict = maybe\n"); err == nil || !strings.Contains(err.Error(), "the kill switch was closed without it") {
		t.Errorf("lockdown with a broken configuration: %v\n%s", err, out)
	}
	w.closed("locked down, without a configuration")
	if out, err := w.cli("down"); err != nil {
		t.Errorf("down: %v\n%s", err, out)
	}
	w.equal("after down", w.dump(), before)
	if out, err := lockdown(strings.Replace(w.config, "strict = true", "strict = false", 1)); err != nil || out != "" {
		t.Errorf("lockdown where strict is false: %v\n%s", err, out)
	}
	w.equal("after no lockdown", w.dump(), before)
	if out, err := lockdown(w.config); err != nil || !strings.Contains(out, "unreachable") || !strings.Contains(out, "chain inet smartdns strict") {
		t.Errorf("lockdown: %v\n%s", err, out)
	}
	w.closed("locked down")
	if err := old.Say(w.context(time.Second), "still here"); err == nil {
		t.Error("a session of before goes on")
	}
	w.noLeaks()

	if out, err := w.cli("status"); err == nil || !strings.Contains(out, "the kill switch is closed") {
		t.Errorf("status without a daemon: %v\n%s", err, out)
	}

	w.start()
	w.waitUp()
	if s := w.status(); s.KillSwitch.State != "secured" {
		t.Errorf("the kill switch is %s, want secured", s.KillSwitch.State)
	}
	w.discreet()
	w.portal()
	tr := w.traffic()
	for i := range sized(3, 150) {
		begun := time.Now()
		switch i % 3 {
		case 0:
			w.stop()
		case 1:
			if err := w.daemon.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			<-w.daemon.Done()
		case 2:
			if err := w.daemon.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			w.closed("stopped")
			if err := w.Gateway.FlushRuleset(); err != nil {
				t.Fatal(err)
			}
			w.closed("stopped and flushed")
			for what, config := range map[string]string{
				"broken": w.config + "strict = maybe\n", "empty": "", "lax": strings.Replace(w.config, "strict = true", "strict = false", 1),
			} {
				if err := w.Gateway.WriteConfig(config); err != nil {
					t.Fatal(err)
				}
				out, err := w.cli("run")
				if err == nil || !strings.Contains(err.Error(), "kill switch") {
					t.Errorf("a start with a configuration that is %s: %v\n%s", what, err, out)
				}
			}
			if out, err := w.cli("cleanup"); err == nil || !strings.Contains(err.Error(), "only `smartdns down` opens it") {
				t.Errorf("cleanup: %v\n%s", err, out)
			}
			w.closed("after starts that failed")
		}
		w.start()
		w.waitUp()
		tr.works(fmt.Sprintf("after start %d", i), 10*time.Second)
		t.Logf("stop and start: %s", time.Since(begun).Round(time.Millisecond))
		w.noLeaks()
	}
	if err := w.Gateway.WriteConfig(strings.Replace(w.config, "strict = true", "strict = false", 1)); err != nil {
		t.Fatal(err)
	}
	if out, err := w.cli("reload"); err == nil || !strings.Contains(err.Error(), "only `smartdns down` opens it") {
		t.Errorf("a reload that would open it: %v\n%s", err, out)
	}
	tr.stop()
	w.noLeaks()
	if out, err := w.cli("down"); err != nil {
		t.Errorf("down: %v\n%s", err, out)
	}
	w.equal("after down", w.dump(), before)
}

// discreet checks that nobody on the uplink learns the tunnel's address by ARP,
// and that a program without the right to mark packets cannot (SECURITY L-14,
// L-15).
func (w *world) discreet() {
	w.t.Helper()
	const link = "gw0" // the ISP's end of the uplink
	if err := w.ISP.AddRoute(lab.Route{To: netip.PrefixFrom(lab.TunnelV4, 32), Dev: link}); err != nil {
		w.t.Fatal(err)
	}
	if out, err := w.ISP.Exec(w.context(5*time.Second), "ip", "neigh", "flush", "dev", link); err != nil {
		w.t.Fatal(err, out)
	}
	// Whoever answers for the second has had the question about the first.
	for _, to := range []netip.Addr{lab.TunnelV4, lab.UplinkV4} {
		c, err := w.ISP.Dial(w.context(5*time.Second), "udp", netip.AddrPort{}, netip.AddrPortFrom(to, 9))
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := c.Write([]byte("who has it?")); err != nil {
			w.t.Fatal(err)
		}
		c.Close()
	}
	known := func(a netip.Addr) (mac string) {
		all, err := w.ISP.Netlink().NeighList(0, unix.AF_INET)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, n := range all {
			if n.IP.String() == a.String() && len(n.HardwareAddr) > 0 {
				mac = n.HardwareAddr.String()
			}
		}
		return mac
	}
	w.waitFor("ARP for the gateway's own address is answered", 10*time.Second, func() error {
		if known(lab.UplinkV4) == "" {
			return errors.New("not yet")
		}
		return nil
	})
	if mac := known(lab.TunnelV4); mac != "" {
		w.t.Errorf("ARP for the tunnel's address is answered on the uplink: %s", mac)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread has lost its rights
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			if err = unix.Capset(&header, &none[0]); err == nil {
				err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x1000000)
			}
			unix.Close(fd)
		}
		done <- err
	}()
	if err := <-done; !errors.Is(err, unix.EPERM) {
		w.t.Errorf("a program without rights marks its packets: %v, want EPERM", err)
	}
}

// portal opens one, and checks that it lets out a login of the gateway and
// nothing else, until it is closed.
func (w *world) portal() {
	w.t.Helper()
	gateway := w.Gateway.Namespace
	ask := func() netip.Addr {
		m, err := gateway.Ask(w.context(5*time.Second), lab.Question{Server: netip.MustParseAddr("127.0.0.1"), Name: "n77.foreign.test"})
		if err != nil || len(lab.Addresses(m)) == 0 {
			w.t.Fatalf("asking the portal: %v, %v", m, err)
		}
		return lab.Addresses(m)[0]
	}
	visit := func(from *lab.Namespace, to netip.Addr) string {
		s, err := from.Visit(w.context(5*time.Second), port443(to))
		if err != nil {
			return err.Error()
		}
		return way(s)
	}
	to := ask()
	if got := visit(gateway, to); got != "tunnel" {
		w.t.Errorf("before the portal: %s", got)
	}
	var open atomic.Bool
	w.Sniffer.Allow(func(p lab.Packet) bool { return open.Load() && p.Dst == to && p.DstPort == 443 })
	open.Store(true)
	if out, err := w.cli("portal", "10m"); err != nil || !strings.Contains(out, "223.5.5.5") {
		w.t.Fatalf("opening the portal: %v\n%s", err, out)
	}
	if got := ask(); got != to {
		w.t.Errorf("the network's resolver says %s, want %s", got, to)
	}
	for _, c := range []struct {
		from *lab.Namespace
		to   netip.Addr
		want string
	}{{gateway, to, "direct"}, {gateway, lab.AbroadWebV4, "tunnel"}, {w.Client, to, "tunnel"}} {
		if got := visit(c.from, c.to); got != c.want {
			w.t.Errorf("while the portal is open, %s to %s: %s, want %s", c.from.Name, c.to, got, c.want)
		}
	}
	session, err := gateway.Connect(w.context(5*time.Second), port443(to))
	if err != nil {
		w.t.Fatal(err)
	}
	defer session.Close()
	if s := w.status(); s.KillSwitch.Portal == nil || !slices.Contains(s.KillSwitch.Portal.Addrs, to) || s.KillSwitch.State != "secured" {
		w.t.Errorf("status: %+v", s.KillSwitch)
	}
	if out, err := w.cli("portal", "off"); err != nil {
		w.t.Errorf("closing the portal: %v\n%s", err, out)
	}
	w.Sniffer.Leaks() // what was sent is counted
	open.Store(false)
	if err := session.Say(w.context(2*time.Second), "still here"); err == nil {
		w.t.Error("a session of the portal outlives it")
	}
	if got := visit(gateway, to); got != "tunnel" {
		w.t.Errorf("after the portal: %s", got)
	}
	if s := w.status(); s.KillSwitch.Portal != nil {
		w.t.Errorf("status after the portal: %+v", s.KillSwitch.Portal)
	}
	w.noLeaks()
}
