package wg

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"smartdns/routing"
)

// keyKind says where a key of the file belongs.
type keyKind struct {
	name    string // as wg-quick(8) spells it
	section string
	repeats bool // several lines of it add up
}

// keyKinds returns every key of wg(8) and wg-quick(8).
func keyKinds() []keyKind {
	return []keyKind{
		{"PrivateKey", sectionInterface, false},
		{"ListenPort", sectionInterface, false},
		{"FwMark", sectionInterface, false},
		{"Address", sectionInterface, true},
		{"DNS", sectionInterface, true},
		{"MTU", sectionInterface, false},
		{"Table", sectionInterface, false},
		{"PreUp", sectionInterface, true},
		{"PostUp", sectionInterface, true},
		{"PreDown", sectionInterface, true},
		{"PostDown", sectionInterface, true},
		{"SaveConfig", sectionInterface, false},
		{"PublicKey", sectionPeer, false},
		{"PresharedKey", sectionPeer, false},
		{"AllowedIPs", sectionPeer, true},
		{"Endpoint", sectionPeer, false},
		{"PersistentKeepalive", sectionPeer, false},
	}
}

func findKey(name string) (keyKind, bool) {
	kinds := keyKinds()
	i := slices.IndexFunc(kinds, func(k keyKind) bool { return strings.EqualFold(k.name, name) })
	if i < 0 {
		return keyKind{}, false
	}
	return kinds[i], true
}

var (
	// plainName is too short and too plain for a key that lost its name.
	plainName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,19}$`)
	amnezia   = regexp.MustCompile(`(?i)^(Jc|Jmin|Jmax|[SHIJ][1-9]|ITime)$`)
)

// unknownKey says that name is no key, and names it where it cannot be a secret.
func unknownKey(name, section string) string {
	if amnezia.MatchString(name) {
		return quote(name) + " is AmneziaWG's: its far end does not speak plain WireGuard"
	}
	var want []string
	for _, k := range keyKinds() {
		if k.section == section {
			want = append(want, k.name)
		}
	}
	text := "unknown key"
	if plainName.MatchString(name) {
		text += " " + quote(name)
	}
	return text + " (want " + strings.Join(want, ", ") + ")"
}

func (p *parser) setInterface(key, value string) (err error) {
	c := &p.cfg
	switch key {
	case "PrivateKey":
		c.PrivateKey.key, err = parseKey(value)
		if err == nil && c.PrivateKey.IsZero() {
			err = errKey
		}
	case "ListenPort":
		c.ListenPort, err = parsePort(value, 0)
	case "Address":
		var a []netip.Prefix
		a, err = parsePrefixes(value)
		c.Addresses = append(c.Addresses, a...)
	case "MTU":
		c.MTU, err = parseMTU(value)
	case "DNS":
		err = p.setDNS(value)
	default:
		err = p.setQuick(key, value)
	}
	return err
}

// setDNS takes addresses and search domains, in any order, as wg-quick(8) does.
func (p *parser) setDNS(value string) error {
	for entry := range strings.SplitSeq(value, ",") {
		entry = strings.TrimSpace(entry)
		if a, err := netip.ParseAddr(entry); err == nil {
			p.cfg.DNS = append(p.cfg.DNS, a.Unmap())
		} else if isHost(entry) {
			p.cfg.Search = append(p.cfg.Search, entry)
		} else {
			return fmt.Errorf("%s is neither an address nor a domain", quote(entry))
		}
	}
	p.note(p.line, "DNS = %s is not applied: smartdns answers itself", redact(value))
	return nil
}

// setQuick takes the keys that only wg-quick(8) has.
func (p *parser) setQuick(key, value string) error {
	q := &p.cfg.Quick
	switch key {
	case "Table":
		return p.setTable(value)
	case "FwMark":
		mark, err := parseMark(value)
		if err != nil {
			return err
		}
		q.FwMark = mark
	case "SaveConfig":
		switch strings.ToLower(value) {
		case "true":
			q.SaveConfig = true
		case "false":
		default:
			return fmt.Errorf("%s is neither true nor false", quote(value))
		}
	default:
		if value == "" {
			return errors.New("has no command")
		}
		q.Hooks = append(q.Hooks, Hook{Key: key, Command: Command(value), Line: p.line})
	}
	return nil
}

func (p *parser) setTable(value string) error {
	switch lower := strings.ToLower(value); lower {
	case "auto", "off":
		p.cfg.Quick.Table = lower
		return nil
	case "main":
		p.cfg.Quick.Table = lower
	default:
		n, err := strconv.ParseUint(value, 0, 32)
		if err != nil || n == 0 {
			return fmt.Errorf("%s is neither auto, off nor a number", quote(value))
		}
		if n >= routing.FirstTable && n <= routing.TableWays {
			return fmt.Errorf("table %d is one of smartdns' own: choose another number", n)
		}
		p.cfg.Quick.Table = strconv.FormatUint(n, 10)
		if n < routing.TableDefault || n > routing.TableLocal {
			return nil
		}
	}
	p.note(p.line, "Table = %s is not applied: smartdns has routing tables of its own", value)
	return nil
}

func (p *parser) setPeer(peer *Peer, key, value string) (err error) {
	switch key {
	case "PublicKey":
		peer.PublicKey, err = parseKey(value)
	case "PresharedKey":
		peer.PresharedKey.key, err = parseKey(value)
	case "AllowedIPs":
		if value == "" {
			return nil // wg(8): a peer without any
		}
		var a []netip.Prefix
		a, err = parsePrefixes(value)
		for _, prefix := range a {
			peer.AllowedIPs = append(peer.AllowedIPs, prefix.Masked())
		}
	case "Endpoint":
		peer.Endpoint, err = parseEndpoint(value)
	case "PersistentKeepalive":
		peer.Keepalive, err = parseKeepalive(value)
	}
	return err
}

// finish checks what only the whole file shows.
func (p *parser) finish() {
	c := &p.cfg
	p.section = sectionInterface
	switch {
	case p.opened == 0:
		p.section = ""
		p.failAt(0, "", "has no [Interface]: is it a wg-quick file?")
		return
	case p.iface["privatekey"] == 0:
		p.failAt(0, "", "has no PrivateKey")
	}
	p.section = sectionPeer
	p.samePeers()
	p.shareAllowed()
	p.mixedFamilies()
	if len(c.Peers) == 0 {
		p.note(p.line, "has no [Peer]: nothing can go through this tunnel")
	}
	for _, peer := range c.Peers {
		if peer.Endpoint.Host == "" {
			p.note(peer.Line, "[Peer] has no Endpoint: the tunnel waits until that peer calls")
		}
	}
	slices.SortStableFunc(c.notes, func(a, b Note) int { return cmp.Compare(a.Line, b.Line) })
}

func (p *parser) samePeers() {
	lines := map[PublicKey]int{}
	own := p.cfg.PrivateKey.PublicKey()
	for _, peer := range p.cfg.Peers {
		if peer.PublicKey == (PublicKey{}) {
			continue
		}
		if first, ok := lines[peer.PublicKey]; ok {
			p.failAt(peer.Line, "PublicKey", fmt.Sprintf("is also the peer's of line %d", first))
		}
		lines[peer.PublicKey] = peer.Line
		if !p.cfg.PrivateKey.IsZero() && peer.PublicKey == own {
			p.failAt(peer.Line, "PublicKey", "is this end's own, of [Interface] PrivateKey")
		}
	}
}

// shareAllowed gives a prefix that several peers claim to the last of them, as
// the device would, and says so; then it sorts each peer's.
func (p *parser) shareAllowed() {
	owner := map[netip.Prefix]int{}
	for i, peer := range p.cfg.Peers {
		for _, a := range peer.AllowedIPs {
			if first, ok := owner[a]; ok && first != i {
				p.note(p.cfg.Peers[first].Line, "[Peer] AllowedIPs %s goes to the peer of line %d, which claims it too", a, peer.Line)
			}
			owner[a] = i
		}
	}
	for i := range p.cfg.Peers {
		peer := &p.cfg.Peers[i]
		peer.AllowedIPs = slices.DeleteFunc(peer.AllowedIPs, func(a netip.Prefix) bool { return owner[a] != i })
		slices.SortFunc(peer.AllowedIPs, netip.Prefix.Compare)
		peer.AllowedIPs = slices.Compact(peer.AllowedIPs)
	}
}

// mixedFamilies says what the userspace device makes of peers of both families;
// forgetAddresses helps only where there is one at a time.
func (p *parser) mixedFamilies() {
	four := 0 // line of a peer that is called over IPv4
	for _, peer := range p.cfg.Peers {
		if a, ok := peer.Endpoint.Literal(); ok && a.Addr().Is4() {
			four = peer.Line
		}
	}
	for _, peer := range p.cfg.Peers {
		if a, ok := peer.Endpoint.Literal(); ok && a.Addr().Is6() && four != 0 {
			p.note(peer.Line, "[Peer] Endpoint %s is an IPv6 address, that of line %d an IPv4 one: without the kernel's WireGuard, packets for it may get lost (WireGuard/wireguard-go#135)", a, four)
		}
	}
}

func parsePort(value string, least uint16) (uint16, error) {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n < uint64(least) {
		return 0, fmt.Errorf("%s is not a port (want %d to 65535)", quote(value), least)
	}
	return uint16(n), nil
}

func parseMTU(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 576 || n > 65535 {
		return 0, fmt.Errorf("%s is not an MTU (want 576 to 65535; 1280 and more for IPv6)", quote(value))
	}
	return n, nil
}

func parseMark(value string) (uint32, error) {
	if strings.EqualFold(value, "off") {
		return 0, nil
	}
	n, err := strconv.ParseUint(value, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("%s is not a mark (want off, a number or 0x and hexadecimal)", quote(value))
	}
	return uint32(n), nil
}

func parseKeepalive(value string) (time.Duration, error) {
	if strings.EqualFold(value, "off") {
		return 0, nil
	}
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%s is not an interval (want off or 0 to 65535 seconds)", quote(value))
	}
	return time.Duration(n) * time.Second, nil
}

// parsePrefixes reads a list of addresses and prefixes; a bare address is a
// prefix of its full length.
func parsePrefixes(list string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.TrimSpace(entry)
		prefix, err := netip.ParsePrefix(entry)
		if err != nil {
			a, e := netip.ParseAddr(entry)
			if e != nil || a.Zone() != "" {
				return nil, fmt.Errorf("%s is not an address or a prefix (want like 10.0.0.2/32 or fd00::2/128)", quote(entry))
			}
			prefix = netip.PrefixFrom(a, a.BitLen())
		}
		if prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("%s is an IPv4 address written as IPv6; write it as IPv4", quote(entry))
		}
		all = append(all, prefix)
	}
	return all, nil
}

// ParseEndpoint reads HOST:PORT; an IPv6 address stands in brackets.
func ParseEndpoint(value string) (Endpoint, error) { return parseEndpoint(value) }

func parseEndpoint(value string) (Endpoint, error) {
	i := strings.LastIndexByte(value, ':')
	if i < 0 {
		return Endpoint{}, fmt.Errorf("%s has no port (want like vpn.example.com:51820)", quote(value))
	}
	host := value[:i]
	port, err := parsePort(value[i+1:], 1)
	if err != nil {
		return Endpoint{}, err
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		if !ok || err != nil || !a.Is6() {
			return Endpoint{}, fmt.Errorf("%s is not an IPv6 address in brackets", quote(host))
		}
		return Endpoint{Host: a.Unmap().String(), Port: port}, nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		return Endpoint{}, fmt.Errorf("an IPv6 address stands in brackets (want [%s]:%d)", a, port)
	}
	if !isHost(host) {
		return Endpoint{}, fmt.Errorf("%s is neither an address nor a host name", quote(host))
	}
	return Endpoint{Host: strings.TrimSuffix(strings.ToLower(host), "."), Port: port}, nil
}

// isHost reports whether name can be asked of the DNS, or is an IPv4 address.
// A last label of digits is neither a top-level domain nor, when the parser of
// addresses refused the whole, an address (RFC 3696, section 2).
func isHost(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 253 {
		return false
	}
	digits := false
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		digits = true
		for _, c := range []byte(label) {
			letter := 'a' <= c|0x20 && c|0x20 <= 'z' || c == '-' || c == '_'
			if !letter && (c < '0' || c > '9') {
				return false
			}
			digits = digits && !letter
		}
	}
	return !digits
}
