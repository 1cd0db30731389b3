package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/resolver/server"
	"smartdns/routing"
)

// handoverEnv tells the program that takes our place what it gets: a will, as
// JSON.
const handoverEnv = "SMARTDNS_HANDOVER"

// will is what a process leaves to the one in its place.
type will struct {
	PID    int            `json:"pid"`    // who it is for; anybody else has got it by mistake
	FDs    []int          `json:"fds"`    // descriptors; what each is, the kernel says
	Raised []routing.Path `json:"raised"` // tunnels that go on and whose PostUp was run
	Paused int64          `json:"paused"` // when queries began to wait, in ns of CLOCK_MONOTONIC
}

// firstListenFD is the first descriptor of a service manager that listens for us
// (sd_listen_fds(3)).
const firstListenFD = 3

// mostFDs is more than anybody gives us.
const mostFDs = 1 << 16

// inherited is what this process was given at its start, each until somebody
// takes it.
type inherited struct {
	claim   *os.File
	lock    *os.File
	control *os.File
	sockets []server.Socket
	tuns    map[routing.Path]*os.File
	raised  []routing.Path
	paused  time.Duration // since boot; 0: nobody was here before us
}

// inherit finds what the environment says that we were given, and takes that out
// of it. The environment may be anybody's: what a descriptor is, the kernel is
// asked, and one that is nothing of ours is left alone.
func inherit(d Dirs, log *slog.Logger) *inherited {
	in := &inherited{tuns: map[routing.Path]*os.File{}}
	text, named := os.LookupEnv(handoverEnv)
	_ = os.Unsetenv(handoverEnv) // no child is meant
	if w, err := readWill(text); err == nil {
		in.raised, in.paused = w.Raised, time.Duration(w.Paused)
		in.adoptAll(w.FDs, d)
	} else if named {
		log.Warn(handoverEnv + " is ignored: " + err.Error())
	}
	fds, err := listenFDs()
	if err != nil {
		log.Warn("LISTEN_FDS is ignored: " + err.Error())
	}
	in.adoptAll(fds, d)
	return in
}

func readWill(text string) (will, error) {
	var w will
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return will{}, err
	}
	if w.PID != os.Getpid() {
		return will{}, fmt.Errorf("it is for process %d", w.PID)
	}
	return w, nil
}

// listenFDs returns what a service manager gave us.
func listenFDs() ([]int, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // our parent's
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > mostFDs {
		return nil, fmt.Errorf("%q is no number of descriptors", count)
	}
	var all []int
	for i := range n {
		all = append(all, firstListenFD+i)
	}
	return all, nil
}

// adoptAll takes the descriptors that are something of ours.
func (in *inherited) adoptAll(fds []int, d Dirs) {
	slices.Sort(fds)
	for _, fd := range slices.Compact(fds) {
		if fd > unix.Stderr && fd <= math.MaxInt32 {
			in.adopt(fd, d)
		}
	}
}

// adopt takes fd if it is something of ours.
func (in *inherited) adopt(fd int, d Dirs) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return // there is none
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		in.adoptSocket(fd, d)
	case unix.S_IFREG:
		var at unix.Stat_t
		if in.lock == nil && unix.Stat(lockFile(d), &at) == nil && at.Dev == st.Dev && at.Ino == st.Ino {
			in.lock = ours(fd, "lock")
		}
	case unix.S_IFCHR:
		in.adoptTUN(fd)
	}
}

// ours makes a file of a descriptor, which no child gets.
func ours(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

func (in *inherited) adoptTUN(fd int) {
	ifr, err := unix.NewIfreq("")
	if err != nil || unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr) != nil {
		return
	}
	path := routing.Path(ifr.Name())
	if in.tuns[path] != nil || unix.SetNonblock(fd, true) != nil {
		return
	}
	in.tuns[path] = ours(fd, ifr.Name())
}

func (in *inherited) adoptSocket(fd int, d Dirs) {
	at, err := unix.Getsockname(fd)
	kind, kerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	listens, lerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if errors.Join(err, kerr, lerr) != nil {
		return
	}
	network := ""
	switch {
	case kind == unix.SOCK_DGRAM:
		network = "udp"
	case kind == unix.SOCK_STREAM && listens != 0:
		network = "tcp"
	default:
		return
	}
	if u, ok := at.(*unix.SockaddrUnix); ok {
		switch {
		case network != "tcp":
		case u.Name == instanceName && in.claim == nil:
			in.claim = ours(fd, u.Name)
		case u.Name == controlSocket(d.Run) && in.control == nil:
			in.control = ours(fd, u.Name)
		}
		return
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	known := map[string][]int{"udp": {unix.IPPROTO_UDP}, "tcp": {unix.IPPROTO_TCP, unix.IPPROTO_MPTCP}}
	if addr, ok := sockaddr(at); ok && err == nil && slices.Contains(known[network], protocol) {
		in.sockets = append(in.sockets, server.Socket{Network: network, Addr: addr, File: ours(fd, addr.String())})
	}
}

// sockaddr returns the address of an IP socket, with its zone by name.
func sockaddr(at unix.Sockaddr) (netip.AddrPort, bool) {
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)), true
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(at.Addr)
		if at.ZoneId != 0 {
			zone := strconv.Itoa(int(at.ZoneId))
			if link, err := net.InterfaceByIndex(int(at.ZoneId)); err == nil {
				zone = link.Name
			}
			a = a.WithZone(zone)
		}
		return netip.AddrPortFrom(a, uint16(at.Port)), true
	}
	return netip.AddrPort{}, false
}

// takeSockets returns those that queries come by.
func (in *inherited) takeSockets() []server.Socket {
	if in == nil {
		return nil
	}
	all := in.sockets
	in.sockets = nil
	return all
}

// take returns what is at one of in's places, and leaves nothing there.
func (in *inherited) take(at **os.File) *os.File {
	f := *at
	*at = nil
	return f
}

// listens returns those of wanted at which queries come to us already, by UDP and
// by TCP.
func (in *inherited) listens(wanted []netip.AddrPort) []netip.AddrPort {
	if in == nil {
		return nil
	}
	at := func(network string, a netip.AddrPort) bool {
		return slices.ContainsFunc(in.sockets, func(s server.Socket) bool { return s.Network == network && s.Addr == a })
	}
	return slices.DeleteFunc(slices.Clone(wanted), func(a netip.AddrPort) bool { return !at("udp", a) || !at("tcp", a) })
}

// takeTUN returns what holds the link of a tunnel, nil for nothing.
func (in *inherited) takeTUN(p routing.Path) *os.File {
	if in == nil {
		return nil
	}
	f := in.tuns[p]
	delete(in.tuns, p)
	return f
}

// holds reports whether a link goes on with what we have of it.
func (in *inherited) holds(p routing.Path) bool { return in != nil && in.tuns[p] != nil }

// takeRaised reports, once, whether PostUp of a tunnel that goes on was run.
func (in *inherited) takeRaised(p routing.Path) bool {
	if in == nil {
		return false
	}
	i := slices.Index(in.raised, p)
	if i < 0 {
		return false
	}
	in.raised = slices.Delete(in.raised, i, i+1)
	return true
}

// keepTunnels closes the links of tunnels that are not among those.
func (in *inherited) keepTunnels(those []routing.Path) {
	if in == nil {
		return
	}
	for p, f := range in.tuns {
		if !slices.Contains(those, p) {
			f.Close()
			delete(in.tuns, p)
		}
	}
	in.raised = slices.DeleteFunc(in.raised, func(p routing.Path) bool { return !slices.Contains(those, p) })
}

// close closes what nobody has taken.
func (in *inherited) close() {
	in.keepTunnels(nil)
	for _, s := range in.takeSockets() {
		s.File.Close()
	}
	for _, f := range []*os.File{in.claim, in.lock, in.control} {
		if f != nil {
			f.Close()
		}
	}
}
