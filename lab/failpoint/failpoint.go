// Package failpoint ends a program before any one of the changes that it makes
// to the kernel and to files. It needs no help of the program: the kernel asks,
// by seccomp, before each system call that may change something.
//
// What counts as a change: a message to netlink that does not only ask, a file
// that is created, written, synced, renamed or removed, an interface that is
// made, a socket that is bound, what is said over unix sockets (the service
// manager, a WireGuard device), and the end of the program. Reading, packets and
// the program's memory do not count.
package failpoint

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Env names, in a program's environment, the socket at which a Gate waits for
// it: a program that calls Enter is then watched.
const Env = "SMARTDNS_FAILPOINT"

// A Gate watches one program. Its methods may be called concurrently.
type Gate struct {
	listener *net.UnixListener
	done     chan struct{} // closed when nobody is watched any more
	err      error         // why watching failed; after done

	mu     sync.Mutex // guards following
	left   int        // changes that may still be made; negative: all
	passed []string
	last   string // before which the program was killed
}

// Listen makes a Gate that waits at path for one program, and lets it make all
// its changes until Limit says otherwise.
func Listen(path string) (*Gate, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("waiting for the program to watch: %w", err)
	}
	g := &Gate{listener: l, done: make(chan struct{}), left: -1}
	go func() {
		defer close(g.done)
		g.err = g.run()
	}()
	return g, nil
}

// Limit lets the program make n more changes; before the next one it is
// killed. What it has made so far is forgotten.
func (g *Gate) Limit(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.passed = n, nil
}

// Passed returns the changes that were made since the last Limit, in order.
func (g *Gate) Passed() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.passed)
}

// Killed returns the change before which the program was killed, "" if it was
// not.
func (g *Gate) Killed() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// Close ends watching. The program, if there still is one, then fails at every
// change: end it first.
func (g *Gate) Close() error {
	err := g.listener.Close()
	<-g.done
	if errors.Is(g.err, net.ErrClosed) {
		return err
	}
	return errors.Join(err, g.err)
}

// run watches the program that comes, until it ends.
func (g *Gate) run() error {
	c, err := g.listener.AcceptUnix()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	fd, pid, err := receive(c)
	if err != nil {
		return fmt.Errorf("taking over the program to watch: %w", err)
	}
	defer unix.Close(fd)
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("finding the program to watch: %w", err)
	}
	defer unix.Close(process)
	if _, err := c.Write([]byte("go")); err != nil {
		return fmt.Errorf("letting the program to watch go on: %w", err)
	}
	return g.watch(fd, program{pid, process})
}

// watch answers the kernel's questions.
func (g *Gate) watch(fd int, p program) error {
	for {
		n, ended, err := next(fd)
		if ended || err != nil {
			return err
		}
		if what := p.change(n.data); what != "" && !g.pass(what) {
			if err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0); err != nil {
				return fmt.Errorf("killing the watched program: %w", err)
			}
			continue // the call is never made
		}
		if err := letGo(fd, n.id); err != nil {
			return err
		}
	}
}

// pass reports whether a change may be made.
func (g *Gate) pass(what string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left == 0 {
		if g.last == "" {
			g.last = what
		}
		return false
	}
	g.left--
	g.passed = append(g.passed, what)
	return true
}

// Enter has this program watched if its environment says so: then it does not
// return, but begins anew. Call it before anything else.
func Enter() error {
	path := os.Getenv(Env)
	if path == "" {
		return nil
	}
	if err := enter(path); err != nil {
		return fmt.Errorf("being watched at %s: %w", path, err)
	}
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, Env+"=") {
			env = append(env, e)
		}
	}
	return fmt.Errorf("beginning anew, watched: %w", unix.Exec("/proc/self/exe", os.Args, env))
}
