package daemon

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"smartdns/nft"
	"smartdns/routing"
)

// program is one whose rules stand beside ours, known by how it names them.
type program struct {
	name string
	// owns reports whether a chain is one that only it makes.
	owns func(nft.Chain) bool
	// pass returns the commands by which it lets the LAN into a tunnel, in its
	// own words: what is written into its chains is gone when it loads them
	// again.
	pass func(lan []string, tunnel routing.Path) string
	// open returns the commands by which it lets the LAN ask us at these ports.
	open func(lan []string, ports []uint16) string
	// flows is the command that turns its flowtable off; "" if it has none.
	flows string
}

// programs are those that are known. Where chains of several are in one table,
// the first is asked.
func programs() []program {
	prefix := func(p string) func(nft.Chain) bool {
		return func(c nft.Chain) bool { return strings.HasPrefix(c.Name, p) }
	}
	table := func(t string) func(nft.Chain) bool {
		return func(c nft.Chain) bool { return c.Table == t }
	}
	return []program{
		{"ufw", prefix("ufw-"), func(lan []string, t routing.Path) string {
			return perLAN(lan, " && ", func(l string) string { return fmt.Sprintf("ufw route allow in on %s out on %s", l, t) })
		}, func(lan []string, ports []uint16) string {
			return perLAN(lan, " && ", func(l string) string {
				return perPort(ports, " && ", func(n uint16) string { return fmt.Sprintf("ufw allow in on %s to any port %d", l, n) })
			})
		}, ""},
		{"firewalld", table("firewalld"), func(lan []string, t routing.Path) string {
			return fmt.Sprintf("zone=$(firewall-cmd --get-zone-of-interface=%s); firewall-cmd --permanent --zone=$zone --add-interface=%s; firewall-cmd --permanent --zone=$zone --add-forward; firewall-cmd --reload", lan[0], t)
		}, func(lan []string, ports []uint16) string {
			return perLAN(lan, "; ", func(l string) string {
				return "zone=$(firewall-cmd --get-zone-of-interface=" + l + " || firewall-cmd --get-default-zone); " + perPort(ports, "; ", func(n uint16) string {
					return fmt.Sprintf("firewall-cmd --permanent --zone=$zone --add-port=%[1]d/udp --add-port=%[1]d/tcp", n)
				})
			}) + "; firewall-cmd --reload"
		}, "sed -i s/^NftablesFlowtable=.*/NftablesFlowtable=off/ /etc/firewalld/firewalld.conf && firewall-cmd --reload"},
		{"OpenWrt's fw4", table("fw4"), func(_ []string, t routing.Path) string {
			return fmt.Sprintf("uci set firewall.%[1]s=zone; uci set firewall.%[1]s.name=%[1]s; uci add_list firewall.%[1]s.device=%[1]s; uci set firewall.%[1]s.input=REJECT; uci set firewall.%[1]s.output=ACCEPT; uci set firewall.%[1]s.forward=REJECT; "+
				"uci set firewall.lan_%[1]s=forwarding; uci set firewall.lan_%[1]s.src=lan; uci set firewall.lan_%[1]s.dest=%[1]s; uci commit firewall && service firewall restart", t)
		}, func(_ []string, ports []uint16) string {
			return fmt.Sprintf("uci set firewall.smartdns=rule; uci set firewall.smartdns.name=smartdns; uci set firewall.smartdns.src=lan; uci set firewall.smartdns.proto='tcp udp'; uci set firewall.smartdns.dest_port='%s'; "+
				"uci set firewall.smartdns.target=ACCEPT; uci commit firewall && service firewall restart", numbers(ports, " "))
		}, "uci set firewall.@defaults[0].flow_offloading=0; uci commit firewall && service firewall restart"},
		{"Docker", func(c nft.Chain) bool {
			return strings.HasPrefix(c.Name, "DOCKER") || strings.HasPrefix(c.Table, "docker")
		}, func(lan []string, t routing.Path) string {
			return perLAN(lan, " && ", func(l string) string {
				return fmt.Sprintf("iptables -I DOCKER-USER -i %s -o %s -j ACCEPT && iptables -I DOCKER-USER -i %[2]s -o %[1]s -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", l, t)
			})
		}, nil, ""},
		{"Tailscale", prefix("ts-"), nil, nil, ""},
		{"mwan3", prefix("mwan3_"), nil, nil, ""},
		{"libvirt", func(c nft.Chain) bool { return strings.HasPrefix(c.Name, "LIBVIRT_") || c.Table == "libvirt_network" }, nil, nil, ""},
		{"wg-quick", func(c nft.Chain) bool { return strings.HasPrefix(c.Table, "wg-quick-") }, nil, nil, ""},
	}
}

// perLAN writes a command for each interface.
func perLAN(lan []string, between string, command func(string) string) string {
	var all []string
	for _, l := range lan {
		all = append(all, command(l))
	}
	return strings.Join(all, between)
}

// perPort writes a command for each port.
func perPort(ports []uint16, between string, command func(uint16) string) string {
	var all []string
	for _, n := range ports {
		all = append(all, command(n))
	}
	return strings.Join(all, between)
}

// neighbours are the chains of others, and whose they are.
type neighbours []nft.Chain

// of returns the program that made a table, by any chain in it.
func (n neighbours) of(family, table string) (program, bool) {
	for _, p := range programs() {
		if slices.ContainsFunc(n, func(c nft.Chain) bool { return c.Family == family && c.Table == table && p.owns(c) }) {
			return p, true
		}
	}
	return program{}, false
}

// gate says which chain keeps the LAN from a tunnel, whose it is, and how that
// one lets it through.
func (n neighbours) gate(g nft.Gate, tunnel routing.Path) (what, fix string) {
	whose, fix := "", strings.Join(g.Fix(), "; ")
	if p, ok := n.of(g.Family, g.Table); ok {
		whose = " of " + p.name
		if p.pass != nil && len(g.Links) > 0 {
			fix = p.pass(g.Links, tunnel)
		}
	}
	return fmt.Sprintf("chain %s%s drops what goes from the LAN to %s: our accept does not overrule it", g, whose, tunnel), fix
}

// flowtable says whose flowtable, as nft names it, this is, and how to turn it
// off.
func (n neighbours) flowtable(name string) (whose, fix string) {
	words := strings.Fields(name)
	if len(words) == 3 {
		if p, ok := n.of(words[0], words[1]); ok {
			if p.flows != "" {
				return " of " + p.name, p.flows
			}
			return " of " + p.name, "nft delete flowtable " + name
		}
	}
	return "", "nft delete flowtable " + name
}

// ruleOwner says whose routing rule this is, by its number, mark or table, and
// what takes it out of our way without harm to its owner; "" where that is not
// known.
func ruleOwner(r routing.ForeignRule, links []routing.Iface) (whose, fix string) {
	const allBits = 1<<32 - 1
	switch {
	case r.Not && r.Mask == allBits && r.Mark == r.Table, strings.Contains(r.Also, "suppress_prefixlength 0"):
		for _, l := range links {
			if l.Kind == kindWireGuard && l.Name != "" {
				return "wg-quick", "wg-quick down " + l.Name
			}
		}
		return "wg-quick", ""
	case r.Pref >= 5210 && r.Pref <= 5270 && (r.Table == 52 || r.Mask == 0xff0000):
		return "Tailscale", "tailscale set --exit-node="
	case r.Mask == 0x3f00 && r.Pref < 4000, r.Pref > 1000 && r.Pref < 1100 && r.IIF != "":
		return "mwan3", "mwan3 stop"
	case r.Mask == 0xff0000 && r.Pref >= 29000 && r.Pref < 32766:
		return "pbr", "service pbr stop && service pbr disable"
	}
	return "", ""
}

// moved are the commands that let a rule stand behind ours: whoever made it
// still has it.
func moved(r routing.ForeignRule) string {
	behind := r
	behind.Pref = routing.PrefBand + 1
	add := strings.Replace(behind.String(), " rule ", " rule add ", 1)
	return add + " && " + strings.Replace(r.String(), " rule ", " rule del ", 1)
}

// contend says in a condition of routing whose rule it is about, and what to do
// for both to work.
func contend(c routing.Condition, f routing.Facts) routing.Condition {
	if c.Kind != routing.ForeignRuleFirst {
		return c
	}
	for _, r := range f.Rules {
		if !strings.HasPrefix(c.Text, strconv.Quote(r.String())+" ") {
			continue
		}
		whose, fix := ruleOwner(r, f.Links)
		if whose != "" {
			c.Text = strings.Replace(c.Text, "\" ", "\" of "+whose+" ", 1)
		}
		if c.Fix = fix; fix == "" && r.Pref < routing.PrefTunnel {
			c.Fix = moved(r)
		}
	}
	return c
}
