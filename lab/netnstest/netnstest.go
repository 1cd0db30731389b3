// Package netnstest runs a test binary in network, mount and (without root)
// user namespaces of its own, so that tests meet a real kernel and never the
// host's network.
package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// envInside tells the re-executed test binary that it is in the namespace; its
// value is "yes", or why no namespace could be made.
const envInside = "SMARTDNS_TEST_NETNS"

// Main is a TestMain's body. It runs the test binary again in fresh
// namespaces: lo is up, /run is an empty tmpfs (also reached as /var/run), and
// nothing else is there. Where the system does not allow that, tests still run,
// and those that call Require are skipped with the reason.
func Main(m *testing.M) {
	if os.Getenv(envInside) != "" {
		if os.Getenv(envInside) == "yes" {
			if err := enter(); err != nil {
				fmt.Fprintln(os.Stderr, "netnstest: preparing the namespace:", err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	reason := "yes"
	if err := try(); err != nil {
		reason = "this system does not allow namespaces: " + err.Error()
	}
	os.Exit(again(reason))
}

func attr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return a
}

// try reports why the namespaces cannot be made.
func try() error {
	c := exec.Command("/proc/self/exe", "-test.run=^$")
	c.Env = append(os.Environ(), envInside+"=yes")
	c.SysProcAttr = attr()
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func again(inside string) int {
	// Pdeathsig counts the death of the thread, not of the process.
	runtime.LockOSThread()
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), envInside+"="+inside)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if inside == "yes" {
		c.SysProcAttr = attr()
	}
	signal.Ignore(os.Interrupt) // the child handles it
	if err := c.Run(); err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			return e.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "netnstest:", err)
		return 1
	}
	return 0
}

func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	return nil
}

// Require skips t, saying why, unless it runs in a namespace of its own and
// every named program is on the PATH.
func Require(t testing.TB, programs ...string) {
	t.Helper()
	switch v := os.Getenv(envInside); v {
	case "yes":
	case "":
		t.Fatal("netnstest.Require without netnstest.Main in TestMain")
	default:
		t.Skip("SKIPPED: " + v)
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: %s is not installed", p)
		}
	}
}

// New makes a network namespace with lo up, and closes it when t ends.
func New(t testing.TB) netns.NsHandle {
	t.Helper()
	Require(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if e := netns.Set(old); e != nil {
		panic(e) // the thread must not serve others from the wrong namespace
	}
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// Do runs f on a thread that is in ns. Sockets opened by f stay in ns;
// goroutines started by f do not.
func Do(t testing.TB, ns netns.NsHandle, f func()) {
	t.Helper()
	errc := make(chan error, 1)
	go func() {
		// Never unlocked: the thread is in another namespace and dies with
		// the goroutine.
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			errc <- err
			return
		}
		defer close(errc)
		f()
	}()
	if err := <-errc; err != nil {
		t.Fatal(err)
	}
}
