package linux

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// rules fills in our rules, and those of others.
func (o *observation) rules() error {
	for _, f := range o.families() {
		rules, err := dump(o.ctx, func() ([]netlink.Rule, error) { return o.k.h.RuleList(f) })
		if err != nil {
			return fmt.Errorf("listing %s rules: %w", family(f), err)
		}
		for _, r := range rules {
			t := rule(r)
			if r.Protocol == routing.Protocol && inBand(t.Pref) {
				// The library does not say what a rule without a table does. Of
				// ours, the last one of the band is there to be gone to.
				t.Nop = t.Table == 0 && t.Goto == 0 && t.Pref == routing.PrefBand
				t.To, _ = prefix(r.Dst)
				t.Unreachable = t.Table == 0 && t.Goto == 0 && !t.Nop
				o.state.Rules = append(o.state.Rules, t)
				continue
			}
			fr := routing.ForeignRule{Rule: t, Protocol: r.Protocol}
			fr.Also, fr.Narrow = also(r)
			if fr.Wide, err = o.wide(f, r.Table); err != nil {
				return err
			}
			o.facts.Rules = append(o.facts.Rules, fr)
		}
	}
	return nil
}

func inBand(pref uint32) bool {
	return pref >= routing.PrefTunnel-1 && pref <= routing.PrefBand || pref == routing.PrefNoMain
}

// wide reports whether a table of others routes half of all addresses.
func (o *observation) wide(fam, table int) (bool, error) {
	switch table {
	case 0, routing.TableLocal, routing.TableMain, routing.TableDefault:
		return false, nil
	}
	routes, err := o.table(fam, table)
	return slices.ContainsFunc(routes, func(r netlink.Route) bool {
		p, ok := prefix(r.Dst)
		return ok && p.Bits() <= 1
	}), err
}

func rule(r netlink.Rule) routing.Rule {
	t := routing.Rule{
		Family: family(r.Family),
		Pref:   uint32(r.Priority),
		Not:    r.Invert,
		Mark:   r.Mark,
		IIF:    r.IifName,
		Table:  uint32(r.Table),
	}
	if r.Mask != nil {
		t.Mask = *r.Mask
	} else if r.Mark != 0 {
		t.Mask = 1<<32 - 1
	}
	if r.Goto > 0 {
		t.Goto = uint32(r.Goto)
	}
	return t
}

// also returns what routing.Rule has no field for, and whether that narrows
// what the rule takes.
func also(r netlink.Rule) (string, bool) {
	var s []string
	add := func(when bool, format string, args ...any) {
		if when {
			s = append(s, fmt.Sprintf(format, args...))
		}
	}
	add(r.Src != nil, "from %s", r.Src)
	add(r.Dst != nil, "to %s", r.Dst)
	add(r.OifName != "", "oif %s", r.OifName)
	add(r.Tos != 0, "tos %#x", r.Tos)
	add(r.TunID != 0, "tun_id %d", r.TunID)
	add(r.IPProto != 0, "ipproto %d", r.IPProto)
	if r.UIDRange != nil {
		add(true, "uidrange %d-%d", r.UIDRange.Start, r.UIDRange.End)
	}
	if r.Sport != nil {
		add(true, "sport %d-%d", r.Sport.Start, r.Sport.End)
	}
	if r.Dport != nil {
		add(true, "dport %d-%d", r.Dport.Start, r.Dport.End)
	}
	add(r.SuppressPrefixlen >= 0, "suppress_prefixlength %d", r.SuppressPrefixlen)
	add(r.SuppressIfgroup >= 0, "suppress_ifgroup %d", r.SuppressIfgroup)
	return strings.Join(s, " "), len(s) > 0
}

// netlinkRule is r as the library takes it. It starts from NewRule: a zero Rule
// says "goto 0" and "suppress 0".
func netlinkRule(r routing.Rule) *netlink.Rule {
	n := netlink.NewRule()
	n.Family = netlink.FAMILY_V4
	if r.Family == routing.V6 {
		n.Family = netlink.FAMILY_V6
	}
	n.Priority = int(r.Pref)
	n.Invert = r.Not
	n.IifName = r.IIF
	if r.To.IsValid() {
		n.Dst = ipNet(r.To)
	}
	n.Table = int(r.Table)
	n.Protocol = routing.Protocol
	if r.Mask != 0 {
		mask := r.Mask // without one the library writes a full mask
		n.Mark, n.Mask = r.Mark, &mask
	}
	const actNop = 3 // FR_ACT_NOP of linux/fib_rules.h
	switch {
	case r.Unreachable:
		n.Type = unix.RTN_UNREACHABLE
	case r.Nop:
		n.Type = actNop
	case r.Goto != 0:
		n.Goto = int(r.Goto)
	}
	return n
}
