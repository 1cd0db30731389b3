package wg

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"
)

// userspace is WireGuard in this process, on a TUN. It serves its configuration
// socket where wg(8) and wgctrl look for it, so that nobody need know which
// kind of device this is. It ends with the process.
type userspace struct {
	name string
	tun  *heldTUN
	dev  *device.Device
	log  *slog.Logger
	wait sync.WaitGroup

	mu     sync.Mutex   // guards following
	socket net.Listener // nil when it is lost; closing one twice would close somebody's descriptor
	conns  map[net.Conn]bool
	closed bool
}

// newUserspace makes the TUN, which is down, or takes the one that is given, and
// its device, which is stopped.
func newUserspace(name string, mtu int, given *os.File, log *slog.Logger) (link, error) {
	open := func() (tun.Device, error) { return tun.CreateTUN(name, mtu) }
	if given != nil {
		open = func() (tun.Device, error) { return tun.CreateTUNFromFile(given, mtu) }
	}
	opened, err := open()
	if err != nil && given != nil {
		given.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("opening a TUN: %w%s", err, tunHint())
	}
	t := hold(opened)
	u := &userspace{name: name, tun: t, log: log, conns: map[net.Conn]bool{}}
	u.dev = device.NewDevice(t, conn.NewDefaultBind(), u.logger())
	if u.socket, err = listenUAPI(name); err != nil {
		u.dev.Close()
		return nil, err
	}
	u.wait.Go(func() { u.serve(u.socket) })
	return u, nil
}

// tunHint says what to do where there are no TUNs at all.
func tunHint() string {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return " (is the module tun loaded, and /dev/net/tun given to the container?)"
	}
	return ""
}

// listenUAPI also takes over the socket of a process that was killed.
func listenUAPI(name string) (net.Listener, error) {
	file, err := ipc.UAPIOpen(name)
	if err != nil {
		return nil, fmt.Errorf("opening the configuration socket of %s: %w", name, err)
	}
	defer file.Close() // UAPIListen has a copy
	socket, err := ipc.UAPIListen(name, file)
	if err != nil {
		return nil, fmt.Errorf("serving the configuration socket of %s: %w", name, err)
	}
	return socket, nil
}

// logger is quiet: what the device complains of is for debugging, and must not
// quote a key that somebody sent it.
func (u *userspace) logger() *device.Logger {
	return &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf: func(format string, args ...any) {
			u.log.Debug("userspace device", "says", redact(fmt.Sprintf(format, args...)))
		},
	}
}

// serve answers on the socket until the device is closed. A socket that
// somebody deletes is made again, for without it the device cannot be seen.
func (u *userspace) serve(socket net.Listener) {
	for {
		c, err := socket.Accept()
		if err == nil {
			u.handle(c)
			continue
		}
		u.mu.Lock()
		if u.closed {
			u.mu.Unlock()
			return
		}
		socket.Close() // before the new one: it unlinks the path
		next, err := listenUAPI(u.name)
		if err != nil {
			u.socket = nil
			u.mu.Unlock()
			u.log.Error("the tunnel's configuration socket is lost", "err", err)
			u.dev.Close()
			return
		}
		u.socket, socket = next, next
		u.mu.Unlock()
	}
}

func (u *userspace) handle(c net.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		c.Close()
		return
	}
	u.conns[c] = true
	u.wait.Go(func() {
		u.dev.IpcHandle(c) // closes c
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.conns, c)
	})
}

// up binds the UDP sockets.
func (u *userspace) up() error { return u.dev.Up() }

// forgetAddresses makes the device forget the addresses that it sent to. It
// keeps them for the next packet, and one that was an IPv4 address spoils the
// IPv6 address that is written into it: only 4 of the 16 bytes are, and packets
// go anywhere (WireGuard/wireguard-go#135). They are in a sync.Pool, which two
// collections empty.
func (*userspace) forgetAddresses() {
	runtime.GC()
	runtime.GC()
}

// heldTUN keeps it from the device that its link is up or down; up alone starts
// it. CreateTUN says "up" at once where the kernel refuses an empty write to a
// TUN before it looks (seen on Linux 6.18), and peers would be called before all
// is set up. And a link that goes down for a moment need not cost its sessions.
type heldTUN struct {
	tun.Device
	events chan tun.Event
}

func hold(t tun.Device) *heldTUN {
	h := &heldTUN{Device: t, events: make(chan tun.Event)}
	go func() {
		defer close(h.events)
		for e := range t.Events() {
			h.events <- e & tun.EventMTUUpdate
		}
	}()
	return h
}

// Events ends with the TUN.
func (h *heldTUN) Events() <-chan tun.Event { return h.events }

func (u *userspace) done() <-chan struct{} { return u.dev.Wait() }

func (u *userspace) alive() bool {
	select {
	case <-u.dev.Wait():
		return false
	default:
	}
	name, err := tunName(u.tun.File())
	return err == nil && name == u.name
}

func (u *userspace) close() error {
	u.mu.Lock()
	u.closed = true
	socket := u.socket
	for c := range u.conns {
		c.Close()
	}
	u.mu.Unlock()
	if socket != nil {
		socket.Close() // its inotify watch may be gone already; that is no error of ours
	}
	u.dev.Close()
	u.wait.Wait()
	// The listener does not unlink a path whose watch failed first.
	if err := os.Remove(socketOf(u.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the configuration socket: %w", err)
	}
	return nil
}

// socketOf is where wgctrl and wg look for a userspace device.
func socketOf(name string) string { return "/var/run/wireguard/" + name + ".sock" }

// StaleSocket returns the configuration socket of a userspace tunnel, and
// whether it is there although no process serves it: its process was killed. (A
// live one may be another network namespace's: the directory has no namespaces.)
func StaleSocket(name string) (path string, stale bool) {
	path = socketOf(name)
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return path, errors.Is(err, unix.ECONNREFUSED)
}
