package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"smartdns/configs"
	"smartdns/internal/wholefile"
	"smartdns/routing"
	"smartdns/routing/hostdns"
	"smartdns/routing/wg"
)

// UpOptions says what Up brings up.
type UpOptions struct {
	// Quick is a wg-quick file or, as wg-quick has it, the name of one in
	// /etc/wireguard; "" for the tunnels and the policy of the configuration.
	Quick string
	Hooks bool // the commands of Quick are run
	// Links stands for the kernel's, for tests; nil is the kernel.
	Links wg.Links
}

// wgDir is where wg-quick looks for files that are given by name.
const wgDir = "/etc/wireguard"

// quickName matches what wg-quick takes for the name of an interface.
var quickName = regexp.MustCompile(`^[a-zA-Z0-9_=+.-]{1,15}$`)

// quickFile returns the file and the interface that a word means.
func quickFile(word string) (path string, name routing.Path, err error) {
	path = word
	if quickName.MatchString(word) && !strings.HasSuffix(word, ".conf") {
		path = filepath.Join(wgDir, word+".conf")
	}
	base, isConf := strings.CutSuffix(filepath.Base(path), ".conf")
	if !isConf || !quickName.MatchString(base) {
		return "", "", fmt.Errorf("%q is neither the name of a tunnel nor a file called like one, as wg0.conf", word)
	}
	path, err = filepath.Abs(path)
	return path, routing.Path(base), err
}

// quickParts compiles a wg-quick file without a configuration: what its
// AllowedIPs say goes into the tunnel, nothing else. Where they are most of a
// family, all of it but what is private does.
func quickParts(word string, hooks bool) (*Parts, error) {
	path, name, err := quickFile(word)
	if err != nil {
		return nil, err
	}
	file, err := wg.ParseFile(path)
	if err != nil {
		return nil, err
	}
	t := Tunnel{WG: file}
	mode, last := configs.ModeMark, routing.Direct
	if allowed := t.allowed(); most(allowed, true) || most(allowed, false) {
		mode, last = configs.ModeAll, name
	}
	text := fmt.Sprintf("[tunnel.%q]\nconfig = %q\ndevice = \"kernel\"\nhooks = %t\n[side.foreign]\nvia = %q\n[decide]\naddresses = [{ match = \"private\", via = \"direct\" }, { match = \"*\", via = %q }]\n[routing]\nmode = %q\ntable = \"shared\"\n",
		name, path, hooks, name, last, mode)
	c, err := configs.Parse(strings.NewReader(text), path)
	if err != nil {
		return nil, err
	}
	return Compile(c)
}

// raised is what Up leaves for Down to know.
type raised struct {
	Tunnel routing.Path `json:"tunnel"` // of Quick; "" for those of a configuration
	Quick  string       `json:"quick"`  // the word that was given
	Config string       `json:"config"`
	Hooks  bool         `json:"hooks"`
}

func raisedFile(o Options) string { return filepath.Join(o.Dirs.Run, "up.json") }

func readRaised(o Options) (raised, bool) {
	var r raised
	b, err := os.ReadFile(raisedFile(o))
	return r, err == nil && json.Unmarshal(b, &r) == nil
}

func forgetRaised(o Options) error {
	if err := os.Remove(raisedFile(o)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Up makes the tunnels with the kernel's WireGuard, their routes, rules and our
// table, and leaves them there. Its error matches errors.ErrUnsupported where
// the kernel has no WireGuard: a device of this process would end with it. What
// it began it takes back when it fails.
func Up(ctx context.Context, o Options, u UpOptions) error {
	release, err := claimAll(o)
	if err != nil {
		return err
	}
	defer release()
	parts, err := upParts(o, u)
	if err != nil {
		return err
	}
	e, err := newEngine(o, parts)
	if err != nil {
		return err
	}
	defer e.kernel.Close()
	e.ctx = context.WithoutCancel(ctx)
	if u.Links != nil {
		e.links = u.Links
	}
	have, l, err := e.observe(ctx)
	if err != nil {
		return err
	}
	if others := slices.DeleteFunc(slices.Sorted(maps.Keys(have.Numbers())), func(p routing.Path) bool { return contains(paths(parts), p) }); len(others) > 0 {
		return fmt.Errorf("tunnel %s is up already: take it down first, or write both into the configuration", others[0])
	}
	e.show(l)
	back := e.takeDown
	if e.strict() && !Closed(ctx, o) {
		// Nothing has been promised yet.
		back = func(ctx context.Context) error { return errors.Join(e.undo(ctx), forgetClosed(o.Dirs)) }
	}
	if err := e.raiseAll(ctx, u, l); err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			err = fmt.Errorf("this kernel has no WireGuard, and a device of ours would end with this command: use smartdns run (%w)", err)
		}
		return errors.Join(err, back(e.ctx), forgetRaised(o))
	}
	if e.table == nil {
		return nil
	}
	return e.table.Close() // shared: it stays
}

func upParts(o Options, u UpOptions) (*Parts, error) {
	if u.Quick != "" {
		return quickParts(u.Quick, u.Hooks)
	}
	parts, err := Load(o)
	if err != nil {
		return nil, err
	}
	if len(parts.Tunnels) == 0 {
		return nil, errors.New("there is no [tunnel.*] in the configuration: name a wg-quick file")
	}
	c := *parts.Config
	c.Routing.Table = configs.TableShared // nobody is left to own it
	parts.Config = &c
	for i := range parts.Tunnels {
		parts.Tunnels[i].Device = configs.DeviceKernel
	}
	return parts, nil
}

// raiseAll is bringUp without the resolver.
func (e *engine) raiseAll(ctx context.Context, u UpOptions, l live) error {
	r := raised{Quick: u.Quick, Config: e.opts.Config, Hooks: u.Hooks}
	if u.Quick != "" {
		r.Tunnel = e.parts.Tunnels[0].Path
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := wholefile.ReplaceBytes(raisedFile(e.opts), text); err != nil {
		return fmt.Errorf("keeping what is up: %w", err)
	}
	up := e.bringUpKernel
	if u.Quick != "" && e.parts.Tunnels[0].WG.Quick.Table == "off" {
		up = e.bringUpBare
	}
	if err := up(ctx, &l); err != nil {
		return err
	}
	e.show(l)
	for _, t := range e.tunnels {
		if err := e.call(ctx, t); err != nil {
			return err
		}
	}
	if u.Quick != "" {
		e.useDNS(e.parts.Tunnels[0])
	}
	return nil
}

// bringUpBare makes the tunnels' links with their addresses, and nothing that
// leads into them: Table = off.
func (e *engine) bringUpBare(ctx context.Context, l *live) error {
	in := routing.Input{Field: e.marks.field}
	for _, part := range e.parts.Tunnels {
		t, err := e.openTunnel(ctx, part)
		if err != nil {
			return err
		}
		e.tunnels[part.Path] = t
		l.links[part.Path] = e.linkOf(t, true)
		in.Tunnels = append(in.Tunnels, routing.Tunnel{Path: part.Path, Index: t.index, Addrs: part.WG.Addresses, MTU: l.mtu(part.Path), Bare: true})
	}
	if _, err := e.routes.Set(ctx, in); err != nil {
		return err
	}
	return errors.Join(e.startDevices(), e.raise(ctx))
}

// call resolves the endpoints of a tunnel that are names. Nobody will do it
// again.
func (e *engine) call(ctx context.Context, t *running) error {
	for _, p := range t.part.WG.Peers {
		if !p.Endpoint.IsName() {
			continue
		}
		to, err := wg.NewSequencer(p.Endpoint, e.endpoints, e.lookups()...).Reaching(e.reaches).Next(ctx)
		if err != nil {
			return fmt.Errorf("tunnel %s: %w", t.part.Path, err)
		}
		step, err := t.device.SetEndpoint(ctx, p.PublicKey, to)
		if err != nil {
			return err
		}
		e.logSteps([]routing.Step{step})
	}
	return nil
}

// useDNS makes this host ask the servers of the file, as wg-quick does by
// resolvconf. Where that cannot be, it is said and nothing more.
func (e *engine) useDNS(t Tunnel) {
	c := t.WG
	if len(c.DNS) == 0 {
		return
	}
	f := hostdns.New(hostdns.Options{
		Path: resolvConf, Saved: filepath.Join(e.opts.Dirs.State, savedResolvConf), Logger: e.log,
		Servers: c.DNS[:min(len(c.DNS), 3)], Search: c.Search, Link: string(t.Path), Bus: systemBus(),
	})
	if err := f.Set(); err != nil {
		e.log.Warn("DNS = is not applied: " + err.Error())
		return
	}
	e.log.Debug(fmt.Sprintf("[#] this host asks: nameserver %v search %v", c.DNS, c.Search))
}
