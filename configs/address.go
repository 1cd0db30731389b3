package configs

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// errNotAddress says that a host is written where only an address can stand.
var errNotAddress = errors.New("not an IP address")

// parseAddrPort reads "192.0.2.1", "192.0.2.1:53", "2001:db8::1" or
// "[2001:db8::1]:53".
func parseAddrPort(s string, defaultPort uint16) (netip.AddrPort, error) {
	host, portText, hasPort := s, "", false
	if rest, ok := strings.CutPrefix(s, "["); ok {
		host, portText, ok = strings.Cut(rest, "]")
		if !ok || !strings.Contains(host, ":") {
			return netip.AddrPort{}, errors.New("an IPv6 address with a port is written [2001:db8::1]:53")
		}
		if portText != "" {
			portText, hasPort = strings.CutPrefix(portText, ":")
			if !hasPort {
				return netip.AddrPort{}, errors.New("want a colon and a port after the bracket")
			}
		}
	} else if strings.Count(s, ":") == 1 {
		host, portText, hasPort = strings.Cut(s, ":")
	}
	addr, err := parseAddr(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := defaultPort
	if hasPort {
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || n == 0 {
			return netip.AddrPort{}, fmt.Errorf("port %s: a port is a number from 1 to 65535", quote(portText))
		}
		port = uint16(n)
	}
	return netip.AddrPortFrom(addr, port), nil
}

// parseAddr reads an address as a socket wants it: not v4-mapped, and with a
// zone exactly when it is link-local.
func parseAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, errNotAddress
	}
	addr = addr.Unmap()
	switch {
	case addr.Is6() && addr.IsLinkLocalUnicast() && addr.Zone() == "":
		return netip.Addr{}, fmt.Errorf("a link-local address needs its interface: %s%%eth0", addr)
	case addr.Zone() != "" && !addr.IsLinkLocalUnicast():
		return netip.Addr{}, fmt.Errorf("only a link-local address has an interface: write %s", addr.WithZone(""))
	}
	if zone := addr.Zone(); zone != "" {
		if err := checkInterface(zone); err != nil {
			return netip.Addr{}, err
		}
	}
	return addr, nil
}

// parsePrefix reads a prefix, or an address as the prefix of it alone.
func parsePrefix(s string) (netip.Prefix, error) {
	var prefix netip.Prefix
	if strings.Contains(s, "/") {
		var err error
		if prefix, err = netip.ParsePrefix(s); err != nil {
			return netip.Prefix{}, errors.New("a prefix is written 192.0.2.0/24 or 2001:db8::/32")
		}
	} else {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, errors.New("neither an address nor a prefix such as 192.0.2.0/24")
		}
		if addr.Zone() != "" {
			return netip.Prefix{}, errors.New("a prefix has no interface")
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("write the IPv4 address it stands for")
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("has bits set below /%d: write %s", prefix.Bits(), prefix.Masked())
	}
	return prefix, nil
}

// checkInterface reports what keeps name from being the name of an interface.
// The characters are wg-quick's; the kernel takes more, nft's text fewer.
func checkInterface(name string) error {
	switch {
	case name == "":
		return errors.New("an interface has a name")
	case len(name) > 15:
		return fmt.Errorf("is %d bytes long: the name of an interface has at most 15", len(name))
	case name == "." || name == ".." || !isMadeOf(name, "_=+.-"):
		return errors.New("the name of an interface is letters, digits and any of _ = + . -")
	case name == "lo":
		return errors.New("is the loopback interface")
	case name == "all" || name == "default":
		return errors.New("is what the kernel calls the settings of every interface")
	}
	return nil
}

// wordRule says what isWord takes.
const wordRule = "a letter, then letters, digits and any of _ . -"

// isWord reports whether s can name a tunnel, a side or a list. Tunnels and
// lists name sets in the kernel, and nft's text takes no other names.
func isWord(s string) bool {
	return s != "" && len(s) <= 64 && isMadeOf(s, "_.-") && isMadeOf(s[:1], "") && (s[0] < '0' || s[0] > '9')
}

// isReserved reports whether the name of a tunnel or a list has a meaning of
// its own, in the file or as a set in the kernel.
func isReserved(s string) bool {
	switch s {
	case "direct", "private", "home", "lan", "local", "doh_servers":
		return true
	}
	return strings.HasPrefix(s, "clients_")
}

// isMadeOf reports whether s is ASCII letters, digits and characters of extra.
func isMadeOf(s, extra string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(extra, r)
	}) < 0
}
