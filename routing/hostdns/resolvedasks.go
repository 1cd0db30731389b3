package hostdns

import (
	"context"
	"errors"
	"net/netip"
)

// resolvedAsks reports whether systemd-resolved asks only ours: all servers of
// the links, or of its own settings, that have all names; or all there are,
// where none has.
func resolvedAsks(ctx context.Context, b bus, ours []netip.Addr) bool {
	if !b.has(ctx, resolvedName) {
		return false
	}
	asked, err := resolvedServers(ctx, b)
	for _, a := range asked {
		if !isOneOf(a, ours) {
			return false
		}
	}
	return err == nil && len(asked) > 0
}

// resolvedServers returns those that systemd-resolved asks for a name in no
// link's own domains.
func resolvedServers(ctx context.Context, b bus) ([]netip.Addr, error) {
	const settings = 0 // in the place of a link
	var dns []struct {
		Link    int32
		Family  int32
		Address []byte
	}
	var domains []struct {
		Link      int32
		Name      string
		RouteOnly bool
	}
	err := errors.Join(b.property(ctx, resolvedName, resolvedPath, resolvedManager, "DNS", &dns),
		b.property(ctx, resolvedName, resolvedPath, resolvedManager, "Domains", &domains))
	var asked []netip.Addr
	root, rootInSettings := false, false
	for _, d := range domains {
		switch {
		case d.Name != ".":
		case d.Link == settings:
			root, rootInSettings = true, true
		default:
			root = true
			link, e := resolved{b: b}.readIndex(ctx, d.Link)
			asked, err = append(asked, addrs(link.DNS)...), errors.Join(err, e)
		}
	}
	for _, s := range dns {
		// A loopback address has the index of lo here, whoever's server it is.
		if a, _ := netip.AddrFromSlice(s.Address); !root || rootInSettings && (s.Link == settings || a.IsLoopback()) {
			asked = append(asked, a)
		}
	}
	return asked, err
}
