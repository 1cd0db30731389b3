package wg_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"smartdns/lab/netnstest"
	"smartdns/routing/wg"
)

// envPeer makes the test binary one device in a process of its own; its value
// is a peerSpec in JSON.
const envPeer = "SMARTDNS_TEST_WG_PEER"

type peerSpec struct {
	Name  string
	Conf  string // "" for a device that is not configured
	Addrs []string
}

// runPeer makes the device, says "ready", echoes UDP on port 7, and ends when
// its standard input does.
func runPeer() int {
	if err := servePeer(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func servePeer() error {
	var spec peerSpec
	if err := json.Unmarshal([]byte(os.Getenv(envPeer)), &spec); err != nil {
		return err
	}
	c := &wg.Config{}
	if spec.Conf != "" {
		var err error
		if c, err = wg.Parse(strings.NewReader(spec.Conf), spec.Name); err != nil {
			return err
		}
	}
	t, err := wg.Open(context.Background(), wg.Options{Name: spec.Name, Config: c, Kind: wg.Userspace, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer t.Close()
	if spec.Conf != "" {
		if err := setUp(spec.Name, spec.Addrs...); err != nil {
			return err
		}
		if err := t.Up(); err != nil {
			return err
		}
		echo, err := net.ListenPacket("udp", ":7")
		if err != nil {
			return err
		}
		go func() {
			b := make([]byte, 2000)
			for {
				n, from, err := echo.ReadFrom(b)
				if err != nil {
					return
				}
				echo.WriteTo(b[:n], from)
			}
		}()
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// setUp does what routing/linux does for a tunnel.
func setUp(name string, addrs ...string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetIP6AddrGenMode(l, 1); err != nil {
		return err
	}
	for _, text := range addrs {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		a.Flags = 0x02 // IFA_F_NODAD
		if err := netlink.AddrReplace(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// peer is a running peer process.
type peer struct {
	cmd   *exec.Cmd
	stdin io.Closer
	once  sync.Once
}

// start runs a peer in the namespace of the calling thread.
func start(spec peerSpec) (*peer, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	p := &peer{cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), envPeer+"="+string(text))
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		p.kill()
		return nil, fmt.Errorf("the peer says %q (%w)", line, err)
	}
	return p, nil
}

// stop lets the process end by itself; kill does not.
func (p *peer) stop() { p.once.Do(func() { p.stdin.Close(); p.cmd.Wait() }) }
func (p *peer) kill() { p.once.Do(func() { p.cmd.Process.Kill(); p.cmd.Wait() }) }

func startPeer(t testing.TB, ns *netns.NsHandle, spec peerSpec) *peer {
	t.Helper()
	var p *peer
	var err error
	if ns == nil {
		p, err = start(spec)
	} else {
		netnstest.Do(t, *ns, func() { p, err = start(spec) })
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// fakeLinks stands for a kernel. fail is what AddWireGuard says; without it,
// the kernel's WireGuard is played by a peer process.
type fakeLinks struct {
	fail    error
	devices map[string]*peer
	deleted []string
}

func (f *fakeLinks) AddWireGuard(name string) error {
	if f.fail != nil {
		return f.fail
	}
	if f.devices[name] != nil {
		return syscall.EEXIST
	}
	p, err := start(peerSpec{Name: name})
	if err == nil {
		f.devices[name] = p
	}
	return err
}

func (f *fakeLinks) DeleteLink(name string) error {
	f.deleted = append(f.deleted, name)
	if p := f.devices[name]; p != nil {
		delete(f.devices, name)
		p.stop()
		return nil
	}
	l, err := netlink.LinkByName(name)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return fs.ErrNotExist
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}

// veth joins this namespace (198.51.100.1) and far (198.51.100.2).
func veth(t testing.TB, far netns.NsHandle) {
	t.Helper()
	near := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "vnear"}, PeerName: "vfar"}
	must(t, netlink.LinkAdd(near))
	t.Cleanup(func() { netlink.LinkDel(near) })
	l, err := netlink.LinkByName("vfar")
	must(t, err)
	must(t, netlink.LinkSetNsFd(l, int(far)))
	must(t, setUp("vnear", "198.51.100.1/24", "2001:db8::1/64"))
	netnstest.Do(t, far, func() { err = setUp("vfar", "198.51.100.2/24", "198.51.100.3/24", "2001:db8::2/64") })
	must(t, err)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
