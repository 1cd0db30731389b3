package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/routing"
)

// openOver returns a descriptor that is left open over exec, as another program
// finds it.
func openOver(t *testing.T, c held) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if cerr := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD, 10) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return fd
}

// leave puts a will into the environment.
func leave(t *testing.T, w will) {
	t.Helper()
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(handoverEnv, string(text))
}

// What was handed over is what the kernel says that it is, each at its place and
// closed to children; the rest stays open as it was (SECURITY C-07).
func TestInheritedDescriptors(t *testing.T) {
	netnstest.Require(t)
	d := Dirs{Run: filepath.Join(t.TempDir(), "run")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	locked, err := lock(d.Run, nil)
	must(err)
	defer locked.Close()
	claimed, err := claim(nil)
	must(err)
	defer claimed.Close()
	control, err := listenControl(d.Run)
	must(err)
	control.SetUnlinkOnClose(false)
	defer control.Close()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5401})
	must(err)
	defer udp.Close()
	tcp, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: net.IPv6loopback, Port: 5402})
	must(err)
	defer tcp.Close()
	conn, err := net.Dial("tcp6", tcp.Addr().String())
	must(err)
	defer conn.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	must(err)
	defer file.Close()
	r, w, err := os.Pipe()
	must(err)
	defer r.Close()
	defer w.Close()
	elsewhere, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "other.sock"), Net: "unix"})
	must(err)
	defer elsewhere.Close()

	var fds, foreign []int
	for _, c := range []held{locked, claimed, control, udp, tcp} {
		fds = append(fds, openOver(t, c))
	}
	for _, c := range []held{conn.(*net.TCPConn), file, r, w, elsewhere} {
		foreign = append(foreign, openOver(t, c))
	}
	leave(t, will{
		PID: os.Getpid(), Raised: []routing.Path{"wg0", "wg1"}, Paused: 1,
		FDs: slices.Concat(fds, foreign, fds, []int{-1, 0, 1, 2, 1 << 20, math.MaxInt32}),
	})
	in := inherit(d, slog.New(slog.DiscardHandler))
	defer in.close()
	if in.lock == nil || in.claim == nil || in.control == nil || in.paused != 1 {
		t.Fatalf("inherited %+v", in)
	}
	var got []string
	for _, s := range in.sockets {
		got = append(got, s.String())
	}
	slices.Sort(got)
	if want := "tcp [::1]:5402 udp 127.0.0.1:5401"; strings.Join(got, " ") != want {
		t.Errorf("sockets %v, want %s", got, want)
	}
	for _, fd := range fds {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: %v, flags %d: a child gets it", fd, err, flags)
		}
	}
	for _, fd := range foreign {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != 0 {
			t.Errorf("descriptor %d, which is nothing of ours: %v, flags %d", fd, err, flags)
		}
		unix.Close(fd)
	}
	if _, there := os.LookupEnv(handoverEnv); there {
		t.Error("children see what was left to us")
	}
	in.keepTunnels([]routing.Path{"wg1"})
	if in.takeRaised("wg0") || !in.takeRaised("wg1") || in.takeRaised("wg1") {
		t.Error("PostUp is remembered of a tunnel that went, or twice")
	}

	// Those that they are copies of go, as their process does.
	claimed.Close()
	locked.Close()
	control.Close()
	if _, err := claim(nil); err == nil {
		t.Error("the name could be claimed although it was handed over")
	}
	again, err := claim(in.take(&in.claim))
	must(err)
	defer again.Close()
	if _, err := lock(d.Run, nil); err == nil {
		t.Error("the run directory could be locked although its lock was handed over")
	}
	kept, err := lock(d.Run, in.take(&in.lock))
	must(err)
	defer unlock(d.Run, kept)
	listens, err := takeControl(d.Run, in.take(&in.control))
	must(err)
	c, err := net.Dial("unix", controlSocket(d.Run))
	must(err)
	c.Close()
	listens.Close()
	if exists(controlSocket(d.Run)) {
		t.Error("the control socket stays when it is closed")
	}
}

// A control socket that somebody has removed meanwhile is made anew.
func TestInheritedControlSocketThatNobodyFinds(t *testing.T) {
	run := t.TempDir()
	old, err := listenControl(run)
	if err != nil {
		t.Fatal(err)
	}
	had := os.NewFile(uintptr(openOver(t, old)), "had")
	old.Close() // and its path
	l, err := takeControl(run, had)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", controlSocket(run))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// What is no will, or another's, gives nothing and breaks nothing.
func TestForgedWills(t *testing.T) {
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, pid := openOver(t, l), os.Getpid()
	defer unix.Close(fd)
	for _, text := range []string{
		"", "garbage", "7 8 9", "null", "[]", `""`, "{}", `{"pid":"1"}`, strings.Repeat("[", 1<<16),
		fmt.Sprintf(`{"pid":%d,"fds":[%d]}`, pid+1, fd),
		fmt.Sprintf(`{"pid":%d,"fds":[%d]`, pid, fd),
		fmt.Sprintf(`{"pid":%d,"fds":[%d,1e30]}`, pid, fd),
		fmt.Sprintf(`{"pid":%d,"fds":{"7":%d}}`, pid, fd),
	} {
		var log bytes.Buffer
		t.Setenv(handoverEnv, text)
		in := inherit(Dirs{Run: t.TempDir()}, slog.New(slog.NewTextHandler(&log, nil)))
		if len(in.sockets) != 0 || in.paused != 0 || !strings.Contains(log.String(), handoverEnv+" is ignored") {
			t.Errorf("%.40q: inherited %+v, log %q", text, in, log.String())
		}
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != 0 {
		t.Errorf("the socket of a forged will: %v, flags %d", err, flags)
	}
}

// A service manager's sockets are taken as well (sd_listen_fds(3)): never what it
// left to another process.
func TestSocketsOfAServiceManager(t *testing.T) {
	for _, c := range []struct {
		pid, fds string
		want     []int
		bad      bool
	}{
		{"", "", nil, false},
		{fmt.Sprint(os.Getpid()), "3", []int{3, 4, 5}, false},
		{fmt.Sprint(os.Getpid()), "0", nil, false},
		{fmt.Sprint(os.Getppid()), "3", nil, false},
		{fmt.Sprint(os.Getpid()), "-1", nil, true},
		{fmt.Sprint(os.Getpid()), "9999999999999999999", nil, true},
		{fmt.Sprint(os.Getpid()), "2000000", nil, true},
		{fmt.Sprint(os.Getpid()), "x", nil, true},
	} {
		t.Setenv("LISTEN_PID", c.pid)
		t.Setenv("LISTEN_FDS", c.fds)
		t.Setenv("LISTEN_FDNAMES", "dns:dns")
		got, err := listenFDs()
		if !slices.Equal(got, c.want) || (err != nil) != c.bad {
			t.Errorf("LISTEN_PID=%q LISTEN_FDS=%q: %v, %v; want %v", c.pid, c.fds, got, err, c.want)
		}
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			if _, there := os.LookupEnv(name); there {
				t.Errorf("children see %s", name)
			}
		}
	}
}
