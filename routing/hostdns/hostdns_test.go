package hostdns_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"smartdns/lab/netnstest"
	"smartdns/routing/hostdns"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

const original = "# by hand\r\nnameserver 192.0.2.53\nsearch\tlan example.com\noptions edns0 timeout:2\nnameserver 192.0.2.54"

// place is a temporary /etc and state directory.
type place struct {
	path, saved string
	gid         int // the file's group: not ours where that may be
}

func newPlace(t *testing.T, content string) place {
	t.Helper()
	p := place{filepath.Join(t.TempDir(), "resolv.conf"), filepath.Join(t.TempDir(), "resolv.conf.orig"), os.Getgid()}
	if content != "" {
		p.write(t, content)
		must(t, os.Chmod(p.path, 0o640))
		if os.Chown(p.path, -1, 7) == nil {
			p.gid = 7
		}
	}
	return p
}

func (p place) write(t *testing.T, content string) {
	t.Helper()
	must(t, os.WriteFile(p.path, []byte(content), 0o644))
}

func (p place) read(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(p.path)
	must(t, err)
	return string(data)
}

func (p place) file(servers ...netip.Addr) *hostdns.File {
	return hostdns.New(hostdns.Options{Path: p.path, Saved: p.saved, Servers: servers, Logger: slog.New(slog.DiscardHandler)})
}

// expect checks content, mode, owner, and that nothing else lies about.
func (p place) expect(t *testing.T, content string, mode fs.FileMode, gid int) {
	t.Helper()
	if d := cmp.Diff(content, p.read(t)); d != "" {
		t.Errorf("content (-want +got)\n%s", d)
	}
	info, err := os.Lstat(p.path)
	must(t, err)
	if info.Mode() != mode || int(info.Sys().(*syscall.Stat_t).Gid) != gid {
		t.Errorf("mode %v group %d, want %v %d", info.Mode(), info.Sys().(*syscall.Stat_t).Gid, mode, gid)
	}
	if all, err := os.ReadDir(filepath.Dir(p.path)); err != nil || len(all) != 1 {
		t.Errorf("the directory holds %v (%v)", all, err)
	}
}

func (p place) expectForgotten(t *testing.T) {
	t.Helper()
	if all, err := os.ReadDir(filepath.Dir(p.saved)); err != nil || len(all) != 0 {
		t.Errorf("the state directory holds %v (%v)", all, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (p place) ours(servers string) string {
	return "# Written by smartdns while it runs. The former file is " + p.saved +
		", and comes back.\nsearch\tlan example.com\noptions edns0 timeout:2\n" + servers
}

func TestSetAndRestore(t *testing.T) {
	p := newPlace(t, original)
	f := p.file(loopback4, loopback6)
	if hostdns.Asks(p.path, loopback4) {
		t.Error("it asks us before Set")
	}
	want := p.ours("nameserver 127.0.0.1\nnameserver ::1\n")
	for range 2 {
		must(t, f.Set())
		p.expect(t, want, 0o640, p.gid)
	}
	if !hostdns.Asks(p.path, loopback4, loopback6) {
		t.Error("it does not ask us after Set")
	}
	before, err := os.Stat(p.path)
	must(t, err)
	must(t, f.Set())
	if after, err := os.Stat(p.path); err != nil || !os.SameFile(before, after) {
		t.Errorf("a second Set writes again (%v)", err)
	}
	for range 2 {
		must(t, f.Restore())
		p.expect(t, original, 0o640, p.gid)
		p.expectForgotten(t)
	}
}

func TestAfterACrash(t *testing.T) {
	t.Run("the next start and stop restore", func(t *testing.T) {
		p := newPlace(t, original)
		must(t, p.file(loopback4).Set())
		next := p.file(loopback6) // killed; it now listens elsewhere
		must(t, next.Set())
		p.expect(t, p.ours("nameserver ::1\n"), 0o640, p.gid)
		must(t, next.Restore())
		p.expect(t, original, 0o640, p.gid)
		p.expectForgotten(t)
	})
	t.Run("cleanup restores", func(t *testing.T) {
		p := newPlace(t, original)
		must(t, p.file(loopback4).Set())
		must(t, p.file().Restore())
		p.expect(t, original, 0o640, p.gid)
	})
	t.Run("between saving and writing", func(t *testing.T) {
		p := newPlace(t, original)
		must(t, os.WriteFile(p.saved, []byte("older"), 0o600))
		must(t, p.file().Restore())
		p.expect(t, original, 0o640, p.gid)
		p.expectForgotten(t)
	})
	t.Run("in the middle of writing", func(t *testing.T) {
		for _, then := range []func(*hostdns.File) error{(*hostdns.File).Restore, (*hostdns.File).Set} {
			p := newPlace(t, original)
			must(t, os.WriteFile(filepath.Join(filepath.Dir(p.path), ".resolv.conf.smartdns"), []byte("ha"), 0o600))
			must(t, os.WriteFile(filepath.Join(filepath.Dir(p.saved), ".resolv.conf.orig.smartdns"), []byte("ha"), 0o600))
			f := p.file(loopback4)
			must(t, then(f))
			must(t, f.Restore())
			p.expect(t, original, 0o640, p.gid)
			p.expectForgotten(t)
		}
	})
	t.Run("somebody wrote another file meanwhile", func(t *testing.T) {
		p := newPlace(t, original)
		must(t, p.file(loopback4).Set())
		must(t, os.Remove(p.path))
		p.write(t, "nameserver 192.0.2.99\n")
		must(t, p.file().Restore())
		p.expect(t, "nameserver 192.0.2.99\n", 0o644, os.Getgid())
		p.expectForgotten(t)
	})
	t.Run("the saved file is lost", func(t *testing.T) {
		p := newPlace(t, original)
		must(t, p.file(loopback4).Set())
		must(t, os.Remove(p.saved))
		must(t, p.file(loopback4).Set())
		p.expect(t, p.ours("nameserver 127.0.0.1\n"), 0o640, p.gid)
		if err := p.file().Restore(); err == nil || !strings.Contains(err.Error(), "write a nameserver into it") {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhatIsNotOursIsRefused(t *testing.T) { // SECURITY F-34
	for name, c := range map[string]struct {
		make func(t *testing.T, p place)
		want string
	}{
		"systemd-resolved's link": {func(t *testing.T, p place) {
			must(t, os.Symlink("/run/systemd/resolve/stub-resolv.conf", p.path))
		}, "is a symbolic link to /run/systemd/resolve/stub-resolv.conf: set DNS= to our address and Domains=~."},
		"a link": {func(t *testing.T, p place) {
			must(t, os.Symlink("/etc/motd", p.path))
		}, "replace it by a plain file if nobody needs the link"},
		"a directory": {func(t *testing.T, p place) { must(t, os.Mkdir(p.path, 0o755)) }, "is not a regular file"},
		"NetworkManager's file": {func(t *testing.T, p place) {
			p.write(t, "# Generated by NetworkManager\nnameserver 192.0.2.1\n")
		}, "is written by NetworkManager: set dns=none"},
		"systemd-resolved's file": {func(t *testing.T, p place) {
			p.write(t, "# This file is managed by man:systemd-resolved(8). Do not edit.\nnameserver 127.0.0.53\n")
		}, "is written by systemd-resolved"},
		"resolvconf's file": {func(t *testing.T, p place) {
			p.write(t, "; generated by resolvconf(8)\n")
		}, "is written by resolvconf"},
		"an immutable file": {func(t *testing.T, p place) {
			p.write(t, original)
			immutable(t, p.path)
		}, "is immutable: chattr -i"},
		"a bind mount": {func(t *testing.T, p place) {
			netnstest.Require(t)
			p.write(t, original)
			from := filepath.Join(t.TempDir(), "from")
			must(t, os.WriteFile(from, []byte(original), 0o644))
			must(t, unix.Mount(from, p.path, "", unix.MS_BIND, ""))
			t.Cleanup(func() { unix.Unmount(p.path, 0) })
		}, "is a mount of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, "")
			c.make(t, p)
			f := p.file(loopback4)
			err := f.Set()
			if !errors.Is(err, hostdns.ErrNotPlain) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if f.Err() != err {
				t.Errorf("Err says %v", f.Err())
			}
			p.expectForgotten(t)
			must(t, f.Restore())
		})
	}
	t.Run("no file at all", func(t *testing.T) {
		p := newPlace(t, "")
		if err := p.file(loopback4).Set(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "touch "+p.path) {
			t.Errorf("got %v", err)
		}
	})
}

func immutable(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	const flag = 0x10 // FS_IMMUTABLE_FL
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flag); err != nil {
		t.Skipf("SKIPPED: no immutable files here: %v", err)
	}
	t.Cleanup(func() {
		if f, err := os.Open(path); err == nil {
			unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
			f.Close()
		}
	})
}

func TestOthersAreAnsweredButNotFought(t *testing.T) { // SECURITY F-34
	p := newPlace(t, original)
	changed := make(chan error, 10)
	var log bytes.Buffer
	f := hostdns.New(hostdns.Options{
		Path: p.path, Saved: p.saved, Servers: []netip.Addr{loopback4},
		Logger: slog.New(slog.NewTextHandler(&log, nil)), Changed: func(err error) { changed <- err },
	})
	must(t, f.Set())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	next := func() error {
		select {
		case err := <-changed:
			return err
		case <-time.After(10 * time.Second):
			t.Fatal("nobody noticed")
			return nil
		}
	}
	rewrites := []func(content string){
		func(content string) { p.write(t, content) },
		func(content string) { // as a DHCP client does
			other := p.path + ".dhcp"
			must(t, os.WriteFile(other, []byte(content), 0o600))
			must(t, os.Rename(other, p.path))
		},
		func(content string) { must(t, os.Remove(p.path)); p.write(t, content) },
		func(string) { must(t, os.Remove(p.path)) },
		func(content string) { p.write(t, content) },
	}
	for i, rewrite := range rewrites {
		begin := time.Now()
		rewrite(fmt.Sprintf("nameserver 192.0.2.%d\n", i))
		if err := next(); err != nil {
			t.Fatalf("rewrite %d: %v", i, err)
		}
		if !hostdns.Asks(p.path, loopback4) {
			t.Fatalf("rewrite %d: it does not ask us", i)
		}
		t.Logf("rewrite %d answered after %v", i, time.Since(begin).Round(time.Millisecond))
	}
	p.write(t, "nameserver 192.0.2.200\n")
	if err := next(); err == nil || !strings.Contains(err.Error(), "more than 5 times in a minute") {
		t.Errorf("the sixth rewrite: %v", err)
	}
	if f.Err() == nil || p.read(t) != "nameserver 192.0.2.200\n" {
		t.Errorf("the fight goes on: %v", f.Err())
	}
	must(t, f.Set()) // a reload tries again
	if !hostdns.Asks(p.path, loopback4) {
		t.Error("it does not ask us after Set")
	}
	must(t, os.Remove(p.path))
	must(t, os.Symlink("/run/systemd/resolve/resolv.conf", p.path))
	if err := next(); !errors.Is(err, hostdns.ErrNotPlain) {
		t.Errorf("a link: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run says %v", err)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 2 {
		t.Errorf("%d warnings, want one for the fight and one for the link\n%s", n, &log)
	}
	must(t, f.Restore())
	if target, err := os.Readlink(p.path); err != nil || target != "/run/systemd/resolve/resolv.conf" {
		t.Errorf("Restore touched somebody's link: %q (%v)", target, err)
	}
}

func TestRunWithoutADirectory(t *testing.T) {
	f := place{path: "/nowhere/resolv.conf", saved: "/nowhere/saved"}.file(loopback4)
	if err := f.Run(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestAsks(t *testing.T) {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	lan := netip.MustParseAddr("192.168.8.1")
	for name, c := range map[string]struct {
		content string
		ours    []netip.Addr
		want    bool
	}{
		"us":                          {"nameserver 127.0.0.1\n", []netip.Addr{loopback4}, true},
		"us, with tabs and options":   {"options edns0\n\tnameserver\t127.0.0.1 # x", []netip.Addr{loopback4}, true},
		"us twice":                    {"nameserver ::1\nnameserver 127.0.0.1\n", []netip.Addr{loopback4, loopback6}, true},
		"us, and somebody":            {"nameserver 127.0.0.1\nnameserver 192.0.2.1\n", []netip.Addr{loopback4}, false},
		"somebody in a fourth line":   {strings.Repeat("nameserver 127.0.0.1\n", 3) + "nameserver 192.0.2.1\n", []netip.Addr{loopback4}, true},
		"somebody":                    {"nameserver 192.0.2.1\n", []netip.Addr{loopback4}, false},
		"systemd-resolved":            {"nameserver 127.0.0.53\n", []netip.Addr{loopback4}, false},
		"commented out":               {"#nameserver 127.0.0.1\nnameserver 192.0.2.1\n", []netip.Addr{loopback4}, false},
		"nobody: the C library's own": {"search lan\n", []netip.Addr{loopback4}, true},
		"nobody, and we are not here": {"search lan\n", []netip.Addr{lan}, false},
		"we listen everywhere":        {"nameserver 127.0.0.1\n", []netip.Addr{any4}, true},
		"we listen everywhere else":   {"nameserver 127.0.0.1\n", []netip.Addr{any6}, false},
		"v4-mapped":                   {"nameserver ::ffff:127.0.0.1\n", []netip.Addr{loopback4}, true},
		"we listen nowhere":           {"nameserver 127.0.0.1\n", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, "")
			p.write(t, c.content)
			if got := hostdns.Asks(p.path, c.ours...); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		p := newPlace(t, "")
		if !hostdns.Asks(p.path, loopback4) || hostdns.Asks(p.path, lan) {
			t.Error("the C library asks 127.0.0.1 then")
		}
	})
}

func FuzzRestoreIsByteEqual(f *testing.F) {
	for _, s := range []string{original, "", "\n", "search", "options\t\n#", "nameserver 127.0.0.1", "\x00\xff\r\n\r", "; x\n domain a b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		p := place{path: filepath.Join(dir, "resolv.conf"), saved: filepath.Join(dir, "saved")}
		must(t, os.WriteFile(p.path, content, 0o644))
		h := p.file(loopback4)
		if err := h.Set(); errors.Is(err, hostdns.ErrNotPlain) || bytes.HasPrefix(content, []byte("# Written by smartdns")) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if !hostdns.Asks(p.path, loopback4) {
			t.Fatalf("it does not ask us:\n%s", p.read(t))
		}
		must(t, h.Restore())
		if got := p.read(t); got != string(content) {
			t.Fatalf("got %q, want %q", got, content)
		}
	})
}
