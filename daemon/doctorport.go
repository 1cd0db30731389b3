package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"smartdns/resolver/server"
	"smartdns/web/api"
)

// portHolder is who has a port, and its systemd unit.
type portHolder struct {
	server.Holder
	unit string // "" for none
}

// portHolders returns who has the ports of addrs.
func portHolders(addrs []netip.AddrPort) []portHolder {
	var ports []uint16
	for _, a := range addrs {
		if !slices.Contains(ports, a.Port()) {
			ports = append(ports, a.Port())
		}
	}
	var all []portHolder
	for _, n := range ports {
		for _, h := range server.Holders(n) {
			unit := ""
			if h.PID != 0 {
				unit = unitOf(h.PID)
			}
			all = append(all, portHolder{h, unit})
		}
	}
	return all
}

// judgePort says who has an address that we are to listen at.
func judgePort(h host) []api.Finding {
	if h.running {
		return nil // it could bind, and says in its status where it could not
	}
	type taken struct {
		addr netip.AddrPort
		pid  int
	}
	var order []taken
	networks := map[taken][]string{}
	by := map[taken]portHolder{}
	for _, s := range h.sockets {
		if !slices.ContainsFunc(h.listen, func(a netip.AddrPort) bool { return collide(a, s.Addr) }) {
			continue
		}
		k := taken{s.Addr, s.PID}
		if _, known := by[k]; !known {
			order, by[k] = append(order, k), s
		}
		if n := strings.ToUpper(s.Network); n != "" && !slices.Contains(networks[k], n) {
			networks[k] = append(networks[k], n)
		}
	}
	var all []api.Finding
	for _, k := range order {
		over := ""
		if n := networks[k]; len(n) > 0 {
			over = " over " + strings.Join(n, " and ")
		}
		who, fix := by[k].who()
		all = append(all, api.Finding{Severity: severityError, Fix: fix, What: fmt.Sprintf("port %d of %s%s is taken by %s", k.addr.Port(), k.addr.Addr(), over, who)})
	}
	return all
}

// who says who it is, and how that one gives the port up, where it would do no
// more than that.
func (h portHolder) who() (who, fix string) {
	if h.PID == 0 {
		return "somebody whom we may not look at", fmt.Sprintf("ss -lnp sport = :%d", h.Addr.Port())
	}
	who = fmt.Sprintf("%s (process %d)", h.Name, h.PID)
	child := h.unit != "" && !strings.HasPrefix(h.unit, strings.TrimSuffix(h.Name, "d"))
	if child {
		who = fmt.Sprintf("%s (process %d of %s)", h.Name, h.PID, h.unit)
	}
	_, openwrt := os.Stat("/etc/openwrt_release")
	switch {
	case h.Name == "systemd-resolve" || h.Name == "systemd-resolved":
		return who, "mkdir -p /etc/systemd/resolved.conf.d && printf '[Resolve]\\nDNSStubListener=no\\n' > /etc/systemd/resolved.conf.d/smartdns.conf && systemctl restart systemd-resolved"
	case h.Name == "smartdns":
		who += ", another program of this name, as in Debian's package"
	case h.unit == "NetworkManager.service":
		return who, "printf '[main]\\ndns=default\\n' > /etc/NetworkManager/conf.d/smartdns.conf && systemctl restart NetworkManager"
	case h.unit == "docker.service" || h.unit == "containerd.service":
		return who, fmt.Sprintf("docker ps --filter publish=%d", h.Addr.Port())
	case h.unit == "libvirtd.service" || h.unit == "virtnetworkd.service":
		return who, `virsh net-edit default # and write <dns enable="no"/> into it; then: virsh net-destroy default && virsh net-start default`
	case h.Name == "dnsmasq" && openwrt == nil:
		return who, "uci set dhcp.@dnsmasq[0].port=0; uci commit dhcp && service dnsmasq restart"
	case child:
		return who, fmt.Sprintf("systemctl status %d", h.PID)
	case h.unit != "":
		return who, "systemctl disable --now " + h.unit
	}
	return who, "systemctl disable --now " + h.Name
}

// collide reports whether two sockets cannot both be bound.
func collide(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() {
		return false
	}
	any6 := netip.IPv6Unspecified() // takes IPv4, too, unless told not to
	return a.Addr() == b.Addr() || b.Addr() == any6 ||
		a.Addr().Is4() == b.Addr().Is4() && (a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}
