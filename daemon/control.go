package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// socketGroup may use the control socket, where the system has such a group.
const socketGroup = "smartdns"

func controlSocket(runDir string) string { return filepath.Join(runDir, SocketName) }

// takeControl is listenControl with a socket that is there already: had, unless
// that is nil, or nobody can find it any more.
func takeControl(runDir string, had *os.File) (*net.UnixListener, error) {
	if had == nil {
		return listenControl(runDir)
	}
	if at, err := os.Lstat(controlSocket(runDir)); err != nil || at.Mode().Type() != os.ModeSocket {
		had.Close()
		return listenControl(runDir)
	}
	l, err := unixListener(had)
	if err == nil {
		l.SetUnlinkOnClose(true)
	}
	return l, err
}

// listenControl opens the control socket. Nobody but its owner and the group
// can connect from the first instant on.
func listenControl(runDir string) (*net.UnixListener, error) {
	path := controlSocket(runDir)
	// A socket that a killed daemon left: claim has shown that none lives here.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing a stale control socket: %w", err)
	}
	// The mode of a unix socket is made by bind: there is no later moment at
	// which it would still be closed to others.
	old := syscall.Umask(0o117)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	if g, err := user.LookupGroup(socketGroup); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			// Without it, root alone can use the socket, which is safe.
			_ = os.Chown(path, -1, gid)
			_ = os.Chown(runDir, -1, gid)
		}
	}
	return l, nil
}

// serveControl serves h on l until ctx ends.
func serveControl(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the control socket: %w", err)
	}
	return nil
}
