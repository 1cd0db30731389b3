package configs

import (
	"errors"
	"net/netip"
	"slices"
)

const portDNS = 53

func (c converter) listen(raw rawListen) Listen {
	return Listen{
		DNS:      c.listenDNS(raw.DNS),
		LAN:      c.lan(raw.LAN),
		Clients:  c.clients(raw.Clients),
		Redirect: raw.Redirect.or(true),
		System:   raw.System.or(false),
	}
}

func (c converter) listenDNS(raw rawStrings) []netip.AddrPort {
	if raw.missing() {
		return []netip.AddrPort{
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), portDNS),
			netip.AddrPortFrom(netip.IPv6Loopback(), portDNS),
		}
	}
	var all []netip.AddrPort
	for _, item := range raw.items {
		addr, err := parseAddrPort(item.value, portDNS)
		if errors.Is(err, errNotAddress) {
			err = errors.New("not an address such as 127.0.0.1:53, or 0.0.0.0:53 and [::]:53 for all addresses")
		}
		if err != nil {
			c.valuef(item, err)
			continue
		}
		if i := slices.IndexFunc(all, func(a netip.AddrPort) bool { return a == addr || covers(a, addr) || covers(addr, a) }); i >= 0 {
			if all[i] == addr {
				c.addf(item.place, "%s stands there twice", addr)
			} else {
				c.addf(item.place, "%s and %s cannot both be listened on: one covers the other", all[i], addr)
			}
			continue
		}
		if addr.Addr().IsMulticast() {
			c.addf(item.place, "%s is a multicast address", quote(item.value))
			continue
		}
		all = append(all, addr)
	}
	if len(raw.items) == 0 && !raw.bad {
		c.addf(raw.place, `no address: write at least one, e.g. ["127.0.0.1:53"]`)
	}
	return all
}

// covers reports whether wide is the wildcard of specific's family, with its
// port.
func covers(wide, specific netip.AddrPort) bool {
	return wide.Addr().IsUnspecified() && wide.Port() == specific.Port() && wide.Addr().Is4() == specific.Addr().Is4()
}

func (c converter) lan(raw rawStrings) []string {
	return c.interfaces(raw, func(item rawString) {
		if slices.Contains(tableNames(c.raw.Tunnel), item.value) {
			c.addf(item.place, "%s is a tunnel: only interfaces with clients stand here", item.value)
		}
	})
}

// interfaces reads names of interfaces that need not exist yet, and calls
// check with each good one.
func (c converter) interfaces(raw rawStrings, check func(rawString)) []string {
	var names []string
	seen := make(map[string]bool)
	for _, item := range raw.items {
		if err := checkInterface(item.value); err != nil {
			c.valuef(item, err)
			continue
		}
		if seen[item.value] {
			c.twice(item)
			continue
		}
		seen[item.value] = true
		check(item)
		names = append(names, item.value)
	}
	return names
}

func (c converter) clients(raw rawStrings) []netip.Prefix {
	var all []netip.Prefix
	seen := make(map[netip.Prefix]bool)
	for _, item := range raw.items {
		prefix, err := parsePrefix(item.value)
		if err != nil {
			c.valuef(item, err)
			continue
		}
		if seen[prefix] {
			c.twice(item)
			continue
		}
		seen[prefix] = true
		all = append(all, prefix)
	}
	return all
}
