package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"smartdns/configs"
	"smartdns/nft"
	"smartdns/routing"
	"smartdns/routing/linux"
	"smartdns/routing/wg"
)

// Report is what Check found that is no error.
type Report struct {
	File     string
	Warnings []string // legal, but probably not meant
	Notes    []string // what is understood and not applied; what was read
}

// Check compiles the file with everything that it names.
func Check(o Options) (Report, error) {
	c, err := LoadConfig(o.Config)
	if err != nil {
		return Report{File: o.Config}, err
	}
	r := Report{File: c.File}
	if r.File == "" {
		r.File = "embedded defaults"
	}
	for _, w := range c.Warnings() {
		r.Warnings = append(r.Warnings, w.String())
	}
	if w, ok := judgeWarning(c); ok {
		r.Warnings = append(r.Warnings, w.String())
	}
	p, err := CompileStored(c, o.Dirs)
	if err != nil {
		return r, err
	}
	for _, t := range p.Tunnels {
		notes := t.WG.Notes()
		if !t.Hooks {
			notes = slices.Concat(notes, t.WG.HookNotes())
		}
		for _, n := range notes {
			r.Notes = append(r.Notes, n.String())
		}
	}
	for _, l := range p.allLists() {
		text := fmt.Sprintf("list %s: %d entries of %s from %s", l.Name, l.Entries, l.Kind, l.Source)
		if l.Format != "" {
			text += " (" + strings.Trim(l.Format+", "+l.Packing, ", ") + ")"
		}
		if l.Exceptions > 0 {
			text += fmt.Sprintf(", %d of them exceptions", l.Exceptions)
		}
		if l.Dropped > 0 {
			text += fmt.Sprintf(", %d lines passed over, the first: %s", l.Dropped, l.FirstDropped)
		}
		r.Notes = append(r.Notes, text)
	}
	if p.Config.Routing.Mode == configs.ModeOff {
		r.Notes = append(r.Notes, `[routing] mode = "off": names are resolved, nothing is routed by us`)
	} else if len(p.Tunnels) == 0 {
		r.Notes = append(r.Notes, "no [tunnel.*]: names are resolved, nothing is routed")
	}
	return r, nil
}

// inspect compiles the file and opens the kernel to read it.
func inspect(o Options) (*Parts, *linux.Kernel, error) {
	p, err := Load(o)
	if err != nil {
		return nil, nil, err
	}
	k, err := linux.Open(filepath.Join(o.Dirs.Run, sysctlsName))
	return p, k, err
}

// Plan returns the whole kernel state that the file asks for on this host, as
// the commands that would make it, with every tunnel up. It only reads the
// kernel. With sets, the elements of the static sets are printed too.
func Plan(ctx context.Context, o Options, sets bool) ([]string, error) {
	p, k, err := inspect(o)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	have, facts, err := k.Observe(ctx, nil)
	if err != nil {
		return nil, err
	}
	l, err := p.intended(o, have, facts)
	if err != nil {
		return nil, err
	}
	return p.planText(l, sets), nil
}

// intended is the live state that a kernel like this one should get.
func (p *Parts) intended(o Options, have routing.State, facts routing.Facts) (live, error) {
	kept, err := keptNumbers(numbersFile(o.Dirs).peek)
	if _, damaged := errors.AsType[damagedError](err); damaged {
		// The daemon sets it aside, and goes by what the kernel shows.
		o.Log.Warn("the tunnels may get other numbers: " + err.Error())
		err = nil
	}
	if err != nil {
		return live{}, err
	}
	l, err := p.wanted(facts, shownNumbers(kept, have))
	for _, t := range p.Tunnels {
		n := l.links[t.Path]
		if i, there := facts.Link(n.index); there && n.mtu == 0 {
			n.mtu = i.MTU // the daemon found it by the route to the endpoint
		}
		for _, r := range have.Routes {
			if r.Dev == string(t.Path) && r.MTU > 0 && (n.fits == 0 || r.MTU < n.fits) {
				n.fits = r.MTU // the daemon measured it
			}
		}
		l.links[t.Path] = n
	}
	l.forwards, l.waiting = p.opens(have), waitingNow(o)
	return l, err
}

// wanted is the live state of a host on which everything works.
func (p *Parts) wanted(facts routing.Facts, shown map[routing.Path]int) (live, error) {
	numbers, err := routing.Number(paths(p), shown)
	if err != nil {
		return live{}, err
	}
	l := live{
		facts: facts, marks: marks{routing.DefaultField, numbers}, links: map[routing.Path]link{}, marking: true,
		listen: listenAddrs(p.Config, facts), offloads: true,
	}
	next := 1 << 30 // indexes that no link has
	for _, t := range p.Tunnels {
		n := link{index: next, mtu: t.WG.MTU, up: true}
		for _, i := range facts.Links {
			if i.Name == string(t.Path) {
				n.index = i.Index
			}
		}
		if n.index == next {
			next++
			l.facts.Links = append(l.facts.Links[:len(l.facts.Links):len(l.facts.Links)],
				routing.Iface{Link: routing.Link{Index: n.index, Name: string(t.Path), MTU: tunnelMTU}})
		}
		l.links[t.Path] = n
	}
	return l, nil
}

// opens says for which families it is us who turn forwarding on, or did.
func (p *Parts) opens(have routing.State) opened {
	if len(p.Config.Listen.LAN) == 0 {
		return opened{}
	}
	is := turnedForwardingOn(have)
	return opened{is.v4 || !forwarding(routing.KeyForward4), is.v6 || !forwarding(routing.KeyForward6)}
}

// forwarding reports whether this host is a router now.
func forwarding(key string) bool {
	b, err := os.ReadFile("/proc/sys/" + key)
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// planText is the wanted state as commands.
func (p *Parts) planText(l live, sets bool) []string {
	if p.Config.Routing.Mode == configs.ModeOff {
		return []string{`# [routing] mode = "off": nothing in the kernel is ours`}
	}
	if len(p.Tunnels) == 0 {
		return []string{"# no [tunnel.*]: nothing in the kernel is ours"}
	}
	out := []string{"# DNS is served at"}
	for _, a := range l.listen {
		out = append(out, "#   "+a.String())
	}
	if p.Config.Listen.System {
		out = append(out, "# and this host asks it, until we stop")
	}
	for _, t := range p.Tunnels {
		out = append(out, "# tunnel "+string(t.Path)+"; where the kernel has no WireGuard, a TUN of our own")
		out = append(out, fmt.Sprintf("ip link add %s type wireguard", t.Path))
		out = append(out, fmt.Sprintf("wg setconf %s <(wg-quick strip %s)", t.Path, t.Config),
			fmt.Sprintf("wg set %s fwmark %#x", t.Path, l.fwmark(t)))
		switch by := t.WhenDown.Path(); {
		case by.IsTunnel():
			out = append(out, fmt.Sprintf("# while it is down, its flows go by %s, and are marked %#x", by, l.marks.field.Stood(l.marks.numbers[t.Path])))
		case by == routing.Direct:
			out = append(out, fmt.Sprintf("# while it is down, its flows go direct, and are marked %#x", l.marks.field.Value(routing.MarkRevocable)))
		}
	}
	out = append(out, "# locks first, then addresses, routes, rules and sysctls")
	out = append(out, stepTexts(routing.Diff(routing.Plan(p.input(l), l.facts), routing.State{}), sets)...)
	for _, t := range p.Tunnels {
		for _, r := range t.tableRoutes() {
			out = append(out, routing.ReplaceRoute{Route: r}.String())
		}
	}
	out = append(out, "# our table, in one transaction")
	rules := p.ruleset(l)
	text := rules.String()
	if sets {
		text = rules.Full()
	}
	out = append(out, "nft -f - <<'EOF'")
	out = append(out, strings.Split(strings.TrimRight(text, "\n"), "\n")...)
	return append(out, "EOF")
}

// Diff returns what would have to change in the kernel for it to be as the
// file asks. It only reads.
func Diff(ctx context.Context, o Options) ([]string, error) {
	p, k, err := inspect(o)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	index := map[routing.Path]int{}
	var devices []int
	var out []string
	for _, t := range p.Tunnels {
		i, _, err := k.LinkIndex(string(t.Path))
		if err != nil {
			out = append(out, fmt.Sprintf("ip link add %s type wireguard", t.Path))
			continue
		}
		index[t.Path] = i
		devices = append(devices, i)
	}
	have, facts, err := k.Observe(ctx, devices)
	if err != nil {
		return nil, err
	}
	l, err := p.intended(o, have, facts)
	if err != nil {
		return nil, err
	}
	for _, t := range p.Tunnels {
		if index[t.Path] == 0 {
			continue
		}
		steps, err := wg.Diff(string(t.Path), t.WG, l.fwmark(t))
		if err != nil {
			return nil, err
		}
		for _, s := range steps {
			out = append(out, s.String())
		}
	}
	for _, s := range routing.Diff(routing.Plan(p.input(l), l.facts), have) {
		out = append(out, s.String())
	}
	return p.diffTable(ctx, out, l)
}

func mtuOf(f routing.Facts, index int) int {
	i, _ := f.Link(index)
	return i.MTU
}

// diffTable adds what our nft table lacks. Which of its rules are there for
// the moment (a tunnel that is down, a redirect) is the daemon's business: a
// table that fits any of these states fits.
func (p *Parts) diffTable(ctx context.Context, out []string, l live) ([]string, error) {
	err := withTable(ctx, func(t *nft.Table) error {
		if len(p.Tunnels) == 0 {
			state, err := t.Observe(ctx)
			if state.Exists {
				out = append(out, "nft delete table inet "+nft.TableName)
			}
			return err
		}
		if p.Config.Routing.Flowtable {
			var err error
			if l.offloads, err = t.CanOffload(ctx); err != nil {
				return err
			}
		}
		steps, err := t.Diff(ctx, p.ruleset(l))
		for _, tunnel := range p.Tunnels {
			if err != nil || len(steps) == 0 {
				break
			}
			down, n := l, l.links[tunnel.Path]
			down.links, n.up = maps.Clone(l.links), false
			down.links[tunnel.Path] = n
			var fewer []routing.Step
			if fewer, err = t.Diff(ctx, p.ruleset(down)); len(fewer) < len(steps) {
				l, steps = down, fewer
			}
		}
		if err != nil {
			return err
		}
		for _, s := range steps {
			out = append(out, s.String())
		}
		return nil
	})
	return out, err
}

// Cleanup removes everything that is ours from the kernel and from resolv.conf,
// whoever left it there, and returns what it did. It refuses while a daemon
// runs, and while the kill switch is closed. What it could not remove is in the
// error.
func Cleanup(ctx context.Context, o Options) ([]string, error) {
	release, err := claimAll(o)
	if err != nil {
		return nil, err
	}
	defer release()
	if Closed(ctx, o) {
		return nil, errClosed
	}
	done, err := clean(ctx, o)
	peers, perr := cleanPeers(ctx, o)
	return append(done, peers...), errors.Join(err, perr)
}

// claimAll makes this process the one that may change the kernel state of its
// network namespace and the run directory.
func claimAll(o Options) (release func(), err error) {
	claimed, err := claim(nil)
	if err != nil {
		return nil, err
	}
	locked, err := lock(o.Dirs.Run, nil)
	if err != nil {
		claimed.Close()
		return nil, err
	}
	return func() { unlock(o.Dirs.Run, locked); claimed.Close() }, nil
}

// clean is Cleanup for who has claimed the state.
func clean(ctx context.Context, o Options) ([]string, error) {
	k, err := linux.Open(filepath.Join(o.Dirs.Run, sysctlsName))
	if err != nil {
		return nil, err
	}
	defer k.Close()
	var out []string
	var errs []error
	record := func(steps []routing.Step, err error) {
		for _, s := range steps {
			out = append(out, s.String())
		}
		errs = append(errs, err)
	}
	restored, err := restoreHostDNS(o)
	out, errs = append(out, restored...), append(errs, err)
	have, _, err := k.Observe(ctx, nil)
	if err != nil {
		return out, err
	}
	devices := have.Numbers()
	if r, ok := readRaised(o); ok {
		devices[r.Tunnel] = 0 // nothing of ours may lead into it
	}
	for path := range devices {
		// A TUN went with its process; what is left is a kernel device.
		if _, kind, err := k.LinkIndex(string(path)); err == nil && kind == kindWireGuard {
			out = append(out, "ip link delete "+string(path))
			errs = append(errs, k.DeleteLink(string(path)))
		}
	}
	errs = append(errs, withTable(ctx, func(t *nft.Table) error {
		steps, err := t.Delete(ctx)
		record(steps, err)
		return nil
	}))
	record(routing.NewReconciler(k, o.Log).Set(ctx, routing.Input{}))
	// A file that cannot be read names no tunnel, and goes as well.
	kept, _ := keptNumbers(numbersFile(o.Dirs).peek)
	removed, err := removeLeftFiles(o, slices.Sorted(maps.Keys(kept)))
	out = append(out, removed...)
	errs = append(errs, err, forgetNumbers(o.Dirs), forgetRaised(o))
	if errors.Join(errs...) == nil {
		errs = append(errs, forgetClosed(o.Dirs))
	}
	return out, errors.Join(errs...)
}
