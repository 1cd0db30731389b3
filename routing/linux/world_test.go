package linux_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"smartdns/lab/netnstest"
	"smartdns/routing"
	"smartdns/routing/linux"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// world is a host in a namespace of its own: an uplink eth0 with default routes
// of both families, and a bridge br-lan. Its methods must be called inside.
type world struct {
	t     *testing.T
	ns    netns.NsHandle
	saved string
	*linux.Kernel
}

// inside runs f in a new world.
func inside(t *testing.T, f func(w *world)) {
	t.Helper()
	netnstest.Require(t, "ip", "sysctl")
	w := &world{t: t, ns: netnstest.New(t), saved: filepath.Join(t.TempDir(), "sysctls")}
	netnstest.Do(t, w.ns, func() {
		w.sysctl("net/ipv6/conf/default/accept_dad", "0")
		w.sysctl("net/ipv6/conf/all/accept_dad", "0")
		w.ip("link add eth0 type veth peer name isp0")
		w.ip("link add br-lan type bridge")
		w.ip("addr add 192.0.2.2/24 dev eth0")
		w.ip("-6 addr add 2001:db8::2/64 dev eth0 nodad")
		w.ip("addr add 192.168.8.1/24 dev br-lan")
		for _, l := range []string{"isp0", "eth0", "br-lan"} {
			w.ip("link set " + l + " up")
		}
		w.ip("route add default via 192.0.2.1")
		w.ip("-6 route add default via 2001:db8::1")
		w.settle("isp0", "eth0", "br-lan")
		w.open()
		f(w)
	})
}

// settle waits until the links have what the kernel gives them by itself, a
// moment after they are up.
func (w *world) settle(links ...string) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for _, l := range links {
		for routes := ""; !strings.Contains(routes, "local fe80::") || !strings.Contains(routes, "multicast ff00::/8"); {
			routes = w.ip("-6 route show table local dev " + l)
			select {
			case <-tick.C:
			case <-deadline:
				w.t.Fatalf("%s does not settle:\n%s", l, routes)
			}
		}
	}
}

// open is a new process: nothing is known but what the kernel and the file say.
func (w *world) open() {
	w.t.Helper()
	k, err := linux.Open(w.saved)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Kernel = k
	w.t.Cleanup(func() { k.Close() })
}

func (w *world) try(command string) (string, error) {
	args := strings.Fields(command)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	return string(out), err
}

func (w *world) run(command string) string {
	w.t.Helper()
	out, err := w.try(command)
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

func (w *world) ip(args string) string {
	w.t.Helper()
	return w.run("ip " + args)
}

func (w *world) sysctl(key, value string) {
	w.t.Helper()
	if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
		w.t.Fatal(err)
	}
}

// dump is everything that routing could have left behind.
func (w *world) dump() string {
	w.t.Helper()
	var b strings.Builder
	for _, c := range []string{
		"ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all", "ip addr",
		"sysctl -a -r ^net.ipv[46].(conf|ip_forward)",
	} {
		fmt.Fprintf(&b, "== %s\n%s", c, w.run(c))
	}
	return b.String()
}

// tunnel makes a link that can stand for a tunnel's, down, and returns its
// index.
func (w *world) tunnel(name string) int {
	w.t.Helper()
	w.ip("link add " + name + " type veth peer name far-" + name)
	w.ip("link set far-" + name + " up")
	index, _, err := w.LinkIndex(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return index
}

func prefixes(s ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, p := range s {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

// input is a host with the tunnel wg0 whose link has the given index.
func input(index int) routing.Input {
	return routing.Input{
		Field: routing.DefaultField,
		Tunnels: []routing.Tunnel{{
			Path: "wg0", Index: index, MTU: 1420,
			Addrs:      prefixes("10.9.0.2/32", "fd09::2/128"),
			AllowedIPs: prefixes("0.0.0.0/0", "::/0"),
		}},
		Default: "wg0",
		Marking: true,
	}
}

func gateway(index int) routing.Input {
	in := input(index)
	in.LAN = []string{"br-lan"}
	return in
}

func (w *world) reconciler() *routing.Reconciler {
	return routing.NewReconciler(w.Kernel, slog.New(slog.DiscardHandler))
}

// start runs r in w until the test ends.
func (w *world) start(r *routing.Reconciler) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		netnstest.Do(w.t, w.ns, func() {
			if err := r.Run(ctx); err != nil {
				w.t.Errorf("Run: %v", err)
			}
		})
	}()
	w.t.Cleanup(func() { cancel(); <-done })
}

func (w *world) set(r *routing.Reconciler, in routing.Input) []routing.Step {
	w.t.Helper()
	steps, err := r.Set(context.Background(), in)
	if err != nil {
		w.t.Fatalf("Set: %v", err)
	}
	return steps
}

func (w *world) settled(in routing.Input) bool {
	w.t.Helper()
	return len(w.left(in)) == 0
}

func (w *world) left(in routing.Input) []routing.Step {
	w.t.Helper()
	var devices []int
	for _, t := range in.Tunnels {
		if t.Index != 0 {
			devices = append(devices, t.Index)
		}
	}
	have, facts, err := w.Observe(context.Background(), devices)
	if err != nil {
		w.t.Fatal(err)
	}
	return routing.Diff(routing.Plan(in, facts), have)
}

// wait waits until ok, which is asked after each change of the kernel and of
// r's status.
func (w *world) wait(r *routing.Reconciler, what string, ok func() bool) {
	w.t.Helper()
	const limit = 6 * time.Second // three times that of behaviour
	deadline := time.After(limit)
	k, err := linux.Open(w.saved)
	if err != nil {
		w.t.Fatal(err)
	}
	defer k.Close()
	for !ok() {
		select {
		case <-r.Changed():
		case <-k.Events():
		case <-deadline:
			w.t.Fatalf("%s: not within %s; conditions %+v; links %+v", what, limit, r.Status().Conditions, r.Status().State)
		}
	}
}

func (w *world) same(what, want, got string) {
	w.t.Helper()
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); d != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func text(steps []routing.Step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}
