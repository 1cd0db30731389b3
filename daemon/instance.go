package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// instanceName is an abstract unix socket. Such names belong to a network
// namespace, as does all that we change, and vanish with the process that holds
// them, however it ends.
const instanceName = "@smartdns"

// errRunning means that a daemon has this network namespace or run directory.
var errRunning = errors.New("smartdns runs already")

// lockFile is in the run directory.
func lockFile(d Dirs) string { return filepath.Join(d.Run, "lock") }

// lock makes the run directory ours: daemons of two namespaces must not share
// one. Who was here before may have left had, open and locked.
func lock(run string, had *os.File) (f *os.File, err error) {
	if err := os.MkdirAll(run, 0o750); err != nil {
		return nil, fmt.Errorf("making the run directory: %w", err)
	}
	if f = had; f == nil {
		f, err = os.OpenFile(lockFile(Dirs{Run: run}), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("locking the run directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: its run directory is %s; stop it first, or give another --run-dir", errRunning, run)
		}
		return nil, fmt.Errorf("locking the run directory: %w", err)
	}
	return f, nil
}

// unlock ends what lock began.
func unlock(run string, f *os.File) {
	os.Remove(lockFile(Dirs{Run: run}))
	f.Close()
}

// claim makes this process the one that may change the kernel state of its
// network namespace, until the listener is closed, or death. Who was here before
// may have left had.
func claim(had *os.File) (*net.UnixListener, error) {
	if had != nil {
		return unixListener(had)
	}
	l, err := listenName(instanceName)
	if errors.Is(err, unix.EADDRINUSE) {
		if pid := claimant(); pid != 0 {
			return nil, fmt.Errorf("%w in this network namespace (pid %d); stop it first", errRunning, pid)
		}
		return nil, fmt.Errorf("%w in this network namespace; stop it first", errRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("claiming this network namespace: %w", err)
	}
	return l, nil
}

// listenName holds an abstract name until it is closed, or death.
func listenName(name string) (*net.UnixListener, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
}

// unixListener makes a listener of an open socket, which it closes.
func unixListener(f *os.File) (*net.UnixListener, error) {
	defer f.Close() // the listener has a copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("taking over a socket: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("taking over a socket: it is a %T", l)
	}
	return u, nil
}

// claimant returns the pid of the process that holds the claim, 0 when it
// cannot be seen.
func claimant() int {
	pid, _ := holder(instanceName)
	return pid
}

// holder reports whether a process holds an abstract name, and which: 0 when it
// cannot be seen.
func holder(name string) (pid int, held bool) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return 0, false
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, true
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid, true
}
