package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"go4.org/netipx"

	"smartdns/internal/wholefile"
	"smartdns/nft"
	"smartdns/routing"
	"smartdns/routing/linux"
)

// errClosed is why something else than down does not open the kill switch.
var errClosed = errors.New("the kill switch is closed: [routing] strict = true was in force, and only `smartdns down` opens it")

// strictName is a file of the state directory. While it is there, the kill switch
// is meant to be closed: over a reboot, and whatever the configuration says.
const strictName = "strict"

func strictFile(d Dirs) string { return filepath.Join(d.State, strictName) }

// keepClosed is for before the kill switch closes.
func keepClosed(d Dirs) error {
	if err := os.MkdirAll(d.State, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	if err := wholefile.ReplaceBytes(strictFile(d), nil); err != nil {
		return fmt.Errorf("keeping that the kill switch is closed: %w", err)
	}
	return nil
}

// forgetClosed is for when it was opened.
func forgetClosed(d Dirs) error {
	if err := os.Remove(strictFile(d)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Closed reports whether the kill switch is closed, or is meant to be: by what
// the kernel shows, or by what an earlier run has left. Who may not ask the
// kernel goes by the latter.
func Closed(ctx context.Context, o Options) bool {
	if _, err := os.Stat(strictFile(o.Dirs)); err == nil {
		return true
	}
	closed := false
	_ = withTable(ctx, func(t *nft.Table) error {
		var err error
		closed, err = t.Strict(ctx)
		return err
	})
	return closed
}

// strict reports whether the kill switch is ours to close.
func (e *engine) strict() bool { return e.parts.strict() }

func (p *Parts) strict() bool { return p.Config.Routing.Strict && len(p.Tunnels) > 0 }

// ownNetworks are those that nobody routes in the Internet (RFC 1918, 3927, 4193
// and 4291): the LAN, wherever it is.
func ownNetworks() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return append(all, linkLocal()...)
}

func linkLocal() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")}
}

// near returns what the kill switch takes for the LAN: in the order of
// addresses, what no line and no tunnel has.
func (p *Parts) near(l live) []netip.Prefix {
	var near netipx.IPSetBuilder
	if p.privateVia() == routing.Direct {
		for _, n := range ownNetworks() {
			near.AddPrefix(n)
		}
	}
	for _, t := range p.Tunnels {
		for _, o := range t.own() {
			if o.Bits() > 0 {
				near.RemovePrefix(o.Masked())
			}
		}
	}
	for _, rule := range p.Sets.Decide.Rules {
		if rule.Via == routing.Direct {
			continue
		}
		for _, prefix := range p.prefixesOf(rule.Match) {
			near.RemovePrefix(prefix.Masked())
		}
	}
	for _, n := range slices.Concat(linkLocal(), lanPrefixes(p.Config, l.facts)) {
		near.AddPrefix(n)
	}
	set, err := near.IPSet()
	if err != nil {
		return linkLocal() // an invalid prefix, which no configuration has
	}
	return set.Prefixes()
}

// privateVia is the way of what is private.
func (p *Parts) privateVia() routing.Path {
	for _, rule := range p.Sets.Decide.Rules {
		if rule.Match.Kind == nft.MatchPrivate {
			return rule.Via
		}
	}
	return routing.Direct
}

// prefixesOf returns what a line of addresses names by prefix.
func (p *Parts) prefixesOf(m nft.Match) []netip.Prefix {
	switch m.Kind {
	case nft.MatchPrefix:
		return []netip.Prefix{m.Prefix}
	case nft.MatchList:
		for _, list := range p.Sets.Lists {
			if list.Name == m.List {
				return list.Prefixes
			}
		}
	}
	return nil
}

// locked is what the kernel holds while nobody decides.
type locked struct {
	rules nft.Ruleset
	input routing.Input
}

// lockedAll lets nothing but the LAN out, whatever the configuration says.
func lockedAll() locked {
	near := ownNetworks()
	return locked{
		nft.Ruleset{KillSwitch: nft.KillSwitch{Level: nft.Lockdown, Near: near}},
		routing.Input{Field: routing.DefaultField, Locked: true, Near: near},
	}
}

// locked is the same by the configuration. The tunnels' marks stay locked, and
// those of addresses are kept for the next start.
func (p *Parts) locked(l live) locked {
	near := p.near(l)
	full := p.ruleset(l)
	rules := nft.Ruleset{
		Field: full.Field, Tunnels: full.Tunnels, SetSize: full.SetSize,
		Interfaces: nft.Interfaces{LAN: full.Interfaces.LAN, Skip: full.Interfaces.Skip},
		KillSwitch: nft.KillSwitch{Level: nft.Lockdown, Near: near},
	}
	for i := range rules.Tunnels {
		rules.Tunnels[i].Up = false
	}
	in := routing.Input{Field: l.marks.field, Default: p.Sets.Decide.Default, Locked: true, Near: near}
	for _, t := range p.Tunnels {
		in.Tunnels = append(in.Tunnels, routing.Tunnel{Path: t.Path, Number: l.marks.numbers[t.Path], AllowedIPs: t.allowed()})
	}
	return locked{rules, in}
}

// set makes the kernel so: in nftables at once, then the rules behind it, which
// hold without our table too.
func (c locked) set(ctx context.Context, table *nft.Table, routes *routing.Reconciler) ([]routing.Step, error) {
	steps, err := table.Set(ctx, c.rules)
	more, rerr := routes.Set(ctx, c.input)
	return append(steps, more...), errors.Join(err, rerr)
}

// refuseToOpen is an error where a start or a reload would open a kill switch
// that is closed.
func (e *engine) refuseToOpen(ctx context.Context, p *Parts) error {
	if p.strict() || !Closed(ctx, e.opts) {
		return nil
	}
	return fmt.Errorf("%w; this configuration does not say it", errClosed)
}

// lockDown stops everything and leaves the kernel closed.
func (e *engine) lockDown(ctx context.Context) error {
	var errs []error
	collect := func(err error) { errs = append(errs, err) }
	collect(e.hostDNS.restore())
	collect(keepClosed(e.opts.Dirs)) // a reload may have asked for it
	if e.table == nil {
		table, err := nft.Open(ctx, nft.Options{Logger: e.log})
		collect(err)
		e.table = table
	}
	c := e.parts.locked(e.liveNow())
	if e.table != nil {
		steps, err := e.table.Set(ctx, c.rules)
		e.logSteps(steps)
		collect(err)
	}
	if e.server != nil {
		e.server.Close()
		_ = e.who.follow(false) // a socket that only read
	}
	for _, t := range e.tunnels {
		collect(e.closeTunnel(t))
	}
	steps, err := e.routes.Set(ctx, c.input)
	e.logSteps(steps)
	collect(err)
	if e.table != nil {
		collect(e.table.Close())
	}
	e.log.Warn("the kill switch stays closed: nothing leaves but to the LAN, until smartdns runs again or `smartdns down` opens it")
	return errors.Join(errs...)
}

// liveNow is live, also before there is a server.
func (e *engine) liveNow() live {
	if e.server != nil {
		return e.live()
	}
	return live{facts: e.routes.Status().Facts, marks: e.marks, links: map[routing.Path]link{}}
}

// Lockdown closes the kill switch without a daemon, and returns what it did:
// for a boot before there is a network, and for who runs none. With fromConfig it
// does so only where the configuration says strict, or an earlier run did and
// nobody has opened it; closed then says whether. A configuration that cannot be
// read closes it all the same, and is the error.
func Lockdown(ctx context.Context, o Options, fromConfig bool) (steps []string, closed bool, err error) {
	release, err := claimAll(o)
	if err != nil {
		return nil, false, err
	}
	defer release()
	parts, unreadable := Load(o)
	switch {
	case unreadable != nil:
		unreadable = fmt.Errorf("%w\nthe kill switch was closed without it: nothing leaves but to the LAN", unreadable)
	case fromConfig && !parts.strict() && !Closed(ctx, o):
		return nil, false, nil
	}
	k, err := linux.Open(filepath.Join(o.Dirs.Run, sysctlsName))
	if err != nil {
		return nil, false, errors.Join(unreadable, err)
	}
	defer k.Close()
	have, facts, err := k.Observe(ctx, nil)
	if err != nil {
		return nil, false, errors.Join(unreadable, err)
	}
	c := lockedAll()
	if unreadable == nil && len(parts.Tunnels) > 0 {
		l, err := parts.intended(o, have, facts)
		if err != nil {
			return nil, false, err
		}
		c = parts.locked(l)
	}
	errs := []error{unreadable, keepClosed(o.Dirs)}
	table, err := nft.Open(ctx, nft.Options{Logger: o.Log})
	if err != nil {
		return nil, false, errors.Join(append(errs, err)...)
	}
	did, err := c.set(ctx, table, routing.NewReconciler(k, o.Log))
	for _, s := range did {
		steps = append(steps, s.String())
	}
	return steps, err == nil, errors.Join(append(errs, err, table.Close())...)
}

// stillClosed adds to the error of a start what it means for a kill switch that
// is closed.
func stillClosed(ctx context.Context, o Options, err error) error {
	if !Closed(ctx, o) {
		return err
	}
	return fmt.Errorf("%w\nthe kill switch stays closed: nothing leaves but to the LAN, until a start that succeeds, or `smartdns down`", err)
}
