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
	"slices"
	"strings"
	"sync"
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

func (p place) file(servers ...netip.Addr) *hostdns.Host {
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

func (p place) expectForgotten(t *testing.T) { t.Helper(); p.expectKept(t) }

// expectKept checks what is in the state directory.
func (p place) expectKept(t *testing.T, want ...string) {
	t.Helper()
	all, err := os.ReadDir(filepath.Dir(p.saved))
	must(t, err)
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("the state directory holds %q, want %q", names, want)
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
	if asks(p.path, loopback4) {
		t.Error("it asks us before Set")
	}
	want := p.ours("nameserver 127.0.0.1\nnameserver ::1\n")
	for range 2 {
		if err := hostdns.Refused(t.Context(), p.path, ""); err != nil {
			t.Errorf("refused: %v", err)
		}
		must(t, f.Set())
		p.expect(t, want, 0o640, p.gid)
	}
	if !asks(p.path, loopback4, loopback6) {
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

// (SECURITY C-01)
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
		for _, then := range []func(*hostdns.Host) error{(*hostdns.Host).Restore, (*hostdns.Host).Set} {
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

// (SECURITY F-34)
func TestWhatIsNotOursIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, p place)
		want string
	}{
		"a directory": {func(t *testing.T, p place) { must(t, os.Mkdir(p.path, 0o755)) }, "is not a regular file"},
		"tailscale's file": {func(t *testing.T, p place) {
			p.write(t, "# resolv.conf(5) file generated by tailscale\nnameserver 100.100.100.100\n")
		}, "tailscale set --accept-dns=false"},
		"a link to tailscale's": {func(t *testing.T, p place) {
			to := filepath.Join(t.TempDir(), "resolv.conf")
			must(t, os.WriteFile(to, []byte("# resolv.conf(5) file generated by tailscale\nnameserver 100.100.100.100\n"), 0o644))
			must(t, os.Symlink(to, p.path))
		}, "tailscale set --accept-dns=false"},
		"an immutable file": {func(t *testing.T, p place) {
			p.write(t, original)
			immutable(t, p.path)
		}, "is immutable: chattr -i"},
		"a read-only mount": {func(t *testing.T, p place) {
			netnstest.Require(t)
			p.write(t, "nameserver 192.0.2.1\n")
			bind(t, p.path, original)
			must(t, unix.Mount("", p.path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		}, "mounted read-only: give the container or the service our address"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, "")
			c.make(t, p)
			f := p.file(loopback4)
			if err := hostdns.Refused(t.Context(), p.path, ""); !errors.Is(err, hostdns.ErrNotOurs) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("before it is tried: %v, want %s", err, c.want)
			}
			err := f.Set()
			if !errors.Is(err, hostdns.ErrNotOurs) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if f.Err() != err {
				t.Errorf("Err says %v", f.Err())
			}
			must(t, f.Restore())
			p.expectForgotten(t)
		})
	}
	t.Run("no file at all", func(t *testing.T) {
		p := newPlace(t, "")
		if err := p.file(loopback4).Set(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "touch "+p.path) {
			t.Errorf("got %v", err)
		}
	})
}

// bind mounts a file with content at path.
func bind(t *testing.T, path, content string) (from string) {
	t.Helper()
	from = filepath.Join(t.TempDir(), "from")
	must(t, os.WriteFile(from, []byte(content), 0o644))
	must(t, unix.Mount(from, path, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(path, 0) })
	return from
}

// A link is replaced, and comes back; what it leads to is not touched, and a
// program that writes that goes on, unnoticed (SECURITY F-34).
func TestLinks(t *testing.T) {
	for name, target := range map[string]string{
		"absolute": "", "relative": "../run/resolv.conf", "dangling": "/nowhere/resolv.conf",
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, d := range []string{"etc", "run"} {
				must(t, os.Mkdir(filepath.Join(root, d), 0o755))
			}
			leads := filepath.Join(root, "run/resolv.conf")
			if target == "" {
				target = leads
			}
			p := place{path: filepath.Join(root, "etc/resolv.conf"), saved: filepath.Join(t.TempDir(), "saved")}
			must(t, os.WriteFile(leads, []byte(original), 0o600))
			must(t, os.Symlink(target, p.path))
			for range 2 { // also after a crash
				must(t, p.file(loopback4).Set())
				want := p.ours("nameserver 127.0.0.1\n")
				if name == "dangling" {
					want = strings.Replace(want, "search\tlan example.com\noptions edns0 timeout:2\n", "", 1)
				}
				p.expect(t, want, 0o644, os.Getgid())
			}
			must(t, os.WriteFile(leads, []byte("nameserver 192.0.2.77\n"), 0o600))
			must(t, p.file().Restore())
			if got, err := os.Readlink(p.path); got != target || err != nil {
				t.Errorf("the link is %q (%v), was %q", got, err, target)
			}
			if got, err := os.ReadFile(leads); string(got) != "nameserver 192.0.2.77\n" || err != nil {
				t.Errorf("what it led to says %q (%v)", got, err)
			}
			p.expectForgotten(t)
		})
	}
}

// A mount point cannot be replaced: it is written in place, and seen from
// outside (SECURITY F-34).
func TestBindMount(t *testing.T) {
	netnstest.Require(t)
	p := newPlace(t, "# below the mount\n")
	from := bind(t, p.path, original)
	changed := make(chan error, 10)
	h := hostdns.New(hostdns.Options{
		Path: p.path, Saved: p.saved, Servers: []netip.Addr{loopback4}, Logger: slog.New(slog.DiscardHandler),
		Changed: func(err error) { changed <- err },
	})
	must(t, h.Set())
	if got, err := os.ReadFile(from); string(got) != p.ours("nameserver 127.0.0.1\n") || err != nil {
		t.Errorf("the mounted file says %q (%v)", got, err)
	}
	stop := run(t, h)
	must(t, os.WriteFile(from, []byte("nameserver 192.0.2.1\n"), 0o644)) // as Docker does
	if err := wait(t, changed); err != nil || !asks(p.path, loopback4) {
		t.Errorf("after it was written from outside: %v\n%s", err, p.read(t))
	}
	stop()
	must(t, os.WriteFile(p.saved, []byte(original), 0o644))
	must(t, p.file().Restore())
	if got, err := os.ReadFile(from); string(got) != original || err != nil {
		t.Errorf("the mounted file says %q (%v), was %q", got, err, original)
	}
	p.expectForgotten(t)
}

// run runs h until the test, or the returned function, ends it.
func run(t *testing.T, h *hostdns.Host) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run says %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// wait returns what Changed is told next.
func wait(t *testing.T, changed <-chan error) error {
	t.Helper()
	select {
	case err := <-changed:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("nobody noticed")
		return nil
	}
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

// (SECURITY F-34)
func TestOthersAreAnsweredButNotFought(t *testing.T) {
	p := newPlace(t, original)
	changed := make(chan error, 10)
	var log bytes.Buffer
	f := hostdns.New(hostdns.Options{
		Path: p.path, Saved: p.saved, Servers: []netip.Addr{loopback4},
		Logger: slog.New(slog.NewTextHandler(&log, nil)), Changed: func(err error) { changed <- err },
	})
	must(t, f.Set())
	stop := run(t, f)
	next := func() error { return wait(t, changed) }
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
		if !asks(p.path, loopback4) {
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
	if !asks(p.path, loopback4) {
		t.Error("it does not ask us after Set")
	}
	p.write(t, "# Generated by tailscale\n")
	if err := next(); !errors.Is(err, hostdns.ErrNotOurs) {
		t.Errorf("tailscale: %v", err)
	}
	stop()
	if n := strings.Count(log.String(), "level=WARN"); n != 2 {
		t.Errorf("%d warnings, want one for the fight and one for tailscale\n%s", n, &log)
	}
	must(t, f.Restore())
	if got := p.read(t); got != "# Generated by tailscale\n" {
		t.Errorf("Restore touched somebody's file: %q", got)
	}
}

func TestRunWithoutADirectory(t *testing.T) {
	f := place{path: "/nowhere/resolv.conf", saved: "/nowhere/saved"}.file(loopback4)
	if err := f.Run(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func asks(path string, ours ...netip.Addr) bool {
	return hostdns.Look(context.Background(), path, "", ours...).Asks
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
		"systemd-resolved, no bus":    {"nameserver 127.0.0.53\n", []netip.Addr{loopback4}, false},
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
			if got := asks(p.path, c.ours...); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		p := newPlace(t, "")
		if !asks(p.path, loopback4) || asks(p.path, lan) {
			t.Error("the C library asks 127.0.0.1 then")
		}
	})
}

func FuzzRestoreIsByteEqual(f *testing.F) {
	for _, s := range []string{original, "", "\n", "search", "options\t\n#", "nameserver 127.0.0.1", "\x00\xff\r\n\r", "# Generated by resolvconf\nsearch lan", "; x\n domain a b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		p := place{path: filepath.Join(dir, "resolv.conf"), saved: filepath.Join(dir, "saved")}
		must(t, os.WriteFile(p.path, content, 0o644))
		h := p.file(loopback4)
		if err := h.Set(); errors.Is(err, hostdns.ErrNotOurs) || bytes.HasPrefix(content, []byte("# Written by smartdns")) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if !asks(p.path, loopback4) {
			t.Fatalf("it does not ask us:\n%s", p.read(t))
		}
		must(t, h.Restore())
		if got := p.read(t); got != string(content) {
			t.Fatalf("got %q, want %q", got, content)
		}
	})
}

func TestLookNamesWhoWritesTheFile(t *testing.T) {
	for name, c := range map[string]struct{ content, link, want string }{
		"by hand":                   {"# mine\nnameserver 192.0.2.1\n", "", ""},
		"us":                        {"# Written by smartdns while it runs. The\nnameserver 127.0.0.1\n", "", hostdns.ByUs},
		"us, where openresolv was":  {"# Generated by resolvconf\n# Written by smartdns while it runs.\n", "", hostdns.ByUs},
		"NetworkManager":            {"# Generated by NetworkManager\nnameserver 192.0.2.1\n", "", "NetworkManager"},
		"NetworkManager's link":     {"nameserver 192.0.2.1\n", "run/NetworkManager/resolv.conf", "NetworkManager"},
		"systemd-resolved":          {"# This is /run/x managed by man:systemd-resolved(8).\nnameserver 192.0.2.1\n", "", "systemd-resolved"},
		"systemd-resolved's stub":   {"nameserver 127.0.0.53\n", "", "systemd-resolved"},
		"openresolv":                {"# Generated by resolvconf\nnameserver 192.0.2.1\n", "", "resolvconf"},
		"Debian's resolvconf":       {"nameserver 192.0.2.1\n", "run/resolvconf/resolv.conf", "resolvconf"},
		"Docker":                    {"# Generated by Docker Engine.\nnameserver 192.0.2.1\n", "", "Docker"},
		"a word about systemd only": {"# no systemd here\nnameserver 192.0.2.1\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, "")
			if c.link == "" {
				p.write(t, c.content)
			} else {
				to := filepath.Join(t.TempDir(), c.link)
				must(t, os.MkdirAll(filepath.Dir(to), 0o755))
				must(t, os.WriteFile(to, []byte(c.content), 0o644))
				must(t, os.Symlink(to, p.path))
			}
			if v := hostdns.Look(t.Context(), p.path, "", loopback4); v.By != c.want {
				t.Errorf("got %q, want %q", v.By, c.want)
			}
		})
	}
}
