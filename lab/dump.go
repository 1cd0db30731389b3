package lab

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Dump returns what a network manager can see and change in the namespace: the
// nftables ruleset without counters, rules, routes of all tables, links,
// addresses, sysctls of IPv4 and IPv6, and resolv.conf. Two dumps are equal if
// nothing changed: there are no times, counters or indexes in it.
func (n *Namespace) Dump(ctx context.Context) (string, error) {
	var all []string
	for _, part := range []struct {
		name string
		list func(context.Context) ([]string, error)
	}{
		{"nft", n.dumpRuleset}, {"rules", n.dumpRules}, {"routes", n.dumpRoutes},
		{"links", n.dumpLinks}, {"sysctls", n.dumpSysctls}, {"resolv.conf", n.dumpResolvConf},
	} {
		lines, err := part.list(ctx)
		if err != nil {
			return "", fmt.Errorf("dumping %s of %s: %w", part.name, n.Name, err)
		}
		all = append(all, "# "+part.name)
		all = append(all, lines...)
	}
	return strings.Join(all, "\n") + "\n", nil
}

func (n *Namespace) dumpRuleset(ctx context.Context) ([]string, error) {
	if _, err := exec.LookPath("nft"); err != nil {
		return n.listTables()
	}
	s, err := n.Exec(ctx, "nft", "-s", "list", "ruleset")
	return strings.Split(strings.TrimSpace(s), "\n"), err
}

// listTables is for hosts without nft: what there is, if not what it says.
func (n *Namespace) listTables() ([]string, error) {
	c, err := nftables.New(nftables.WithNetNSFd(int(n.net)))
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, t := range tables {
		out = append(out, fmt.Sprintf("table %d %s flags %d", t.Family, t.Name, t.Flags))
		sets, err := c.GetSets(t)
		if err != nil {
			return nil, err
		}
		for _, s := range sets {
			out = append(out, fmt.Sprintf("set %d %s %s", t.Family, t.Name, s.Name))
		}
	}
	for _, ch := range chains {
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprintf("chain %d %s %s: %d rules", ch.Table.Family, ch.Table.Name, ch.Name, len(rules)))
	}
	slices.Sort(out)
	return out, nil
}

// dumpRules reads the messages themselves: the library does not tell a look-up
// from an unreachable rule.
func (n *Namespace) dumpRules(context.Context) ([]string, error) {
	var out []string
	err := n.Do(func() error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			req := nl.NewNetlinkRequest(unix.RTM_GETRULE, unix.NLM_F_DUMP)
			req.AddData(nl.NewIfInfomsg(family))
			msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWRULE)
			if err != nil {
				return err
			}
			for _, m := range msgs {
				s, err := formatRule(m)
				if err != nil {
					return err
				}
				out = append(out, s)
			}
		}
		return nil
	})
	return out, err
}

func formatRule(m []byte) (string, error) {
	h := nl.DeserializeRtMsg(m)
	attrs, err := nl.ParseRouteAttr(m[h.Len():])
	if err != nil {
		return "", err
	}
	native := nl.NativeEndian()
	values, others := map[uint16]string{}, []string{}
	for _, a := range attrs {
		switch v, k := a.Value, a.Attr.Type; k {
		case nl.FRA_PRIORITY, nl.FRA_TABLE:
			values[k] = fmt.Sprint(native.Uint32(v))
		case nl.FRA_FWMARK, nl.FRA_FWMASK:
			values[k] = fmt.Sprintf("%#x", native.Uint32(v))
		case nl.FRA_IIFNAME, nl.FRA_OIFNAME:
			values[k] = strings.TrimRight(string(v), "\x00")
		case nl.FRA_SRC:
			values[k] = fmt.Sprintf("%s/%d", net.IP(v), h.Src_len)
		case nl.FRA_DST:
			values[k] = fmt.Sprintf("%s/%d", net.IP(v), h.Dst_len)
		default:
			others = append(others, fmt.Sprintf(" attr%d %x", k, v))
		}
	}
	out := familyName(int(h.Family)) + " " + cmp.Or(values[nl.FRA_PRIORITY], "0") + ":"
	for _, k := range []struct {
		attr uint16
		word string
	}{{nl.FRA_SRC, "from"}, {nl.FRA_DST, "to"}, {nl.FRA_IIFNAME, "iif"}, {nl.FRA_OIFNAME, "oif"}, {nl.FRA_FWMARK, "fwmark"}, {nl.FRA_FWMASK, "mask"}, {nl.FRA_TABLE, "table"}} {
		if v := values[k.attr]; v != "" {
			out += " " + k.word + " " + v
		}
	}
	// fib_rule_hdr has the action where rtmsg has the type.
	return fmt.Sprintf("%s action %d flags %#x%s", out, h.Type, h.Flags, strings.Join(others, "")), nil
}

func familyName(f int) string {
	if f == unix.AF_INET6 {
		return "v6"
	}
	return "v4"
}

func (n *Namespace) dumpRoutes(context.Context) ([]string, error) {
	names, err := n.linkNames()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := n.nl.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			out = append(out, fmt.Sprintf("%s table %d %v via %v dev %s src %v metric %d proto %d type %d scope %d mtu %d",
				familyName(family), r.Table, r.Dst, r.Gw, names[r.LinkIndex], r.Src, r.Priority, r.Protocol, r.Type, r.Scope, r.MTU))
		}
	}
	slices.Sort(out)
	return out, nil
}

func (n *Namespace) linkNames() (map[int]string, error) {
	links, err := n.nl.LinkList()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}

func (n *Namespace) dumpLinks(context.Context) ([]string, error) {
	names, err := n.linkNames()
	if err != nil {
		return nil, err
	}
	links, err := n.nl.LinkList()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range links {
		a := l.Attrs()
		out = append(out, fmt.Sprintf("link %s %s mtu %d up %t master %q alias %q", a.Name, l.Type(), a.MTU, a.Flags&net.FlagUp != 0, names[a.MasterIndex], a.Alias))
		addrs, err := n.nl.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, err
		}
		for _, ad := range addrs {
			out = append(out, fmt.Sprintf("addr %s %s scope %d", a.Name, ad.IPNet, ad.Scope))
		}
	}
	slices.Sort(out)
	return out, nil
}

func (n *Namespace) dumpSysctls(context.Context) ([]string, error) {
	var out []string
	err := n.Do(func() error {
		for _, root := range []string{"net/ipv4", "net/ipv6"} {
			err := filepath.WalkDir("/proc/sys/"+root, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				// A link may go while we look, and some files hide secrets.
				if b, err := os.ReadFile(path); err == nil {
					out = append(out, strings.TrimPrefix(path, "/proc/sys/")+" = "+strings.TrimSpace(string(b)))
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

func (n *Namespace) dumpResolvConf(context.Context) ([]string, error) {
	var b []byte
	err := n.doMounted(func() error {
		var err error
		b, err = os.ReadFile("/etc/resolv.conf")
		if os.IsNotExist(err) {
			b, err = []byte("(none)"), nil
		}
		return err
	})
	return []string{strings.TrimSpace(string(b))}, err
}
