package configs

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
)

// The ports of an address that is written without one.
const (
	portDNS   = 53
	portTLS   = 853
	portHTTPS = 443
)

func (c converter) listen(raw rawListen) Listen {
	sides := map[netip.AddrPort]string{}
	l := Listen{
		DNS:      c.listenDNS(raw.DNS, sides),
		Sides:    sides,
		LAN:      c.lan(raw.LAN),
		Clients:  c.clients(raw.Clients),
		Redirect: raw.Redirect.or(true),
		System:   raw.System.or(false),
		Bypass:   c.bypass(raw),
	}
	l.DoT = c.listenAt(raw.DoT, portTLS, l.DNS, sides)
	l.DoH = c.listenAt(raw.DoH, portHTTPS, slices.Concat(l.DNS, l.DoT), sides)
	l.Cert, l.Key = c.certificate(raw)
	return l
}

func (c converter) listenDNS(raw rawListeners, sides map[netip.AddrPort]string) []netip.AddrPort {
	if raw.missing() {
		return []netip.AddrPort{
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), portDNS),
			netip.AddrPortFrom(netip.IPv6Loopback(), portDNS),
		}
	}
	all := c.listenAt(raw, portDNS, nil, sides)
	if len(raw.entries) == 0 && !raw.bad {
		c.addf(raw.place, `no address: write at least one, e.g. ["127.0.0.1:53"]`)
	}
	return all
}

// listenAt reads where to listen, and into sides whom listeners ask; taken is
// where others do.
func (c converter) listenAt(raw rawListeners, port uint16, taken []netip.AddrPort, sides map[netip.AddrPort]string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, entry := range raw.entries {
		item := entry.Address
		addr, err := parseAddrPort(item.value, port)
		if errors.Is(err, errNotAddress) {
			err = fmt.Errorf("not an address such as 127.0.0.1:%[1]d, or 0.0.0.0:%[1]d and [::]:%[1]d for all addresses", port)
		}
		if err != nil {
			c.valuef(item, err)
			continue
		}
		seen := slices.Concat(taken, all)
		if i := slices.IndexFunc(seen, func(a netip.AddrPort) bool { return a == addr || covers(a, addr) || covers(addr, a) }); i >= 0 {
			switch {
			case i < len(taken) && seen[i] == addr:
				c.addf(item.place, "%s is another listener's: give it a port of its own", addr)
			case seen[i] == addr:
				c.addf(item.place, "%s stands there twice", addr)
			default:
				c.addf(item.place, "%s and %s cannot both be listened on: one covers the other", seen[i], addr)
			}
			continue
		}
		if addr.Addr().IsMulticast() {
			c.addf(item.place, "%s is a multicast address", quote(item.value))
			continue
		}
		all = append(all, addr)
		if side := c.side(entry); side != "" {
			sides[addr] = side
		}
	}
	return all
}

// certificate reads the files of the TLS listeners: both, or none.
func (c converter) certificate(raw rawListen) (cert, key string) {
	for _, r := range []struct{ has, lacks rawString }{{raw.Cert, raw.Key}, {raw.Key, raw.Cert}} {
		switch {
		case !r.has.given() || r.has.value == "":
		case len(raw.DoT.entries)+len(raw.DoH.entries) == 0:
			c.addf(r.has.place, "nothing listens that would show it: add dot or doh")
		case r.lacks.missing() || r.lacks.value == "" && !r.lacks.bad:
			c.addf(r.has.place, "cert and key come together: write both, or none for a certificate of our own")
		case !filepath.IsAbs(r.has.value):
			c.addf(r.has.place, "%s is not an absolute path", quote(r.has.value))
		}
	}
	return raw.Cert.value, raw.Key.value
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
