package wg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// A NewClient says what a client of a far end is to be.
type NewClient struct {
	Name      string         // stands as a comment above its section
	Addresses []netip.Addr   // nil: the next that are free, one of each network of Address
	Networks  []netip.Prefix // behind it, reachable through it
	Endpoint  Endpoint       // where it finds the far end
	Allowed   []netip.Prefix // what it sends into the tunnel
	DNS       []string       // addresses and search domains; nil: none
}

// A ClientFile is the wg-quick file of a client. It holds its private key, so it
// prints as "(hidden)"; convert it to a string to have its text.
type ClientFile string

func (ClientFile) String() string { return hidden }

// Format hides the file from every verb.
func (ClientFile) Format(f fmt.State, _ rune) { fmt.Fprint(f, hidden) }

// MarshalText hides the file from every encoder.
func (ClientFile) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// clientKeepalive keeps the way to a client behind a NAT open; wg(8) names it.
const clientKeepalive = 25 * time.Second

// AddClient gives the far end of the file c, whose text is given, one more
// client with keys of its own. It returns the text with the client's section at
// its end, all else as it was, the client's own file, and its section as parsed.
func AddClient(text string, c *Config, n NewClient) (with string, file ClientFile, peer Peer, err error) {
	for _, have := range Clients(text, c) {
		if have.Name == n.Name {
			return "", "", Peer{}, fmt.Errorf("%s:%d: there is a client %s already: give another name, or remove that one first", c.File, have.Line, n.Name)
		}
	}
	if n.Addresses == nil {
		if n.Addresses, err = c.nextAddresses(); err != nil {
			return "", "", Peer{}, err
		}
	}
	allowed, err := c.allow(n)
	if err != nil {
		return "", "", Peer{}, err
	}
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return "", "", Peer{}, fmt.Errorf("making a private key: %w", err)
	}
	shared, err := wgtypes.GenerateKey()
	if err != nil {
		return "", "", Peer{}, fmt.Errorf("making a preshared key: %w", err)
	}
	var b strings.Builder
	b.WriteString(text)
	if text != "" && !strings.HasSuffix(text, "\n") {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\n# %s\n[Peer]\nPublicKey = %s\nPresharedKey = %s\nAllowedIPs = %s\n", n.Name, private.PublicKey(), shared, prefixes(allowed))
	after, err := Parse(strings.NewReader(b.String()), c.File)
	if err != nil {
		return "", "", Peer{}, fmt.Errorf("adding %s: %w", n.Name, err)
	}
	own := clientText(c, n, private, shared)
	if _, err := Parse(strings.NewReader(string(own)), n.Name+".conf"); err != nil {
		return "", "", Peer{}, err
	}
	return b.String(), own, after.Peers[len(after.Peers)-1], nil
}

// clientText is the wg-quick file of the client.
func clientText(c *Config, n NewClient, private, shared wgtypes.Key) ClientFile {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s = %v\n", key, value) }
	fmt.Fprintf(&b, "# %s\n[Interface]\n", n.Name)
	line("PrivateKey", private)
	line("Address", prefixes(singles(n.Addresses)))
	if len(n.DNS) > 0 {
		line("DNS", strings.Join(n.DNS, ", "))
	}
	if c.MTU > 0 {
		line("MTU", c.MTU)
	}
	b.WriteString("\n[Peer]\n")
	line("PublicKey", c.PrivateKey.PublicKey())
	line("PresharedKey", shared)
	line("AllowedIPs", prefixes(n.Allowed))
	line("Endpoint", n.Endpoint)
	line("PersistentKeepalive", int(clientKeepalive/time.Second))
	return ClientFile(b.String())
}

func prefixes(all []netip.Prefix) string {
	text := make([]string, len(all))
	for i, p := range all {
		text[i] = p.String()
	}
	return strings.Join(text, ", ")
}

func singles(addrs []netip.Addr) []netip.Prefix {
	all := make([]netip.Prefix, len(addrs))
	for i, a := range addrs {
		all[i] = netip.PrefixFrom(a, a.BitLen())
	}
	return all
}

// allow returns the AllowedIPs of a new client; it is an error where somebody
// has them.
func (c *Config) allow(n NewClient) ([]netip.Prefix, error) {
	all := singles(n.Addresses)
	for _, p := range n.Networks {
		all = append(all, p.Masked())
	}
	for i, p := range all {
		for _, a := range c.Addresses {
			switch {
			case a.Addr() == p.Addr() && p.IsSingleIP():
				return nil, fmt.Errorf("%s: %s is this host's own", c.File, a.Addr())
			case i >= len(n.Addresses) && p.Overlaps(a.Masked()):
				return nil, fmt.Errorf("%s: the network %s behind %s overlaps Address %s", c.File, p, n.Name, a)
			}
		}
		for _, peer := range c.Peers {
			for _, taken := range peer.AllowedIPs {
				if taken.Overlaps(p) && !c.takesAll(taken) {
					return nil, fmt.Errorf("%s:%d: %s belongs to this client, whose AllowedIPs have %s", c.File, peer.Line, p, taken)
				}
			}
		}
		for _, q := range all[:i] {
			if q.Overlaps(p) {
				return nil, fmt.Errorf("%s and %s overlap", q, p)
			}
		}
	}
	return all, nil
}

// nextAddresses returns the lowest address that nobody has of each network of
// Address that has room.
func (c *Config) nextAddresses() ([]netip.Addr, error) {
	var all []netip.Addr
	var full []string
	for _, p := range c.Addresses {
		if p.IsSingleIP() || slices.ContainsFunc(all, p.Masked().Contains) {
			continue
		}
		if a := c.nextOf(p.Masked()); a.IsValid() {
			all = append(all, a)
		} else {
			full = append(full, p.Masked().String())
		}
	}
	switch {
	case len(full) > 0:
		return nil, fmt.Errorf("%s: all addresses of %s are taken", c.File, strings.Join(full, " and "))
	case len(all) == 0:
		return nil, fmt.Errorf("%s: [Interface] Address has no network with room for clients (want like 10.9.0.1/24, or give the client's address)", c.File)
	}
	return all, nil
}

// nextOf returns the lowest free address of a network; not valid where it is
// full. The first is the network's own (RFC 4291, 2.6.1), and the last of an
// IPv4 network its broadcast.
func (c *Config) nextOf(network netip.Prefix) netip.Addr {
	a := network.Addr().Next()
next:
	for ; a.IsValid() && network.Contains(a); a = a.Next() {
		for _, own := range c.Addresses {
			if own.Addr() == a {
				continue next
			}
		}
		for _, p := range c.Peers {
			for _, taken := range p.AllowedIPs {
				if taken.Contains(a) && !c.takesAll(taken) {
					a = lastOf(taken)
					continue next
				}
			}
		}
		if a.Is4() && a == lastOf(network) {
			break
		}
		return a
	}
	return netip.Addr{}
}

// takesAll reports whether p has all of a network of Address: what is longer
// goes before it.
func (c *Config) takesAll(p netip.Prefix) bool {
	return slices.ContainsFunc(c.Addresses, func(a netip.Prefix) bool {
		return !a.IsSingleIP() && p.Bits() <= a.Bits() && p.Contains(a.Addr())
	})
}

// lastOf returns the highest address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// A NamedPeer is a section of a far end's file with what the comments call it.
type NamedPeer struct {
	Name string // "" without a comment
	Peer
}

// Clients returns the peers of a file with their names: the comment at the
// header of a section, the first inside of it before its keys, or the last of
// those right above it.
func Clients(text string, c *Config) []NamedPeer {
	lines := strings.Split(text, "\n")
	all := make([]NamedPeer, len(c.Peers))
	for i, p := range c.Peers {
		all[i] = NamedPeer{nameAt(lines, p.Line-1), p}
	}
	return all
}

// nameAt returns the name of the section whose header is at that line.
func nameAt(lines []string, header int) string {
	if header >= len(lines) {
		return ""
	}
	if _, said, ok := strings.Cut(lines[header], "#"); ok {
		return strings.TrimSpace(said)
	}
	for _, at := range []int{header + 1, header - 1} {
		if at >= 0 && at < len(lines) {
			if said, ok := strings.CutPrefix(strings.TrimSpace(lines[at]), "#"); ok {
				return strings.TrimSpace(strings.TrimLeft(said, "#"))
			}
		}
	}
	return ""
}

// errNoClient says that who is nobody's name or key.
var errNoClient = errors.New("there is no such client")

// RemoveClient returns the text of a far end's file without the section of a
// client, given by name or public key, and the comments right above it.
func RemoveClient(text string, c *Config, who string) (without string, gone Peer, err error) {
	var found []NamedPeer
	var names []string
	for _, p := range Clients(text, c) {
		if p.Name != "" {
			names = append(names, p.Name)
		}
		if p.Name == who || p.PublicKey.String() == who {
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 0 && len(names) > 0:
		return "", Peer{}, fmt.Errorf("%s: %w: %s (there are %s)", c.File, errNoClient, quote(who), strings.Join(names, ", "))
	case len(found) == 0:
		return "", Peer{}, fmt.Errorf("%s: %w: %s (none has a name: give the public key)", c.File, errNoClient, quote(who))
	case len(found) > 1:
		return "", Peer{}, fmt.Errorf("%s: lines %d and %d are both called %s: give the public key", c.File, found[0].Line, found[1].Line, who)
	}
	lines := strings.SplitAfter(text, "\n")
	from := beginning(lines, found[0].Line-1)
	to := len(lines)
	for i := found[0].Line; i < len(lines); i++ {
		if strings.HasPrefix(strings.TrimSpace(lines[i]), "[") {
			to = beginning(lines, i)
			break
		}
	}
	for from > 0 && to == len(lines) && strings.TrimSpace(lines[from-1]) == "" {
		from--
	}
	return strings.Join(lines[:from], "") + strings.Join(lines[to:], ""), found[0].Peer, nil
}

// beginning returns where the section begins whose header is at that line: at
// the comments right above it.
func beginning(lines []string, header int) int {
	for header > 0 && strings.HasPrefix(strings.TrimSpace(lines[header-1]), "#") {
		header--
	}
	return header
}

// CheckFarEnd reports the first thing that keeps the file from being that of a
// far end, whose peers are clients.
func (c *Config) CheckFarEnd() error {
	if len(c.Addresses) == 0 {
		return &Error{File: c.File, Section: sectionInterface, Text: "has no Address: clients need this host's in the tunnel (want like 10.9.0.1/24)"}
	}
	for _, p := range c.Peers {
		for _, a := range p.AllowedIPs {
			if a.Bits() <= 1 {
				return &Error{File: c.File, Line: p.Line, Section: sectionPeer, Key: "AllowedIPs",
					Text: fmt.Sprintf("%s would send this host's own traffic to that client: at a far end a client has its address, and the networks behind it", a)}
			}
		}
	}
	return nil
}

// Behind returns what the clients have: their addresses and the networks behind
// them.
func (c *Config) Behind() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range c.Peers {
		all = append(all, p.AllowedIPs...)
	}
	return all
}
