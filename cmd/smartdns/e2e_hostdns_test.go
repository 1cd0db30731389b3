package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startResolved gives the gateway a system bus, and systemd-resolved as it is
// unpacked by .ci/resolvers, or installed.
func (w *world) startResolved() {
	w.t.Helper()
	dir := os.Getenv("SMARTDNS_RESOLVERS")
	if dir == "" {
		cache, _ := os.UserCacheDir()
		dir = filepath.Join(cache, "smartdns-resolvers")
	}
	program := "/lib/systemd/systemd-resolved"
	if _, err := os.Stat(dir + program); err == nil {
		program = dir + program
	} else if _, err := os.Stat(program); err != nil {
		w.t.Skipf("SKIPPED: systemd-resolved is neither installed nor in %s (.ci/resolvers unpacks it)", dir)
	}
	out, err := w.run("sh", "-c", `set -e
echo systemd-resolve:x:0:0::/:/bin/false >> /etc/passwd
echo systemd-resolve:x:0: >> /etc/group
mkdir -p /run/dbus /run/systemd
cat > /run/bus.conf <<'E'
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
<allow send_type="signal"/><allow receive_type="signal"/></policy></busconfig>
E
dbus-daemon --config-file=/run/bus.conf --fork --print-pid 2>/dev/null
`+program+` >/dev/null 2>&1 &
echo $!
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
`)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, pid := range strings.Fields(out) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			w.t.Fatalf("no process: %q", out)
		}
		w.t.Cleanup(func() { _ = unix.Kill(n, unix.SIGKILL) })
	}
	w.waitFor("systemd-resolved answers", 30*time.Second, func() error {
		_, err := w.run("dig", "+tries=1", "+timeout=2", "@127.0.0.53", "localhost")
		return err
	})
}

// wantHost says why status does not say that this host asks us, or not, by
// systemd-resolved.
func (w *world) wantHost(asks bool, summary string) error {
	s := w.status()
	if s.Listen.HostAsks != asks || s.Listen.HostBy != "systemd-resolved" || !strings.HasSuffix(s.Summary, summary) {
		return fmt.Errorf("it says %q (asks us: %t, by %q) and %v", s.Summary, s.Listen.HostAsks, s.Listen.HostBy, s.Conditions)
	}
	return nil
}

// [listen] system = true where systemd-resolved says whom this host asks: it
// asks us for everything by our tunnel's link, and nothing stays of that
// (SECURITY F-34, F-35).
func TestThisHostByResolved(t *testing.T) {
	w := newWorld(t)
	w.startResolved()
	w.config = inTable(w.config, "[listen]", "system = true")
	w.start()
	w.waitUp()
	w.waitFor("status says by whom", 30*time.Second, func() error {
		return w.wantHost(true, "; this host asks us by systemd-resolved")
	})
	if out, err := w.run("dig", "+short", "@127.0.0.53", "n7.foreign.test"); err != nil || !strings.Contains(out, ".") {
		t.Errorf("asking 127.0.0.53: %q, %v", out, err)
	}
	w.stop()
	if got, err := w.run("readlink", "/etc/resolv.conf"); got != "../run/systemd/resolve/stub-resolv.conf\n" {
		t.Errorf("resolv.conf leads to %q (%v)", got, err)
	}
	if left, err := w.run("sh", "-c", "ls "+w.Gateway.StateDir()+" | grep resolv.conf"); err == nil {
		t.Errorf("kept: %s", left)
	}

	w.config += "\n[routing]\nmode = \"off\"\n" // no tunnel: by the uplink
	w.start()
	w.waitFor("status says by whom", 30*time.Second, func() error {
		return w.wantHost(true, "; this host asks us by systemd-resolved")
	})
	if out, err := w.run("dig", "+short", "@127.0.0.53", "n7.cn.test"); err != nil || !strings.Contains(out, ".") {
		t.Errorf("asking 127.0.0.53: %q, %v", out, err)
	}
	w.stop()

	w.config = strings.Replace(w.config, "system = true", "system = false", 1)
	w.start()
	if err := w.wantHost(false, "; this host itself asks another resolver, by systemd-resolved"); err != nil {
		t.Error(err)
	}
}
