package daemon

import (
	"bufio"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"smartdns/configs"
	"smartdns/nft"
	"smartdns/routing"
	"smartdns/routing/hostdns"
	"smartdns/routing/linux"
	"smartdns/web/api"
)

// examine looks at this host, and changes nothing.
func examine(ctx context.Context, o Options) (h host) {
	defer func() { h.sockets = portHolders(h.listen) }()
	h = host{clock: clockFacts{o.clock().Now(), buildDate(), !o.clock().Synchronised()}, running: alive(o.Dirs)}
	h.space = spaceOf(o.Dirs.State)
	if t, err := keptTime(clockFile(o.Dirs).peek); err == nil && t.After(h.clock.known) {
		h.clock.known = t
	}
	if c, ok := readFlows(conntrackDir).condition(); ok {
		h.found = append(h.found, api.Finding{Severity: c.Severity, What: c.What, Fix: c.Fix})
	}
	r, err := Check(o)
	h.config.warnings = r.Warnings
	if err != nil {
		h.config.errors = strings.Split(err.Error(), "\n")
	}
	p, err := Load(o)
	if err != nil { // Check has said so; where it stands, we look all the same
		c, err := LoadConfig(o.Config)
		if err != nil {
			c = configs.Default()
		}
		h.listen = c.Listen.DNS
		return h
	}
	c := p.Config
	h.config.lists, h.config.tunnels, h.config.system = p.allLists(), paths(p), c.Listen.System
	var ours []netip.Addr
	for _, a := range c.Listen.DNS {
		if a.Port() == dnsPort {
			ours = append(ours, a.Addr())
		}
	}
	h.config.asked, h.config.resolver = hostView(ctx, ours)
	if c.Listen.System && !h.config.asked {
		h.config.refused = hostdns.Refused(ctx, resolvConf, systemBus())
	}
	h.listen = c.Listen.DNS
	for _, t := range p.Tunnels {
		h.secret(t.Config)
	}
	if c.Listen.Key != "" {
		h.secret(c.Listen.Key)
	}
	h.failed("reading links, routes and rules", h.look(ctx, o, p))
	own := ownCapabilities()
	if f, lacks := own.judge(len(p.Tunnels) > 0, h.lowPorts(), os.Geteuid() == 0); lacks && !h.running {
		h.found = append(h.found, f)
	}
	h.kernel = append(h.kernel, api.Feature{Name: "CAP_NET_ADMIN", Has: own.netAdmin}, api.Feature{Name: "CAP_NET_BIND_SERVICE", Has: own.bindService})
	return h
}

// failed adds what could not be looked at.
func (h *host) failed(doing string, err error) {
	if err != nil {
		f := api.Finding{Severity: severityError, What: doing + ": " + err.Error()}
		if errors.Is(err, os.ErrPermission) {
			f.Fix = "sudo smartdns doctor"
		}
		h.found = append(h.found, f)
	}
}

// look reads the kernel and compares it with what p asks for.
func (h *host) look(ctx context.Context, o Options, p *Parts) error {
	k, err := linux.Open(filepath.Join(o.Dirs.Run, sysctlsName))
	if err != nil {
		return err
	}
	defer k.Close()
	have, facts, err := k.Observe(ctx, nil)
	if err != nil {
		return err
	}
	l, err := p.intended(o, have, facts)
	if err != nil {
		return err
	}
	h.links, h.listen = withoutFarEnds(o, facts.Links), l.listen
	if len(p.Tunnels) == 0 {
		if len(p.Config.Listen.LAN) > 0 {
			h.failed("reading nftables", withTable(ctx, func(t *nft.Table) error { return h.gates(ctx, t, p, l) }))
		}
		return nil
	}
	for _, c := range routing.Conflicts(p.input(l), facts) {
		h.conflicts = append(h.conflicts, contend(c, facts))
	}
	h.judgeIPv6(facts, p.Tunnels)
	h.failed("trying the kernel", h.tryKernel(ctx, o, p, l))
	h.failed("reading nftables", withTable(ctx, func(t *nft.Table) error {
		chains, err := t.Foreign(ctx)
		if err != nil {
			return err
		}
		h.beside = chains
		flow, err := t.Flowtables(ctx)
		h.flow = othersFlowtables(flow)
		if err != nil {
			return err
		}
		return h.gates(ctx, t, p, l)
	}))
	return nil
}

// gates notes which chains of others keep the LAN out.
func (h *host) gates(ctx context.Context, t *nft.Table, p *Parts, l live) error {
	all, err := p.gates(ctx, t, l, severityError)
	for _, g := range all {
		h.found = append(h.found, api.Finding{Severity: g.Severity, What: g.What, Fix: g.Fix})
	}
	return err
}

// secret notes how a file with a key is protected.
func (h *host) secret(path string) {
	info, err := os.Stat(path)
	if err != nil {
		return // Check has said so
	}
	f := fileFacts{path: path, mode: info.Mode()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		f.uid = s.Uid
	}
	h.files = append(h.files, f)
}

// alive reports whether a daemon answers at the control socket.
func alive(d Dirs) bool {
	_, err := api.Dial(filepath.Join(d.Run, SocketName)).Status(context.Background())
	return err == nil
}

// buildDate is the day of the source that the program was built from.
func buildDate() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			t, _ := time.Parse(time.RFC3339, s.Value)
			return t
		}
	}
	return time.Time{}
}

// spaceOf says how much room there is in dir, or where it will be made, and in
// memory.
func spaceOf(dir string) spaceFacts {
	s := spaceFacts{state: dir, memory: memoryAvailable(), disk: 1 << 62}
	at := dir
	for {
		if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at)
	}
	if err := unix.Access(at, unix.W_OK); err != nil {
		s.err = err.Error()
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err == nil {
		s.disk = uint64(fs.Bavail) * uint64(fs.Bsize)
	}
	return s
}

// memoryAvailable returns the bytes that a program can get without swapping.
func memoryAvailable() uint64 {
	const unknown = 1 << 62
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return unknown
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if w := strings.Fields(lines.Text()); len(w) >= 2 && w[0] == "MemAvailable:" {
			if n, err := strconv.ParseUint(w[1], 10, 64); err == nil {
				return n << 10
			}
		}
	}
	return unknown
}
