package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"smartdns/lab"
	"smartdns/lab/failpoint"
	"smartdns/web/api"
)

// envRun makes this test binary be the program: its arguments are those of
// smartdns.
const envRun = "SMARTDNS_TEST_RUN"

func TestMain(m *testing.M) {
	if err := failpoint.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(envRun) != "" {
		if file := os.Getenv(envClock); file != "" {
			os.Exit(runByClock(file))
		}
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	code, again, err := lab.Enter()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Setenv(envNoLab, err.Error())
	} else if again {
		os.Exit(code)
	}
	os.Setenv(envRun, "1") // for the children
	os.Exit(m.Run())
}

// envNoLab says why there can be no lab.
const envNoLab = "SMARTDNS_TEST_NO_LAB"

// world is a lab with what the tests of this file ask of it.
type world struct {
	*lab.World
	t      testing.TB
	exe    string
	config string
	daemon *lab.Process
}

// newWorld makes the lab. The test goes on beside the others that call it: they
// mostly wait.
func newWorld(t testing.TB) *world {
	t.Helper()
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
	return newWorldAlone(t)
}

// newWorldAlone is newWorld for a test that changes what all of them see.
func newWorldAlone(t testing.TB) *world {
	t.Helper()
	if why := os.Getenv(envNoLab); why != "" {
		t.Skip("SKIPPED: " + why)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w, err := lab.New(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if w := w.Close(); w != nil {
			t.Error(w)
		}
	})
	return &world{World: w, t: t, exe: exe, config: w.GatewayConfig()}
}

// started is newWorld with the daemon running on the gateway and its tunnel up.
func started(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	w.start()
	w.waitUp()
	return w
}

func (w *world) start() {
	w.t.Helper()
	d, err := w.Gateway.StartDaemon(w.context(20*time.Second), []string{w.exe}, w.config)
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

func (w *world) context(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	w.t.Cleanup(cancel)
	return ctx
}

// cli runs a command of smartdns on the gateway.
func (w *world) cli(args ...string) (string, error) {
	all := append(args, "-c", w.Gateway.ConfigFile(), "--run-dir", w.Gateway.RunDir(), "--state-dir", w.Gateway.StateDir())
	return w.Gateway.Exec(w.context(20*time.Second), w.exe, all...)
}

// status is what smartdns status says.
func (w *world) status() api.Status {
	w.t.Helper()
	out, _ := w.cli("status", "--json")
	var s api.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		w.t.Fatalf("smartdns status --json: %v\n%s", err, out)
	}
	return s
}

// waitUp waits until the first tunnel has shaken hands.
func (w *world) waitUp() {
	w.t.Helper()
	w.waitFor("the tunnel is up", 15*time.Second, w.tunnelUp)
}

// tunnelUp says why the first tunnel is not up.
func (w *world) tunnelUp() error {
	if s := w.status().Tunnels[0].State; s != "up" {
		return fmt.Errorf("it is %s", s)
	}
	return nil
}

// timedOut reports whether what failed had waited for somebody who said nothing.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT)
}

// waitFor asks until check is content, at the pace of the asking. What takes
// longer than limit is told; it fails when it takes 20 s more, which only a
// machine with much else to do may need.
func (w *world) waitFor(what string, limit time.Duration, check func() error) time.Duration {
	w.t.Helper()
	begun := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		took := time.Since(begun)
		if err == nil {
			if took > limit {
				w.t.Logf("after %s, not within %s: %s", took, limit, what)
			}
			return took
		}
		if took > limit+20*time.Second {
			w.t.Fatalf("not within %s: %s: %v", limit, what, err)
		}
		<-tick.C
	}
}

// gatewayDNS is where clients ask.
var gatewayDNS = netip.MustParseAddr("192.168.8.1")

// resolve asks the gateway from the client, and returns the only answer's
// address.
func (w *world) resolve(name string, qtype uint16) netip.Addr {
	w.t.Helper()
	m, err := w.Client.Ask(w.context(10*time.Second), lab.Question{Server: gatewayDNS, Name: name, Type: qtype})
	if err != nil {
		w.t.Fatal(err)
	}
	a := lab.Addresses(m)
	if len(a) == 0 {
		w.t.Fatalf("%s has no address: %v", name, m)
	}
	return a[0]
}

// way is how a session reached its server.
func way(s lab.Seen) string {
	if s.ThroughTunnel() {
		return "tunnel"
	}
	return "direct"
}

// noLeaks fails when a frame was on the uplink that should not have been.
func (w *world) noLeaks() {
	w.t.Helper()
	if n := w.Sniffer.Leaks(); n != 0 {
		w.t.Errorf("%d frames leaked:\n%s", n, strings.Join(w.Sniffer.Frames(), "\n"))
	}
}
