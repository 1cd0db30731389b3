package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"smartdns/configs/units"
	"smartdns/lab"
)

// confined starts the program as the unit of systemd does: as a user of its own
// with two capabilities, the tunnel's file in a directory of credentials, and
// all of /proc/sys read-only but what $WRITABLE names.
const confined = `set -e
mount --bind /proc/sys /proc/sys
for dir in $WRITABLE; do mount --bind $dir $dir; done
mount -o remount,bind,ro /proc/sys
install -d -o 65534 -g 65534 -m 0750 /run/smartdns /run/wireguard
install -d -o 65534 -g 65534 -m 0700 "$STATE"
install -d -m 0755 "$CREDENTIALS_DIRECTORY"
install -o 65534 -m 0400 "$SECRET" "$CREDENTIALS_DIRECTORY/$NAME"
chmod 0666 "$NOTIFY_SOCKET"
exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs \
	--inh-caps=-all,+net_admin,+net_bind_service --ambient-caps=-all,+net_admin,+net_bind_service \
	--bounding-set=-all,+net_admin,+net_bind_service "$0" "$@"`

// startConfined starts the daemon so, with what is writable below /proc/sys.
func (w *world) startConfined(writable string) {
	w.t.Helper()
	g := w.Gateway
	exe := []string{
		"env", "WRITABLE=" + writable, "STATE=" + g.StateDir(), "SECRET=" + g.WireGuardFile(), "NAME=" + units.Credential(g.WireGuardFile()),
		"CREDENTIALS_DIRECTORY=" + w.Dir + "/credentials", "unshare", "--mount", "--propagation", "slave", "bash", "-c", confined, w.exe,
	}
	d, err := g.StartDaemon(w.context(20*time.Second), exe, w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.daemon = d
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("the daemon's log:\n%s", d.Log())
		}
	})
}

// As a service of systemd has it, and at a boot where nothing of the network is
// there yet: port 53 answers at once with what is on disk, and everything works
// when there are links, without another start.
func TestBootWithoutRootOrNetwork(t *testing.T) {
	if os.Getenv("SMARTDNS_LAB_ENTERED") != "" {
		t.Skip("SKIPPED: a user namespace of one user has no other to run as")
	}
	w := newWorld(t)
	if err := os.Chmod(w.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := w.Gateway.SetForwarding(false); err != nil {
		t.Fatal(err)
	}
	w.config += "\n[records]\nlines = [\"nas.home.arpa. 300 A 192.168.8.2\"]\n"
	w.inGateway("for l in $(ip -o link | grep -v LOOPBACK | cut -d' ' -f2 | tr -d : | cut -d@ -f1); do ip addr save dev $l > /run/$l.addrs; ip addr flush dev $l; ip link set $l down; done; test -z \"$(ip route; ip -6 route)\" || ip route")
	w.startConfined("/proc/sys/net")

	local := func(name string) (*dns.Msg, error) {
		return w.Gateway.Ask(w.context(10*time.Second), lab.Question{Server: netip.MustParseAddr("127.0.0.1"), Name: name, Type: dns.TypeA})
	}
	if m, err := local("nas.home.arpa"); err != nil || len(lab.Addresses(m)) != 1 {
		t.Errorf("a record of one's own: %v, %v", m, err)
	}
	if m, err := local("www.baidu.com"); err != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a name that nobody can be asked about: %v, %v", m, err)
	}
	w.inGateway("cd /run; for l in *.addrs; do ip link set ${l%.addrs} up; ip addr restore < $l; done")
	if err := w.Gateway.SetUplink(w.context(10*time.Second), true); err != nil {
		t.Fatal(err)
	}
	w.waitFor("the LAN is served", 15*time.Second, func() error {
		m, err := w.Client.Ask(w.context(10*time.Second), lab.Question{Server: gatewayDNS, Name: "www.google.com"})
		if err == nil && len(lab.Addresses(m)) != 1 {
			err = fmt.Errorf("%v", m)
		}
		return err
	})
	w.waitUp()
	for _, from := range w.hosts() {
		w.bothWays(from, 1<<20)
	}
	for name, want := range map[string]string{"www.baidu.com": "direct", "www.google.com": "tunnel"} {
		if err := w.carries(w.Client, w.resolve(name, dns.TypeA), want, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.privileges()
	if s := w.status(); !s.Fine {
		t.Errorf("not fine: %s", s.Summary)
	}
	w.noLeaks()
	if err := w.daemon.Stop(w.context(20 * time.Second)); err != nil {
		t.Error(err)
	}
	if v, err := w.Gateway.Sysctl("net/ipv4/ip_forward"); err != nil || v != "0" {
		t.Errorf("forwarding after the stop: %s, %v", v, err)
	}

	// As in a container: nothing below /proc/sys may be written.
	w.startConfined("")
	w.waitUp()
	w.bothWays(w.Gateway.Namespace, 0)
	fixes := 0
	for _, c := range w.status().Conditions {
		if strings.Contains(c.What, "/proc/sys is read-only") {
			fixes++
			w.inGateway(c.Fix)
		}
	}
	if fixes < 2 {
		t.Errorf("%d parameters are said to be wrong: %+v", fixes, w.status().Conditions)
	}
	w.waitFor("nothing is wrong with parameters", 90*time.Second, func() error {
		for _, c := range w.status().Conditions {
			if strings.Contains(c.What, "/proc/sys is read-only") {
				return fmt.Errorf("%s", c.What)
			}
		}
		return nil
	})
	w.bothWays(w.Client, 0)
}

// privileges checks what the daemon may do.
func (w *world) privileges() {
	w.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.Pid()))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, want := range []string{"\nUid:\t65534\t", "\nNoNewPrivs:\t1\n", "\nCapEff:\t0000000000001400\n", "\nCapBnd:\t0000000000001400\n"} {
		if !strings.Contains(string(status), want) {
			w.t.Errorf("no %q in\n%s", want, status)
		}
	}
}
