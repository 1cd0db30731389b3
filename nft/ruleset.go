package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"smartdns/routing"
)

// TableName is the name of our table, in family inet.
const TableName = "smartdns"

// DefaultSetSize is how many addresses each path's set holds per family.
const DefaultSetSize = 262144

// A Ruleset is everything our table holds, except the marks: the elements of
// the paths' sets. It is a plain value; nobody changes it after it was made.
// Equal rulesets print equal texts.
type Ruleset struct {
	Field      routing.Field // 0 = routing.DefaultField
	Tunnels    []Tunnel      // in the order of the file, at most routing.MaxTunnels
	Interfaces Interfaces
	Addresses  Addresses
	Decide     Decide
	DNS        DNS
	Gateway    Gateway
	// SetSize is how many elements each set of marks has room for; 0 =
	// DefaultSetSize. A set that holds more keeps the larger size until it does not.
	SetSize uint32
	// ClockFirst says that the clock is not right yet: NTP of this host goes
	// direct, whatever else is decided.
	ClockFirst bool
	KillSwitch KillSwitch
}

// A Tunnel is a path other than direct.
type Tunnel struct {
	Path      routing.Path
	Mark      uint32       // its value of the Field, as Field.Tunnel returns it
	Up        bool         // whether packets can go through it now
	StandIn   routing.Path // who carries its flows while it is not up: direct (revocably), another tunnel, or "": they are rejected at once
	Inbound   Inbound
	Addresses []netip.Prefix // of its interface: address and subnet
	Own       []netip.Prefix // what always goes through it: AllowedIPs other than /0, DNS=
	MTU       int            // 0 = TCP segments coming out of it are not clamped
	Fits      int            // the largest packet that arrives, where that is less than MTU; 0 = all do
	NoIPv4    bool           // it carries none: IPv4 for it is rejected at once
	NoIPv6    bool
	Known     bool // its far end knows the way to the LAN: what goes from there to private networks is not translated
}

// Inbound says what happens to new connections that come out of a tunnel.
type Inbound uint8

// The values of inbound.
const (
	InboundBlock Inbound = iota
	InboundAllow
)

// Interfaces says what this host's interfaces are for. An interface that is
// both in LAN and an uplink counts as LAN only.
type Interfaces struct {
	LAN         []string // whose clients we serve and route
	Uplinks     []string // with a default route in the main table
	Skip        []string // left alone
	Forwarding4 bool     // whether it was us who turned IPv4 forwarding on
	Forwarding6 bool
}

// Addresses are the prefixes of the static sets. They may overlap and be in any
// order.
type Addresses struct {
	LAN     []netip.Prefix // of the LAN interfaces
	Private []netip.Prefix // nil = Private()
	Home    []netip.Prefix
	Lists   []List
}

// A List is an address list of the file. Its sets are called Name_4 and Name_6.
type List struct {
	Name     string
	Prefixes []netip.Prefix
}

// Decide is the compiled [decide].addresses. Marks come between Private and
// Home; see KERNEL, "order of addresses".
type Decide struct {
	Rules   []AddressRule // first match wins
	Default routing.Path  // of the last line, "*"
	// Routed says that the routing table knows the way of what is not marked: a
	// flow then gets the path of the interface that it leads to. No rule, set or
	// mark of an address decides.
	Routed bool
}

// AddressRule sends the addresses it matches one way.
type AddressRule struct {
	Match Match
	Via   routing.Path
	Text  string // how people find the line, for example "addresses[0]"
}

// MatchKind is what a Match compares with.
type MatchKind uint8

// The kinds of Match.
const (
	MatchPrefix  MatchKind = iota // Prefix
	MatchList                     // the list called List
	MatchPrivate                  // Addresses.Private and LAN
	MatchHome                     // Addresses.Home
)

// A Match selects addresses.
type Match struct {
	Kind   MatchKind
	Prefix netip.Prefix
	List   string
}

// DNS says where our listeners are.
type DNS struct {
	// Listen are the listeners' addresses. Queries to them over lo, and from
	// the LAN to the addresses of the LAN, are not tracked by conntrack.
	Listen []netip.AddrPort
	// Redirect is the port at which a listener takes what LAN clients send to
	// port 53 of other servers. 0 = nothing is redirected: no listener, no
	// redirect. A LAN address in Listen at this very port stays tracked, since
	// its answers cannot be told from redirected ones.
	Redirect uint16
}

// Private returns the addresses that are no part of the public internet:
// "private" in [decide].addresses.
func Private() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.168.0.0/16", "224.0.0.0/3", "::/127", "fc00::/7", "fe80::/10", "ff00::/8",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Check reports the first thing about r that cannot be right: a path without a
// tunnel, a tunnel without a mark of its own, an interface name that is none,
// two objects of one name.
func (r Ruleset) Check() error {
	_, err := r.compile(stock{})
	return err
}

// compile is the program of a ruleset that Check finds nothing wrong with.
func (r Ruleset) compile(from stock) (program, error) {
	if err := r.check(); err != nil {
		return program{}, err
	}
	p := r.programFrom(from)
	return p, p.check()
}

// check is Check without the names of objects.
func (r Ruleset) check() error {
	if len(r.Tunnels) > routing.MaxTunnels {
		return fmt.Errorf("%d tunnels: at most %d are possible", len(r.Tunnels), routing.MaxTunnels)
	}
	field := r.field()
	marks := map[uint32]routing.Path{field.Value(routing.MarkDirect): routing.Direct, field.Value(routing.MarkRevocable): "revocable", 0: "none"}
	for _, t := range r.Tunnels {
		if !t.Path.IsTunnel() {
			return fmt.Errorf("a tunnel cannot be called %q", t.Path)
		}
		if t.Mark&^uint32(field) != 0 {
			return fmt.Errorf("tunnel %s: mark %#x is outside of the field %#x", t.Path, t.Mark, uint32(field))
		}
		if other, taken := marks[t.Mark]; taken {
			return fmt.Errorf("tunnel %s: mark %#x is that of %s", t.Path, t.Mark, other)
		}
		marks[t.Mark] = t.Path
	}
	for _, t := range r.Tunnels {
		if err := r.checkStandIn(t); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.Path, err)
		}
	}
	for _, rule := range r.Decide.Rules {
		if err := r.checkPath(rule.Via); err != nil {
			return fmt.Errorf("%s: %w", rule.Text, err)
		}
		if rule.Match.Kind == MatchList && !slices.ContainsFunc(r.Addresses.Lists, func(l List) bool { return l.Name == rule.Match.List }) {
			return fmt.Errorf("%s: no list %q", rule.Text, rule.Match.List)
		}
	}
	if err := r.checkPath(r.defaultPath()); err != nil {
		return fmt.Errorf("default path: %w", err)
	}
	return errors.Join(r.checkInterfaces(), r.checkGateway())
}

func (r Ruleset) checkPath(p routing.Path) error {
	if p == routing.Direct || slices.ContainsFunc(r.Tunnels, func(t Tunnel) bool { return t.Path == p }) {
		return nil
	}
	return fmt.Errorf("no tunnel %q", p)
}

func (r Ruleset) checkInterfaces() error {
	names := slices.Concat(r.Interfaces.LAN, r.Interfaces.Uplinks, r.Interfaces.Skip)
	for _, t := range r.Tunnels {
		names = append(names, string(t.Path))
	}
	for _, n := range names {
		if !isInterfaceName(n) {
			return fmt.Errorf("%q is not an interface name", n)
		}
	}
	return nil
}

// isInterfaceName reports whether nft text can carry s: the kernel allows more,
// but quotes would end the string and a star would match other interfaces.
func isInterfaceName(s string) bool {
	if s == "" || len(s) > 15 {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '*' || c == '/' || c == '\\' {
			return false
		}
	}
	return true
}

func (r Ruleset) field() routing.Field {
	if r.Field == 0 {
		return routing.DefaultField
	}
	return r.Field
}

func (r Ruleset) defaultPath() routing.Path {
	if r.Decide.Default == "" {
		return routing.Direct
	}
	return r.Decide.Default
}

// String returns the table as nft -f reads it, without the elements of long
// sets: a comment says how many there are.
func (r Ruleset) String() string { return r.program().text(false) }

// Full returns the table as nft -f reads it, with every static element.
func (r Ruleset) Full() string { return r.program().text(true) }

// Paths returns the paths that have sets of marks, in the order in which the
// kernel tests them: the tunnels in file order, then direct.
func (r Ruleset) Paths() []routing.Path {
	var out []routing.Path
	for _, t := range r.Tunnels {
		out = append(out, t.Path)
	}
	return append(out, routing.Direct)
}
