package hostdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

const (
	resolvedPath    dbus.ObjectPath = "/org/freedesktop/resolve1"
	resolvedManager                 = resolvedName + ".Manager"
	resolvedLink                    = resolvedName + ".Link"
	networkdPath    dbus.ObjectPath = "/org/freedesktop/network1"
	networkdManager                 = networkdName + ".Manager"
)

// resolved is systemd-resolved, which asks the servers of a link: of ours for
// all names (the domain "~."), but for those that another link's own domains
// end. It forgets the link's servers together with the link.
type resolved struct {
	o Options
	b bus
}

func (r resolved) String() string { return bySystemd }

// server and domain are D-Bus's (iay) and (sb).
type server struct {
	Family  int32
	Address []byte
}

type domain struct {
	Name      string
	RouteOnly bool
}

// linkDNS is what systemd-resolved knows for a link.
type linkDNS struct {
	DNS     []server
	Domains []domain
	Default bool
}

// is reports whether l is what other says.
func (l linkDNS) is(other linkDNS) bool {
	return slices.Equal(addrs(l.DNS), addrs(other.DNS)) && slices.Equal(l.Domains, other.Domains) && l.Default == other.Default
}

// formerLink is what is kept of a link, in a file of its own.
type formerLink struct {
	Link    string
	Servers []netip.Addr // that it was told instead
	Former  linkDNS
}

func (r resolved) saved() string { return r.o.Saved + ".resolved" }

func (r resolved) set(ctx context.Context) (bool, error) {
	if r.o.Link == "" {
		return false, errors.New("there is no link whose servers could be ours: neither a tunnel nor one with a default route")
	}
	var saved formerLink
	known, err := readSaved(r.saved(), &saved)
	if err != nil {
		return false, err
	}
	if known && saved.Link != r.o.Link {
		if err := r.restore(ctx); err != nil {
			return false, err
		}
		known = false
	}
	index, now, err := r.read(ctx, r.o.Link)
	if err != nil {
		return false, err
	}
	if !known || !slices.Equal(addrs(now.DNS), saved.Servers) {
		saved = formerLink{Link: r.o.Link, Former: now}
	}
	want := linkDNS{DNS: servers(r.o.Servers), Domains: r.domains(saved.Former), Default: true}
	if now.is(want) {
		unused := r.used(ctx, index)
		if unused == nil {
			return false, nil
		}
		// Somebody may have reverted the link between the two looks, which leaves
		// it no servers to be asked: that is no fault of the link.
		if now, err = r.readIndex(ctx, index); err != nil || now.is(want) {
			return false, errors.Join(err, unused)
		}
	}
	saved.Servers = r.o.Servers
	if err := writeSaved(r.saved(), saved); err != nil {
		return false, err
	}
	if err := r.tell(ctx, index, want); err != nil {
		return false, errors.Join(err, r.restore(ctx))
	}
	return true, r.used(ctx, index)
}

// domains are those that the link is told: all names, and those that are
// searched. The link's own stay its own: we are asked for them as well.
func (r resolved) domains(former linkDNS) []domain {
	var all []domain
	for _, s := range r.o.Search {
		all = append(all, domain{Name: strings.Trim(s, ".")})
	}
	if len(all) == 0 {
		for _, d := range former.Domains {
			if d.Name != "." {
				all = append(all, d)
			}
		}
	}
	return append(all, domain{".", true})
}

// tell gives a link servers, domains and the role of the default, in one go:
// domains without servers would leak, servers without domains not be asked.
func (r resolved) tell(ctx context.Context, index int32, want linkDNS) error {
	return r.both(ctx, func(dest string, path dbus.ObjectPath, manager string) error {
		calls := []call{
			{dest, path, manager + ".SetLinkDNS", []any{index, want.DNS}},
			{dest, path, manager + ".SetLinkDomains", []any{index, want.Domains}},
			{dest, path, manager + ".SetLinkDefaultRoute", []any{index, want.Default}},
		}
		if !slices.ContainsFunc(r.o.Servers, func(a netip.Addr) bool { return !a.IsLoopback() }) {
			// We are on this host, and validate for ourselves or not at all.
			calls = append(calls,
				call{dest, path, manager + ".SetLinkDNSOverTLS", []any{index, "no"}},
				call{dest, path, manager + ".SetLinkDNSSEC", []any{index, "no"}})
		}
		return r.b.all(ctx, append(calls, flush())...)
	})
}

func flush() call { return call{resolvedName, resolvedPath, resolvedManager + ".FlushCaches", nil} }

// both tries systemd-resolved and, for a link that networkd looks after,
// networkd, which has the same methods.
func (r resolved) both(ctx context.Context, do func(dest string, path dbus.ObjectPath, manager string) error) error {
	err := do(resolvedName, resolvedPath, resolvedManager)
	if isBusError(err, resolvedName+".LinkBusy") && r.b.has(ctx, networkdName) {
		return do(networkdName, networkdPath, networkdManager)
	}
	return err
}

// used checks that systemd-resolved asks the link's servers at all.
func (r resolved) used(ctx context.Context, index int32) error {
	path, err := r.link(ctx, index)
	if err != nil {
		return err
	}
	const dns = 1 << 0 // SD_RESOLVED_DNS
	var scopes uint64
	if err := r.b.property(ctx, resolvedName, path, resolvedLink, "ScopesMask", &scopes); err != nil {
		return err
	}
	if scopes&dns == 0 {
		return fmt.Errorf("it does not ask the servers of %s, which is down or has no address", r.o.Link)
	}
	return nil
}

func (r resolved) link(ctx context.Context, index int32) (path dbus.ObjectPath, err error) {
	err = r.b.conn.Object(resolvedName, resolvedPath).
		CallWithContext(ctx, resolvedManager+".GetLink", dbus.FlagNoAutoStart, index).Store(&path)
	return path, err
}

// read returns a link's index, and what is known for it.
func (r resolved) read(ctx context.Context, name string) (index int32, now linkDNS, err error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return 0, now, fmt.Errorf("looking up %s: %w", name, err)
	}
	index = int32(iface.Index)
	now, err = r.readIndex(ctx, index)
	return index, now, err
}

func (r resolved) readIndex(ctx context.Context, index int32) (now linkDNS, err error) {
	path, err := r.link(ctx, index)
	if err != nil {
		return now, err
	}
	for property, value := range map[string]any{"DNS": &now.DNS, "Domains": &now.Domains, "DefaultRoute": &now.Default} {
		err = errors.Join(err, r.b.property(ctx, resolvedName, path, resolvedLink, property, value))
	}
	return now, err
}

func (r resolved) restore(ctx context.Context) error {
	var saved formerLink
	known, err := readSaved(r.saved(), &saved)
	if err != nil || !known {
		return err
	}
	if _, err := net.InterfaceByName(saved.Link); err == nil {
		if !r.b.has(ctx, resolvedName) {
			return fmt.Errorf("nobody is at the bus to take our address from %s; start it, then: resolvectl revert %[1]s", saved.Link)
		}
		if err := r.giveBack(ctx, saved); err != nil {
			return err
		}
	}
	return forgetSaved(r.saved())
}

func (r resolved) giveBack(ctx context.Context, saved formerLink) error {
	index, now, err := r.read(ctx, saved.Link)
	if err != nil || !slices.Equal(addrs(now.DNS), saved.Servers) {
		return err
	}
	was := saved.Former
	err = r.both(ctx, func(dest string, path dbus.ObjectPath, manager string) error {
		if dest == networkdName {
			return r.b.all(ctx, call{dest, path, manager + ".RevertLinkDNS", []any{index}}, flush())
		}
		calls := []call{{dest, path, manager + ".RevertLink", []any{index}}}
		if len(was.DNS) > 0 || len(was.Domains) > 0 { // somebody else had told it
			calls = append(calls,
				call{dest, path, manager + ".SetLinkDNS", []any{index, was.DNS}},
				call{dest, path, manager + ".SetLinkDomains", []any{index, was.Domains}},
				call{dest, path, manager + ".SetLinkDefaultRoute", []any{index, was.Default}})
		}
		return r.b.all(ctx, append(calls, flush())...)
	})
	return err
}

func servers(all []netip.Addr) []server {
	var out []server
	for _, a := range all {
		family := int32(unix.AF_INET)
		if a = a.Unmap(); a.Is6() {
			family = unix.AF_INET6
		}
		out = append(out, server{family, a.AsSlice()})
	}
	return out
}

func addrs(all []server) []netip.Addr {
	var out []netip.Addr
	for _, s := range all {
		a, _ := netip.AddrFromSlice(s.Address)
		out = append(out, a)
	}
	return out
}
