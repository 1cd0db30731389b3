package lab_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"smartdns/lab"
	"smartdns/lab/netnstest"
)

const self = "/proc/self/exe"

func TestDaemonLifecycle(t *testing.T) {
	ctx, w := newWorld(t)
	p, err := w.Gateway.StartDaemon(ctx, []string{self, "fake-daemon"}, w.GatewayConfig(), "-v")
	if err != nil {
		t.Fatal(err)
	}
	want := "args [run -c " + w.Gateway.ConfigFile() + " --run-dir /run/smartdns --state-dir " + w.Gateway.StateDir() + " -v]"
	if !strings.Contains(p.Log(), want) {
		t.Errorf("log %q does not hold %q", p.Log(), want)
	}
	if m, err := w.Client.Ask(ctx, lab.Question{Server: lab.LANV4, Name: "www.example.com"}); err != nil || len(lab.Addresses(m)) != 1 {
		t.Errorf("asking the daemon: %v, %v", m, err)
	}
	if err := p.Reload(ctx); err != nil {
		t.Error(err)
	}
	if got := p.Notices(); !slices.Equal(got, []string{"READY=1", "STATUS=fine", "RELOADING=1", "READY=1", "STATUS=reloaded"}) {
		t.Errorf("notices %q", got)
	}
	// Its /run is the gateway's alone, and stays for the next one.
	if _, err := os.Stat("/run/smartdns"); !os.IsNotExist(err) {
		t.Errorf("the daemon's run directory is outside: %v", err)
	}
	if p.ExitCode() != -1 {
		t.Errorf("exit code %d while it runs", p.ExitCode())
	}
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
	if p.ExitCode() != 0 || !strings.HasSuffix(p.Log(), "bye\n") {
		t.Errorf("exit code %d, log %q", p.ExitCode(), p.Log())
	}
	if out, err := w.Gateway.Exec(ctx, "ls", "/run/smartdns"); err != nil || out != "here\n" {
		t.Errorf("ls: %q, %v", out, err)
	}

	p, err = w.Gateway.StartDaemon(ctx, []string{self, "fake-daemon"}, w.GatewayConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if p.ExitCode() != -1 {
		t.Errorf("exit code %d of a killed process", p.ExitCode())
	}
}

func TestStartSaysWhyItFailed(t *testing.T) {
	ctx, w := newWorld(t)
	_, err := w.Gateway.Start(ctx, self, "fake-daemon", "fail")
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "this is the reason") {
		t.Errorf("got %v", err)
	}
	if _, err := w.Gateway.Start(ctx, "/no/such/program"); err == nil {
		t.Error("a missing program starts")
	}
	if _, err := w.Gateway.Exec(ctx, "sh", "-c", "echo out; echo reason >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "reason") {
		t.Errorf("got %v", err)
	}
}

// The host's resolv.conf cannot be reached from the gateway.
func TestEtcIsPrivate(t *testing.T) {
	ctx, w := newWorld(t)
	before, berr := os.ReadFile("/etc/resolv.conf")
	out, err := w.Gateway.Exec(ctx, "cat", "/etc/resolv.conf")
	if err != nil || out != "nameserver 127.0.0.1\n" {
		t.Errorf("resolv.conf: %q, %v", out, err)
	}
	if _, err := w.Gateway.Exec(ctx, "sh", "-c", "echo nameserver 192.0.2.53 > /etc/new && mv /etc/new /etc/resolv.conf"); err != nil {
		t.Error(err)
	}
	after, aerr := os.ReadFile("/etc/resolv.conf")
	if !bytes.Equal(before, after) || (berr == nil) != (aerr == nil) {
		t.Fatalf("the host's resolv.conf is now %q (%v)", after, aerr)
	}
	if _, err := os.Stat("/etc/new"); !os.IsNotExist(err) {
		t.Errorf("/etc/new is on the host: %v", err)
	}
}

func TestDemo(t *testing.T) {
	netnstest.Require(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	err := lab.Demo(ctx, &out, lab.DemoOptions{Exe: self, Args: []string{"fake-daemon"}})
	t.Logf("\n%s", out.String())
	// The stand-in for the daemon sends everything direct, in the clear.
	if err == nil || !strings.Contains(err.Error(), "should not be there") {
		t.Errorf("got %v, want a complaint about leaks", err)
	}
	for _, want := range []string{"203.98.7.65", "142.250.72.196", "39.156.66.10", "$ smartdns cache flush www.google.com\n", "$ smartdns query www.google.com\nwww.google.com A   NOERROR"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the output", want)
		}
	}
	for l := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > 80 {
			t.Errorf("%d columns: %q", n, l)
		}
	}
}

func TestUnprivileged(t *testing.T) {
	netnstest.Require(t)
	c := exec.Command(self, "unprivileged")
	if ids, err := os.ReadFile("/proc/self/uid_map"); err == nil && !strings.Contains(string(ids), "4294967295") {
		t.Skip("SKIPPED: in a user namespace already, where every other test is this one")
	}
	if os.Getuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	c.Dir = "/"
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=/tmp"}
	out, err := c.CombinedOutput()
	if c.ProcessState.ExitCode() == 3 {
		t.Skipf("SKIPPED: %s", out)
	}
	if c.ProcessState.ExitCode() != 7 || !strings.Contains(string(out), "uid 0 seen 192.168.8.20 <nil> leaks true") || !strings.Contains(string(out), "a.test A   NOERROR") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	netnstest.Require(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	before := footprint(t)
	w, err := lab.New(ctx, t)
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.Gateway.StartDaemon(ctx, []string{self, "fake-daemon"}, w.GatewayConfig())
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.Client.Connect(ctx, at(lab.AbroadWebV4, 443))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(p.Pid(), 0); err != unix.ESRCH {
		t.Errorf("process %d is still there: %v", p.Pid(), err)
	}
	if _, err := os.Stat(w.Dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", w.Dir, err)
	}
	s.Close()
	// Threads and goroutines end a moment after what they did.
	for after := footprint(t); !slices.Equal(before, after); after = footprint(t) {
		if ctx.Err() != nil {
			t.Fatalf("left over:\n%q\nbefore:\n%q", after, before)
		}
	}
	if err := w.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}
