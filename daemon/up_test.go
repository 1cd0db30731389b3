package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/lab/netnstest"
	"smartdns/routing/wg"
)

// standIn are links of a kernel with WireGuard: the userspace device stands for
// the kernel's, and outlives the command.
type standIn struct{ made *wg.Tunnel }

func (s *standIn) AddWireGuard(name string) (err error) {
	empty, err := wg.Parse(strings.NewReader("[Interface]\nPrivateKey = "+key+"\n"), name)
	if err != nil {
		return err
	}
	s.made, err = wg.Open(context.Background(), wg.Options{Name: name, Config: empty, Kind: wg.Userspace, Links: s, Logger: slog.New(slog.DiscardHandler)})
	return err
}

func (s *standIn) DeleteLink(string) error {
	if s.made == nil {
		return os.ErrNotExist
	}
	return s.made.Close()
}

// upWorld is a namespace with an uplink, and the options of commands in it.
type upWorld struct {
	t    *testing.T
	o    Options
	file string // the wg-quick file
	done string // what hooks write
}

func inUpWorld(t *testing.T, f func(w *upWorld)) {
	t.Helper()
	netnstest.Require(t, "ip", "wg", "nft")
	dir := t.TempDir()
	w := &upWorld{t: t, o: Options{
		Dirs: Dirs{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")},
		Log:  slog.New(slog.DiscardHandler),
	}, file: filepath.Join(dir, "wgup0.conf"), done: filepath.Join(dir, "done")}
	netnstest.Do(t, netnstest.New(t), func() {
		for _, c := range []string{"link set lo up", "link add eth0 type veth peer name isp0", "link set isp0 up", "link set eth0 up",
			"addr add 203.0.113.7/24 dev eth0", "route add default via 203.0.113.1"} {
			w.run("ip " + c)
		}
		f(w)
	})
}

func (w *upWorld) run(command string) string {
	w.t.Helper()
	f := strings.Fields(command)
	out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

func (w *upWorld) write(more, allowed string) {
	w.t.Helper()
	text := "# my provider\n[Interface]\nPrivateKey = " + key + "\nAddress = 10.9.0.2/24, fd09::2/64\n" + more +
		"PreUp = echo pre-up >> " + w.done + "\nPostUp = ip link show %i >> /dev/null && echo post-up >> " + w.done +
		"\nPreDown = echo pre-down >> " + w.done + "\nPostDown = echo post-down >> " + w.done + "\n\n# the office\n[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nEndpoint = 45.76.1.2:51820\nAllowedIPs = " + allowed + "\n"
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *upWorld) hooks() string {
	b, _ := os.ReadFile(w.done)
	return strings.Join(strings.Fields(string(b)), " ")
}

// A wg-quick file is up as it stands, and down leaves nothing: hooks in their
// order, the file saved, the steps as they were.
func TestUpAndDownOfAFile(t *testing.T) {
	inUpWorld(t, func(w *upWorld) {
		w.write("MTU = 1380\nSaveConfig = true\nFwMark = 0xca6c\n", "0.0.0.0/0, ::/0")
		before := w.run("ip rule") + w.run("nft list ruleset") + w.run("ip -6 rule")
		links := &standIn{}
		if err := Up(t.Context(), w.o, UpOptions{Quick: w.file, Hooks: true, Links: links}); err != nil {
			t.Fatal(err)
		}
		for command, want := range map[string][]string{
			"ip addr show wgup0":                         {"10.9.0.2/24", "fd09::2/64", "mtu 1380"},
			"ip rule":                                    {"5101:", "lookup 52001", "unreachable"},
			"ip route show table 52001":                  {"default dev wgup0", "unreachable default"},
			"nft list table inet smartdns":               {"goto new_wgup0"},
			"wg show wgup0":                              {"fwmark: 0x100ca6c", "allowed ips: 0.0.0.0/0, ::/0", "endpoint: 45.76.1.2:51820"},
			"ip route get 93.184.216.34 mark 0x02000000": {"dev wgup0"},
		} {
			got := w.run(command)
			for _, s := range want {
				if !strings.Contains(got, s) {
					t.Errorf("%s: no %q in\n%s", command, s, got)
				}
			}
		}
		if h := w.hooks(); h != "pre-up post-up" {
			t.Errorf("hooks: %q", h)
		}
		if err := Up(t.Context(), w.o, UpOptions{Quick: "wgup1", Links: links}); err == nil {
			t.Error("a file that is not there came up")
		}
		w.run("wg set wgup0 peer xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= persistent-keepalive 25")
		steps, pid, err := Down(t.Context(), w.o)
		if err != nil || pid != 0 || len(steps) == 0 {
			t.Errorf("down: %v, %d, %v", steps, pid, err)
		}
		if h := w.hooks(); h != "pre-up post-up pre-down post-down" {
			t.Errorf("hooks: %q", h)
		}
		if b, _ := os.ReadFile(w.file); !strings.Contains(string(b), "PersistentKeepalive = 25\n") || !strings.Contains(string(b), "# my provider\n[Interface]") ||
			!strings.Contains(string(b), "# the office\n[Peer]") || !strings.Contains(string(b), "FwMark = 0xca6c\n") || !strings.Contains(string(b), "PostDown = echo") {
			t.Errorf("saved:\n%s", b)
		}
		if after := w.run("ip rule") + w.run("nft list ruleset") + w.run("ip -6 rule"); after != before {
			t.Errorf("after down:\n%s\nbefore up:\n%s", after, before)
		}
		if err := links.DeleteLink(""); err != nil {
			t.Error(err)
		}
	})
}

// A file with a table of its own gets its AllowedIPs there too.
func TestUpWithATable(t *testing.T) {
	inUpWorld(t, func(w *upWorld) {
		w.write("Table = 1234\n", "10.20.0.0/16, 2001:db8:5::/48")
		links := &standIn{}
		if err := Up(t.Context(), w.o, UpOptions{Quick: w.file, Links: links}); err != nil {
			t.Fatal(err)
		}
		if got := w.run("ip route show table 1234") + w.run("ip -6 route show table 1234"); !strings.Contains(got, "10.20.0.0/16 dev wgup0") || !strings.Contains(got, "2001:db8:5::/48 dev wgup0") {
			t.Errorf("table 1234:\n%s", got)
		}
		if got := w.run("ip route show table main"); strings.Contains(got, "wgup0") && !strings.Contains(got, "proto kernel") {
			t.Errorf("main:\n%s", got)
		}
		if _, _, err := Down(t.Context(), w.o); err != nil {
			t.Error(err)
		}
		if err := links.DeleteLink(""); err != nil {
			t.Error(err)
		}
	})
}

// A file with Table = off gets its link and addresses, and nothing leads there;
// hooks are not run unless they are allowed.
func TestUpWithTableOff(t *testing.T) {
	inUpWorld(t, func(w *upWorld) {
		w.write("Table = off\n", "0.0.0.0/0")
		before := w.run("ip rule") + w.run("nft list ruleset")
		links := &standIn{}
		if err := Up(t.Context(), w.o, UpOptions{Quick: w.file, Links: links}); err != nil {
			t.Fatal(err)
		}
		if got := w.run("ip addr show wgup0"); !strings.Contains(got, "10.9.0.2/24") || !strings.Contains(got, "mtu 1420") {
			t.Error(got)
		}
		if after := w.run("ip rule") + w.run("nft list ruleset"); after != before {
			t.Errorf("rules or a table:\n%s", after)
		}
		if _, _, err := Down(t.Context(), w.o); err != nil {
			t.Error(err)
		}
		if h := w.hooks(); h != "" {
			t.Errorf("hooks were run: %q", h)
		}
		if err := links.DeleteLink(""); err != nil {
			t.Error(err)
		}
	})
}

// Where the kernel has no WireGuard, up says what to use, and leaves nothing.
func TestUpWithoutTheKernelsWireGuard(t *testing.T) {
	inUpWorld(t, func(w *upWorld) {
		w.write("", "0.0.0.0/0, ::/0")
		before := w.run("ip rule") + w.run("nft list ruleset")
		err := Up(t.Context(), w.o, UpOptions{Quick: w.file, Links: noWireGuard{}})
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "smartdns run") {
			t.Errorf("%v", err)
		}
		if after := w.run("ip rule") + w.run("nft list ruleset"); after != before {
			t.Errorf("after it was refused:\n%s", after)
		}
		if left, _ := filepath.Glob(w.o.Dirs.Run + "/*"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

type noWireGuard struct{}

func (noWireGuard) AddWireGuard(string) error { return errors.ErrUnsupported }
func (noWireGuard) DeleteLink(string) error   { return os.ErrNotExist }

// A hook that fails takes back what was begun, and nothing of it is left.
func TestUpIsTakenBackWhenAHookFails(t *testing.T) {
	inUpWorld(t, func(w *upWorld) {
		w.write("PostUp = exit 7\n", "0.0.0.0/0, ::/0")
		before := w.run("ip rule") + w.run("nft list ruleset")
		err := Up(t.Context(), w.o, UpOptions{Quick: w.file, Hooks: true, Links: &standIn{}})
		if err == nil || !strings.Contains(err.Error(), "wgup0.conf:5: running PostUp: exit status 7") {
			t.Errorf("%v", err)
		}
		if after := w.run("ip rule") + w.run("nft list ruleset"); after != before {
			t.Errorf("left:\n%s", after)
		}
		if _, err := net.InterfaceByName("wgup0"); err == nil {
			t.Error("the link is there")
		}
	})
}
