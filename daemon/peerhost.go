package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"smartdns/configs"
	"smartdns/nft"
	"smartdns/routing"
	"smartdns/routing/linux"
	"smartdns/routing/wg"
)

// farEnd is one far end of this host while a command works on it. Who calls its
// methods has locked the far ends.
type farEnd struct {
	opts   Options
	at     peerState
	kernel *linux.Kernel
	links  wg.Links // the kernel's, but in tests
	table  *nft.PeerTable
	device *wg.Tunnel // opened by this process; nil: the kernel's, or another process's
	runs   bool       // this process is to have the device
	raised bool       // PostUp was run, by whoever brought it up
	gates  string     // what was last said of the chains of others
}

func openFarEnd(o Options, at peerState, links wg.Links) (*farEnd, error) {
	kernel, err := linux.Open(filepath.Join(peersPath(o), peerSysctlsName))
	if err != nil {
		return nil, err
	}
	table, err := nft.OpenPeerTable(at.Name)
	if err != nil {
		return nil, errors.Join(err, kernel.Close())
	}
	f := &farEnd{opts: o, at: at, kernel: kernel, links: links, table: table}
	if f.links == nil {
		f.links = kernel
	}
	return f, nil
}

// close frees what f holds; a device of this process stays.
func (f *farEnd) close() error { return errors.Join(f.table.Close(), f.kernel.Close()) }

func (f *farEnd) say(steps []routing.Step) {
	for _, s := range steps {
		f.opts.Log.Debug("[#] " + s.String())
	}
}

// peerMark is what the packets of a far end's own socket carry: a daemon of ours
// on the same host leaves them alone.
func peerMark() uint32 { return routing.DefaultField.Value(routing.MarkDirect) }

// apply brings everything to what the file says now. kind is that of a device
// that has to be made. What is there already stays as it is, sessions included.
func (f *farEnd) apply(ctx context.Context, kind wg.Kind) error {
	file, err := wg.ParseFile(f.at.File)
	if err == nil {
		err = file.CheckFarEnd()
	}
	if err != nil {
		return err
	}
	_, facts, err := f.kernel.Observe(ctx, nil)
	if err != nil {
		return err
	}
	in := f.input(file, facts)
	if err := f.check(ctx, file, in, facts); err != nil {
		return err
	}
	if err := f.at.keep(f.opts); err != nil {
		return err
	}
	// Before anything is forwarded, for it guards, too.
	steps, err := f.table.Set(ctx, f.ruleset(file, in, facts))
	f.say(steps)
	if err != nil {
		return err
	}
	as := f.tunnel(file)
	if err := f.ensureDevice(ctx, file, as, kind); err != nil {
		return err
	}
	if err := f.settle(ctx, in); err != nil {
		return err
	}
	f.sayGates(ctx)
	if f.raised {
		return nil
	}
	f.raised = true
	return as.hooks(ctx, wg.PostUp, f.opts.Log)
}

// tunnel is the link as what runs hooks and saves files takes it.
func (f *farEnd) tunnel(file *wg.Config) Tunnel {
	return Tunnel{Tunnel: configs.Tunnel{Path: routing.Path(f.at.Name), Config: f.at.File, Hooks: f.at.Hooks}, WG: file}
}

// ensureDevice makes the device, or brings the one that is there to the file.
func (f *farEnd) ensureDevice(ctx context.Context, file *wg.Config, as Tunnel, kind wg.Kind) error {
	if f.device != nil {
		steps, err := f.device.Set(ctx, file)
		f.say(steps)
		return errors.Join(err, f.keepMade())
	}
	if f.at.Made && !f.runs {
		if _, err := wg.Look(f.at.Name); err == nil {
			f.raised = true
			steps, err := wg.Sync(f.at.Name, file, file.Mark(peerMark(), uint32(routing.DefaultField)))
			f.say(steps)
			return err
		}
	}
	if err := as.hooks(ctx, wg.PreUp, f.opts.Log); err != nil {
		return err
	}
	device, err := wg.Open(ctx, wg.Options{
		Name: f.at.Name, Config: file, Kind: kind, Links: f.links, Logger: f.opts.Log,
		FwMark: peerMark(), Field: uint32(routing.DefaultField),
	})
	if err != nil {
		return err
	}
	f.device = device
	if err := f.keepMade(); err != nil {
		return err
	}
	return f.callNames(ctx, file)
}

func (f *farEnd) keepMade() error {
	if f.at.Made {
		return nil
	}
	f.at.Made = true
	return f.at.keep(f.opts)
}

// callNames resolves the endpoints that are names, by the resolver of this host.
// Whoever cannot be called may still call.
func (f *farEnd) callNames(ctx context.Context, file *wg.Config) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, p := range file.Peers {
		if !p.Endpoint.IsName() {
			continue
		}
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", p.Endpoint.Host)
		if err != nil || len(found) == 0 {
			f.opts.Log.Warn(fmt.Sprintf("%s:%d: Endpoint %s has no address now: that peer has to call", file.File, p.Line, p.Endpoint))
			continue
		}
		step, err := f.device.SetEndpoint(ctx, p.PublicKey, netip.AddrPortFrom(found[0].Unmap(), p.Endpoint.Port))
		if err != nil {
			return err
		}
		f.say([]routing.Step{step})
	}
	return nil
}

// input is what the plan of the link needs.
func (f *farEnd) input(file *wg.Config, facts routing.Facts) routing.PeerInput {
	in := routing.PeerInput{Name: f.at.Name, Addrs: file.Addresses, Routes: file.Behind(), LAN: f.at.LAN, Table: routing.TableMain, MTU: file.MTU}
	if in.MTU == 0 {
		in.MTU = tunnelMTU
		for _, l := range facts.Links {
			const least = 1280 // IPv6's
			if slices.Contains(facts.Uplinks(), l.Name) && l.MTU >= least+overhead {
				in.MTU = min(in.MTU, l.MTU-overhead)
			}
		}
	}
	switch t := file.Quick.Table; t {
	case "", "auto", "main":
	case "off":
		in.Table = 0
	default:
		n, _ := strconv.ParseUint(t, 10, 32) // the file was parsed
		in.Table = uint32(n)
	}
	return in
}

// check refuses what would take something from this host, or cannot work.
func (f *farEnd) check(ctx context.Context, file *wg.Config, in routing.PeerInput, facts routing.Facts) error {
	var names []string
	for _, l := range facts.Links {
		names = append(names, l.Name)
		for _, n := range l.Addrs {
			for _, a := range in.Addrs {
				if l.Name != in.Name && !a.IsSingleIP() && n.Masked() == a.Masked() {
					return fmt.Errorf("%s: Address %s is also the network of %s: write the address alone, %s", file.File, a, l.Name, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
				}
			}
		}
	}
	for _, lan := range in.LAN {
		if lan == in.Name || !slices.Contains(names, lan) {
			return fmt.Errorf("--lan %s: there is no such interface beside the tunnel (there are %s)", lan, strings.Join(names, ", "))
		}
	}
	if in.Table != routing.TableMain {
		return nil
	}
	main, err := f.kernel.Table(ctx, routing.TableMain)
	if err != nil {
		return err
	}
	for _, p := range file.Peers {
		for _, a := range p.AllowedIPs {
			for _, r := range main {
				if r.Dst == a && r.Dev != in.Name {
					return fmt.Errorf("%s:%d: AllowedIPs %s is behind %s already, by %q: one of the two networks needs other addresses", file.File, p.Line, a, r.Dev, "ip route show "+a.String())
				}
			}
		}
	}
	return nil
}

// ruleset is the far end's nftables table.
func (f *farEnd) ruleset(file *wg.Config, in routing.PeerInput, facts routing.Facts) nft.PeerRuleset {
	r := nft.PeerRuleset{Name: in.Name, Peers: in.Routes, SNAT: f.at.SNAT, MTU: in.MTU}
	for _, a := range file.Addresses {
		r.Own = append(r.Own, a.Addr())
	}
	for _, l := range facts.Links {
		if !slices.Contains(in.LAN, l.Name) {
			continue
		}
		lan := nft.PeerLAN{Name: l.Name, Translate: slices.Contains(facts.Uplinks(), l.Name)}
		for _, a := range l.Addrs {
			if !a.Addr().IsLinkLocalUnicast() {
				lan.Prefixes = append(lan.Prefixes, a.Masked())
			}
		}
		r.LAN = append(r.LAN, lan)
	}
	return r
}

// peerPasses is how often the kernel is brought nearer to the plan: a step may
// undo another.
const peerPasses = 4

// settle brings links, addresses, routes, sysctls and proxies to the plan.
func (f *farEnd) settle(ctx context.Context, in routing.PeerInput) error {
	index, _, err := f.kernel.LinkIndex(in.Name)
	if err != nil {
		return err
	}
	in.Index = index
	for pass := 0; ; pass++ {
		have, facts, err := f.observe(ctx, in)
		if err != nil {
			return err
		}
		want := routing.PlanPeer(in, facts)
		own := want.Sysctls
		want.Sysctls = addSysctls(slices.Clone(own), sysctlsOfOthers(f.opts, f.at.Name))
		steps := slices.DeleteFunc(routing.Diff(want, have), func(s routing.Step) bool {
			set, sets := s.(routing.SetSysctl) // those of others stay, and are theirs to set
			return sets && !slices.ContainsFunc(own, func(y routing.Sysctl) bool { return y.Key == set.Key })
		})
		before, proxies := f.at.Proxies, f.proxies(in.Proxies(facts))
		steps = append(steps, routing.DiffProxies(proxies.want, proxies.have)...)
		if len(steps) == 0 {
			break
		}
		if pass == peerPasses {
			return fmt.Errorf("applying routing: the kernel does not keep %q", steps[0].String())
		}
		f.at.Sysctls, f.at.Proxies = own, slices.Concat(before, proxies.want)
		if err := f.at.keep(f.opts); err != nil {
			return err
		}
		f.say(steps)
		if err := f.kernel.Apply(ctx, steps); err != nil {
			return fmt.Errorf("applying routing: %w", err)
		}
		if f.at.Proxies = proxies.want; !slices.Equal(before, proxies.want) {
			if err := f.at.keep(f.opts); err != nil {
				return err
			}
		}
	}
	if f.device == nil {
		return nil
	}
	return f.device.Up()
}

// observe reads what of the plan is there.
func (f *farEnd) observe(ctx context.Context, in routing.PeerInput) (routing.State, routing.Facts, error) {
	shown, facts, err := f.kernel.Observe(ctx, []int{in.Index})
	if err != nil {
		return shown, facts, err
	}
	have := routing.State{Sysctls: shown.Sysctls}
	for _, l := range shown.Links {
		if l.Index == in.Index {
			have.Links = append(have.Links, l)
		}
	}
	for _, a := range shown.Addrs {
		if a.Dev == in.Name && !a.Prefix.Addr().IsLinkLocalUnicast() {
			have.Addrs = append(have.Addrs, a)
		}
	}
	if in.Table == 0 {
		return have, facts, nil
	}
	all, err := f.kernel.Table(ctx, in.Table)
	for _, r := range all {
		if r.Dev == in.Name && r.Protocol == routing.Protocol {
			have.Routes = append(have.Routes, r)
		}
	}
	return have, facts, err
}

// proxies are those of ours that should be, and that are.
type proxies struct{ want, have []routing.Proxy }

// proxies sorts out what is ours: an address for which somebody else has made
// the host answer stays his.
func (f *farEnd) proxies(want []routing.Proxy) proxies {
	links := slices.Clone(f.at.LAN)
	for _, p := range f.at.Proxies {
		links = append(links, p.Dev)
	}
	slices.Sort(links)
	var there []routing.Proxy
	for _, link := range slices.Compact(links) {
		addrs, err := f.kernel.Proxies(link)
		if err != nil {
			continue // the link is gone, and they with it
		}
		for _, a := range addrs {
			there = append(there, routing.Proxy{Dev: link, Addr: a})
		}
	}
	return proxies{
		want: slices.DeleteFunc(want, func(p routing.Proxy) bool { return slices.Contains(there, p) && !slices.Contains(f.at.Proxies, p) }),
		have: slices.DeleteFunc(slices.Clone(f.at.Proxies), func(p routing.Proxy) bool { return !slices.Contains(there, p) }),
	}
}

// sayGates says, once, which chains of others keep the clients in, and what lets
// them through.
func (f *farEnd) sayGates(ctx context.Context) {
	gates, err := f.table.Gates(ctx, f.at.Name)
	if err != nil {
		f.opts.Log.Warn(err.Error())
		return
	}
	var all []string
	for _, g := range gates {
		all = append(all, fmt.Sprintf("chain %s drops what the clients of %s send: our accept does not overrule it. Let them through: %s", g, f.at.Name, strings.Join(g.Fix(), "; ")))
	}
	if text := strings.Join(all, "\n"); text != f.gates {
		f.gates = text
		for _, line := range all {
			f.opts.Log.Warn(line)
		}
	}
}

// takeBack removes everything of the far end, whoever made it. What fails holds
// nothing else up.
func (f *farEnd) takeBack(ctx context.Context) ([]string, error) {
	var done []string
	var errs []error
	record := func(steps []routing.Step, err error) {
		f.say(steps)
		for _, s := range steps {
			done = append(done, s.String())
		}
		errs = append(errs, err)
	}
	// What is in the kernel does not stay for a file that cannot be read.
	file, err := wg.ParseFile(f.at.File)
	if err != nil {
		f.opts.Log.Warn("no command of its file is run, nor is it saved: " + err.Error())
		file = &wg.Config{}
	}
	as := f.tunnel(file)
	shown, facts, err := f.kernel.Observe(ctx, nil)
	if err != nil {
		return nil, err
	}
	if f.at.Made {
		errs = append(errs, as.hooks(ctx, wg.PreDown, f.opts.Log))
		if file.Quick.SaveConfig {
			errs = append(errs, as.save(facts, f.opts.Log))
		}
	}
	steps := routing.Diff(routing.State{Sysctls: sysctlsOfOthers(f.opts, f.at.Name)}, routing.State{Sysctls: shown.Sysctls})
	steps = slices.DeleteFunc(steps, func(s routing.Step) bool { _, sets := s.(routing.SetSysctl); return sets })
	steps = append(steps, routing.DiffProxies(nil, f.at.Proxies)...)
	record(steps, f.kernel.Apply(ctx, steps))
	if removed, err := f.removeLink(); removed || err != nil {
		done = append(done, "ip link delete "+f.at.Name)
		errs = append(errs, err)
	}
	record(f.table.Delete(ctx))
	if f.at.Made {
		errs = append(errs, as.hooks(ctx, wg.PostDown, f.opts.Log))
	}
	if err := errors.Join(errs...); err != nil {
		return done, err
	}
	return done, f.at.forget(f.opts)
}

// removeLink removes the device with its addresses and routes. A TUN went with
// its process.
func (f *farEnd) removeLink() (bool, error) {
	if f.device != nil {
		return true, f.device.Close()
	}
	_, kind, err := f.kernel.LinkIndex(f.at.Name)
	if errors.Is(err, fs.ErrNotExist) || !f.at.Made || err == nil && kind != kindWireGuard && f.links == wg.Links(f.kernel) {
		return false, nil
	}
	return true, errors.Join(err, f.links.DeleteLink(f.at.Name))
}
