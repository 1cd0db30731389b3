package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"smartdns/nft"
	"smartdns/routing"
	"smartdns/routing/linux"
	"smartdns/web/api"
)

// tryKernel finds out what the kernel can do by doing it, in a network namespace
// of its own, which ends with the thread that is in it.
func (h *host) tryKernel(ctx context.Context, o Options, p *Parts, l live) error {
	done := make(chan error)
	t := trial{dir: o.Dirs.Run}
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("making a network namespace to try things in: %w", err)
			}
			t.table(ctx, p.ruleset(l))
			return t.links(ctx)
		}()
	}()
	err := <-done
	h.found = append(h.found, t.found...)
	if p.Config.Routing.Flowtable && slices.Contains(t.features, api.Feature{Name: flowtables, Note: noFlowtablesNote}) {
		c := noFlowtables()
		h.found = append(h.found, api.Finding{Severity: c.Severity, What: c.What, Fix: c.Fix})
	}
	h.kernel = append(h.kernel, t.features...)
	if errors.Is(err, unix.EPERM) && os.Geteuid() == 0 {
		h.found = append(h.found, api.Finding{Severity: severityWarning, Fix: "docker run --cap-add SYS_ADMIN …, for this command alone",
			What: "what the kernel can do is not tried: this process may not make a network namespace (CAP_SYS_ADMIN)"})
		return nil
	}
	return err
}

const (
	tables           = "nftables with sets, intervals and marks of flows"
	tablesFix        = "modprobe -a nf_tables nft_ct nft_fib_inet nft_reject_inet nf_conntrack"
	flowtables       = "flowtables"
	noFlowtablesNote = "direct flows pass our chains as others do"
)

// trial is what the kernel showed in the namespace.
type trial struct {
	dir      string // for what package linux keeps
	features []api.Feature
	found    []api.Finding
}

// note adds a feature; lacking says what happens without it.
func (t *trial) note(name string, has bool, lacking string) {
	f := api.Feature{Name: name, Has: has}
	if !has {
		f.Note = lacking
	}
	t.features = append(t.features, f)
}

// bad adds a feature that nothing works without.
func (t *trial) bad(name string, err error, fix string) {
	t.note(name, err == nil, "")
	if err != nil {
		t.found = append(t.found, api.Finding{Severity: severityError, Fix: fix, What: "this kernel cannot do " + name + ", which tunnels need: " + err.Error()})
	}
}

// table loads our nftables table, and asks for what it does with flows.
func (t *trial) table(ctx context.Context, r nft.Ruleset) {
	r.Gateway.Offload = nil // tried by itself, and its interfaces are not here
	n, err := nft.Open(ctx, nft.Options{Mode: nft.Owned})
	if err != nil {
		t.bad(tables, err, tablesFix)
		return
	}
	err = func() error {
		if _, err := n.Set(ctx, r); err != nil {
			return err
		}
		s, err := n.Observe(ctx)
		if err != nil {
			return err
		}
		t.note("a table that nobody else can change", s.Owner != 0, "it is watched instead, and mended (Linux 6.9 has it)")
		_, err = n.TurnFlows(ctx, func(nft.Flow) (uint32, bool) { return 0, false })
		t.bad("connection tracking by netlink", err, "modprobe -a nf_conntrack nf_conntrack_netlink")
		offloads, err := n.CanOffload(ctx)
		t.note(flowtables, offloads, noFlowtablesNote)
		return err
	}()
	t.bad(tables, errors.Join(err, n.Close()), tablesFix)
}

// links makes rules and tunnel devices.
func (t *trial) links(ctx context.Context) error {
	k, err := linux.Open(filepath.Join(t.dir, sysctlsName))
	if err != nil {
		return err
	}
	defer k.Close()
	for _, f := range []routing.Family{routing.V4, routing.V6} {
		_, err := os.Stat("/proc/sys/net/ipv6")
		if f == routing.V6 && err != nil {
			continue
		}
		rule := routing.Rule{Family: f, Pref: routing.PrefTunnel, Mark: routing.DefaultField.Tunnel(0), Mask: uint32(routing.DefaultField), Table: routing.FirstTable}
		err = k.Apply(ctx, routing.Diff(routing.State{Rules: []routing.Rule{rule}}, routing.State{}))
		t.bad(fmt.Sprintf("rules by mark (%v)", f), err, "a kernel with CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES")
	}
	tun := tryTUN()
	err = k.AddWireGuard("smartdns-try")
	t.note("WireGuard", err == nil, "this program's own is used, through TUN")
	t.note("TUN", tun == nil, "only the kernel's WireGuard can make tunnels")
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, unix.EOPNOTSUPP):
		return err
	case tun != nil:
		t.found = append(t.found, api.Finding{Severity: severityError, Fix: tunFix(tun), What: "no tunnel can be made: this kernel has no WireGuard, and no TUN device: " + tun.Error()})
	}
	return nil
}

// tryTUN makes a TUN device that is gone with its file.
func tryTUN() error {
	const device = "/dev/net/tun"
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := unix.NewIfreq("smartdns-tun")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, r); err != nil {
		return fmt.Errorf("%s: TUNSETIFF: %w", device, err)
	}
	return nil
}

func tunFix(err error) string {
	switch {
	case errors.Is(err, os.ErrPermission):
		return "docker run --cap-add NET_ADMIN --device /dev/net/tun …"
	case errors.Is(err, os.ErrNotExist):
		return "modprobe -a wireguard tun; in a container: docker run --device /dev/net/tun …"
	}
	return "modprobe -a wireguard tun"
}

// judgeIPv6 says where the kernel lacks it, or somebody turned it off.
func (h *host) judgeIPv6(f routing.Facts, tunnels []Tunnel) {
	const off = "net.ipv6.conf.default.disable_ipv6"
	feature := api.Feature{Name: "IPv6", Has: f.IPv6}
	switch {
	case !f.IPv6:
		feature.Note = "names get no use from their AAAA answers"
		h.found = append(h.found, api.Finding{Severity: severityWarning, Fix: "take ipv6.disable=1 from the kernel's command line, or: modprobe ipv6",
			What: "the kernel has no IPv6: " + feature.Note})
	case readNumber("/proc/sys/"+strings.ReplaceAll(off, ".", "/")) == 1:
		feature.Note = "off for new interfaces (" + off + " = 1)"
		for _, t := range tunnels {
			if t.carries(routing.V6) {
				h.found = append(h.found, api.Finding{Severity: severityWarning, Fix: "sysctl -w " + off + "=0",
					What: fmt.Sprintf("IPv6 is off for new interfaces, but tunnel %s has IPv6 addresses: it will carry IPv4 only", t.Path)})
			}
		}
	}
	h.kernel = append(h.kernel, feature)
}

// capabilities are those that a daemon needs, and whether this process has them.
type capabilities struct{ netAdmin, bindService bool }

func ownCapabilities() capabilities {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return capabilities{}
	}
	has := func(c uint) bool { return data[0].Effective&(1<<c) != 0 }
	return capabilities{has(unix.CAP_NET_ADMIN), has(unix.CAP_NET_BIND_SERVICE)}
}

// judge says what a process with these cannot do, when it has to.
func (c capabilities) judge(tunnels, lowPorts, root bool) (api.Finding, bool) {
	var lacks, cannot []string
	if !c.netAdmin && tunnels {
		lacks, cannot = append(lacks, "CAP_NET_ADMIN"), append(cannot, "make tunnels, routes and rules")
	}
	if !c.bindService && lowPorts {
		lacks, cannot = append(lacks, "CAP_NET_BIND_SERVICE"), append(cannot, "listen at port 53")
	}
	fix := "sudo smartdns doctor"
	if root {
		fix = "docker run --cap-add NET_ADMIN --cap-add NET_BIND_SERVICE --device /dev/net/tun …"
	}
	return api.Finding{Severity: severityError, Fix: fix,
		What: fmt.Sprintf("this process has no %s: a daemon started like it could not %s", strings.Join(lacks, " and no "), strings.Join(cannot, ", nor ")),
	}, len(lacks) > 0
}

// lowPorts reports whether a listener needs CAP_NET_BIND_SERVICE.
func (h *host) lowPorts() bool {
	first := 1024
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			first = n
		}
	}
	for _, a := range h.listen {
		if int(a.Port()) < first {
			return true
		}
	}
	return false
}

// unitOf returns the systemd unit that a process belongs to, by its control
// group; "" where it belongs to none, or to a login.
func unitOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return ""
	}
	return unitIn(string(text))
}

func unitIn(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		parts := strings.Split(strings.TrimSpace(line), "/")
		if !slices.Contains(parts, "system.slice") {
			continue
		}
		for _, part := range parts {
			if strings.HasSuffix(part, ".service") {
				return part
			}
		}
	}
	return ""
}
