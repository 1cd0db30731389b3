package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// FlushRuleset does what `nft flush ruleset` does.
func (n *Namespace) FlushRuleset() error {
	c, err := nftables.New(nftables.WithNetNSFd(int(n.net)))
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	c.FlushRuleset()
	if err := c.Flush(); err != nil {
		return fmt.Errorf("flushing the ruleset: %w", err)
	}
	return nil
}

// FlushRules does what `ip rule flush` and `ip -6 rule flush` do: only
// "lookup local" stays. See AddMainRules.
func (n *Namespace) FlushRules() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := n.nl.RuleList(family)
		if err != nil {
			return fmt.Errorf("listing rules: %w", err)
		}
		for _, r := range rules {
			if r.Priority == 0 {
				continue
			}
			r.Family = family
			if err := n.nl.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("deleting rule %d: %w", r.Priority, err)
			}
		}
	}
	return nil
}

// AddMainRules puts "lookup main" and "lookup default" back, as they are on
// every fresh host.
func (n *Namespace) AddMainRules() error {
	for _, m := range []struct{ family, priority, table int }{
		{unix.AF_INET, 32766, unix.RT_TABLE_MAIN},
		{unix.AF_INET, 32767, unix.RT_TABLE_DEFAULT},
		{unix.AF_INET6, 32766, unix.RT_TABLE_MAIN},
	} {
		r := netlink.NewRule()
		r.Family, r.Priority, r.Table, r.Protocol = m.family, m.priority, m.table, unix.RTPROT_KERNEL
		if err := n.nl.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("adding rule %d: %w", m.priority, err)
		}
	}
	return nil
}

// SetUplink cuts the gateway's uplink, or mends it with the addresses and
// default routes that it had at start; it returns when the link is in use.
func (g *Gateway) SetUplink(ctx context.Context, up bool) error {
	if !up {
		return g.SetLink(uplinkName, false)
	}
	// The kernel dropped the v6 address with the link.
	if err := g.up(uplinkName, netip.PrefixFrom(UplinkV6, 64)); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return errors.Join(g.defaults(RouterV4, RouterV6), g.settle(ctx))
}

// SetTunnel switches the link wg0 off or on, as `ip link set wg0 down` does.
func (g *Gateway) SetTunnel(up bool) error { return g.SetLink("wg0", up) }

// HostileRoutes returns routes for the main table that an evil network hands
// out to pull traffic out of a tunnel: by a router (CVE-2024-3661) and as
// neighbours (CVE-2023-36672). Add them with AddRoute.
func HostileRoutes() []Route {
	var rs []Route
	for _, p := range []string{"0.0.0.0/1", "128.0.0.0/1", "93.184.0.0/17"} {
		rs = append(rs, Route{To: netip.MustParsePrefix(p), Via: RouterV4, Dev: uplinkName})
	}
	for _, p := range []string{"::/1", "8000::/1"} {
		rs = append(rs, Route{To: netip.MustParsePrefix(p), Via: RouterV6, Dev: uplinkName})
	}
	for _, p := range []string{"93.184.216.0/24", "2606:2800:220:1::/64"} {
		rs = append(rs, Route{To: netip.MustParsePrefix(p), Dev: uplinkName})
	}
	return rs
}
