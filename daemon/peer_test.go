package daemon

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"smartdns/lab/netnstest"
)

// peerWorld is a host with an uplink and a LAN, and the files of two far ends.
type peerWorld struct {
	*upWorld
	second string
	lines  []string // of the log
}

// Write takes the log.
func (w *peerWorld) Write(b []byte) (int, error) {
	w.lines = append(w.lines, string(b))
	return len(b), nil
}

const exitText = "# the exit\n[Interface]\nPrivateKey = " + key + "\nAddress = 10.77.0.1/24, fd77::1/64\nListenPort = 51820\n"

// inPeerWorld calls f in the namespace of a host, whose LAN has a host in
// another namespace, in which there do is called.
func inPeerWorld(t *testing.T, f func(w *peerWorld, there func(do func()))) {
	t.Helper()
	netnstest.Require(t, "ip", "wg", "nft")
	dir := t.TempDir()
	w := &peerWorld{second: filepath.Join(dir, "exit1.conf")}
	w.upWorld = &upWorld{t: t, o: Options{Dirs: Dirs{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")}, Log: slog.New(slog.NewTextHandler(w, nil))},
		file: filepath.Join(dir, "exit0.conf"), done: filepath.Join(dir, "done")}
	for file, text := range map[string]string{w.file: exitText, w.second: strings.NewReplacer("77", "78", "51820", "51821").Replace(exitText)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, lan := netnstest.New(t), netnstest.New(t)
	there := func(do func()) { netnstest.Do(t, lan, do) }
	netnstest.Do(t, host, func() {
		l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "eth9", PeerNamespace: netlink.NsFd(lan)}
		if err := netlink.LinkAdd(l); err != nil {
			t.Error(err)
		}
	})
	for _, ns := range []netns.NsHandle{lan, host} {
		netnstest.Do(t, ns, func() { // addresses are in use at once
			for _, which := range []string{"all", "default"} {
				if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/accept_dad", []byte("0"), 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	there(func() {
		for _, c := range []string{"link set eth9 up", "addr add 10.20.0.20/24 dev eth9", "-6 addr add fd20::20/64 dev eth9 nodad"} {
			w.run("ip " + c)
		}
	})
	netnstest.Do(t, host, func() {
		for _, c := range []string{
			"link add eth0 type veth peer name isp0", "link set isp0 up", "link set eth0 up", "addr add 203.0.113.7/24 dev eth0", "route add default via 203.0.113.1",
			"link set lan0 up", "addr add 10.20.0.1/24 dev lan0", "-6 addr add fd20::1/64 dev lan0 nodad",
		} {
			w.run("ip " + c)
		}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
			if s := w.run("ip route") + w.run("ip -6 route") + w.run("ip addr"); !strings.Contains(s, "linkdown") && !strings.Contains(s, "tentative") {
				return
			}
		}
		t.Error("the links are not in use")
	})
	netnstest.Do(t, host, func() { f(w, there) })
}

// snapshot is all that a far end changes.
func (w *peerWorld) snapshot() string {
	w.t.Helper()
	var b strings.Builder
	for _, c := range []string{"nft list ruleset", "ip rule", "ip -6 rule", "ip -o link", "ip -o addr", "ip route show table all", "ip -6 route show table all", "ip neigh show proxy", "ip -6 neigh show proxy"} {
		b.WriteString("# " + c + "\n" + w.run(c))
	}
	for _, root := range []string{"/proc/sys/net/ipv4", "/proc/sys/net/ipv6"} {
		if err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				text, _ := os.ReadFile(p)
				b.WriteString(p + " = " + string(text))
			}
			return err
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	return b.String()
}

func (w *peerWorld) equal(what, got, want string) {
	w.t.Helper()
	if got == want {
		return
	}
	counts := map[string]int{}
	for l := range strings.Lines(want) {
		counts[l]--
	}
	for l := range strings.Lines(got) {
		counts[l]++
	}
	for l, n := range counts {
		if n != 0 {
			w.t.Errorf("%s: %+d of %s", what, n, l)
		}
	}
}

func (w *peerWorld) has(command string, all ...string) {
	w.t.Helper()
	got := w.run(command)
	for _, s := range all {
		if !strings.Contains(got, s) {
			w.t.Errorf("%s: no %q in\n%s", command, s, got)
		}
	}
}

// A far end with the kernel's WireGuard (a stand-in): all of it is there, the
// LAN's hosts find clients that have addresses of theirs, clients come and go
// while it is up, a second one shares what both need, and each takes back its
// own, byte for byte.
func TestPeerUpAndDown(t *testing.T) {
	inPeerWorld(t, func(w *peerWorld, there func(do func())) {
		ctx := t.Context()
		before := w.snapshot()
		links, others := &standIn{}, &standIn{}
		up := PeerOptions{LAN: []string{"lan0"}, SNAT: []netip.Addr{netip.MustParseAddr("203.0.113.7")}, Links: links}
		if err := PeerUp(ctx, w.o, w.file, up); err != nil {
			t.Fatal(err)
		}
		w.has("ip addr show exit0", "10.77.0.1/24", "fd77::1/64", "mtu 1420")
		w.has("nft list table inet smartdns-peer-exit0", `snat ip to 203.0.113.7`, "masquerade", `"lan0"`)
		alone := w.snapshot()

		client := filepath.Join(t.TempDir(), "laptop.conf")
		added, err := PeerAdd(ctx, w.o, NewPeer{Name: "laptop", Endpoint: "203.0.113.7", Out: client, Links: links,
			Addresses: []netip.Addr{netip.MustParseAddr("10.20.0.77"), netip.MustParseAddr("fd20::77")}, LAN: []netip.Prefix{netip.MustParsePrefix("172.16.5.0/24")}})
		if err != nil || !added.Live {
			t.Fatal(err, added.Live)
		}
		if info, err := os.Stat(client); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the client's file: %v, %v", info, err)
		}
		w.has("ip route", "10.20.0.77 dev exit0 proto 153", "172.16.5.0/24 dev exit0 proto 153")
		w.has("ip -6 route", "fd20::77 dev exit0 proto 153")
		w.has("ip neigh show proxy", "10.20.0.77 dev lan0")
		w.has("wg show exit0 allowed-ips", "10.20.0.77/32 172.16.5.0/24 fd20::77/128")
		there(func() { w.finds("10.20.0.77", "fd20::77") })
		if err := PeerUp(ctx, w.o, w.file, up); err != nil {
			t.Error("once more:", err)
		}
		if _, live, err := PeerRemove(ctx, w.o, "laptop", "exit0", links); err != nil || !live {
			t.Error(err, live)
		}
		w.equal("after the client was removed", w.snapshot(), alone)
		if text, _ := os.ReadFile(w.file); string(text) != exitText {
			t.Errorf("the file became\n%s", text)
		}

		if err := PeerUp(ctx, w.o, w.second, PeerOptions{Links: others}); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(w.file); err != nil { // it is not needed any more
			t.Fatal(err)
		}
		if steps, _, err := PeerDown(ctx, w.o, "exit0", links); err != nil || len(steps) == 0 {
			t.Error(steps, err)
		}
		if b, _ := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); string(b) != "1\n" {
			t.Error("the other far end does not forward any more")
		}
		for range 2 {
			if _, _, err := PeerDown(ctx, w.o, w.second, others); err != nil {
				t.Error(err)
			}
		}
		w.equal("after both are down", w.snapshot(), before)
	})
}

// finds waits until the addresses have an answer on the link.
func (w *peerWorld) finds(addrs ...string) {
	w.t.Helper()
	for _, a := range addrs {
		c, err := net.Dial("udp", net.JoinHostPort(a, "9"))
		if err != nil {
			w.t.Error(err)
			continue
		}
		defer c.Close()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(20 * time.Second); ; <-tick.C {
			c.Write([]byte("?"))
			if strings.Contains(w.run("ip neigh show "+a), "lladdr") {
				break
			}
			if time.Now().After(end) {
				w.t.Errorf("nobody answers for %s", a)
				break
			}
		}
	}
}

// What cannot work is refused with the reason, and leaves nothing.
func TestPeerUpRefuses(t *testing.T) {
	inPeerWorld(t, func(w *peerWorld, _ func(func())) {
		before := w.snapshot()
		peer := "\n[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nAllowedIPs = "
		for want, c := range map[string]struct {
			text  string
			lan   string
			links *standIn
		}{
			"exit0.conf:7: AllowedIPs 10.20.0.0/24 is behind lan0 already":                            {text: exitText + peer + "10.20.0.0/24\n"},
			"exit0.conf:7: [Peer] AllowedIPs: 0.0.0.0/0 would send":                                   {text: exitText + peer + "0.0.0.0/0\n"},
			"Address 10.20.0.5/24 is also the network of lan0: write the address alone, 10.20.0.5/32": {text: strings.Replace(exitText, "10.77.0.1/24", "10.20.0.5/24", 1)},
			"--lan lan7: there is no such interface":                                                  {text: exitText, lan: "lan7"},
		} {
			if err := os.WriteFile(w.file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			p := PeerOptions{Links: &standIn{}}
			if c.lan != "" {
				p.LAN = []string{c.lan}
			}
			if err := PeerUp(t.Context(), w.o, w.file, p); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", want, err)
			}
		}
		if err := os.WriteFile(w.file, []byte(exitText), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := PeerUp(t.Context(), w.o, w.file, PeerOptions{Links: noWireGuard{}}); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "smartdns peer run "+w.file) {
			t.Errorf("without the kernel's WireGuard: %v", err)
		}
		w.equal("after it was refused", w.snapshot(), before)
	})
}

// Who drops what the clients send is named with what lets it through, and
// cleanup takes a far end back that nobody runs, whatever is left of it.
func TestPeerGatesAndCleanup(t *testing.T) {
	inPeerWorld(t, func(w *peerWorld, _ func(func())) {
		c := exec.Command("nft", "-f", "-")
		c.Stdin = strings.NewReader("table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		before := w.snapshot()
		links := &standIn{}
		if err := PeerUp(t.Context(), w.o, w.file, PeerOptions{Links: links}); err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(w.lines, ""); !strings.Contains(text, "chain ip filter FORWARD drops") || !strings.Contains(text, `nft insert rule ip filter FORWARD iifname \"exit0\" accept`) {
			t.Errorf("said of the gate:\n%s", text)
		}
		if err := links.DeleteLink(""); err != nil { // as a TUN goes with its process
			t.Fatal(err)
		}
		if steps, err := Cleanup(t.Context(), w.o); err != nil || len(steps) == 0 {
			t.Error(steps, err)
		}
		w.equal("after cleanup", w.snapshot(), before)
	})
}
