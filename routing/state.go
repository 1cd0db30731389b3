package routing

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// What makes a rule or a route ours. A rule is ours if it carries Protocol and
// its priority is in our band; a route is ours if it is in one of our tables.
const (
	Protocol = 153 // of every rule and route we install; 0..152 are taken by others

	FirstTable = 52001                   // table of tunnel 0
	TableLock  = FirstTable + MaxTunnels // what LAN packets without a mark find
	TableWays  = TableLock + 1           // the ways by destination, of every packet that is not marked direct
	PrefTunnel = 5101                    // tunnel n: look-up at PrefTunnel+2n, unreachable one above
	PrefLAN    = 5190                    // per LAN interface: direct goes on behind our band; unmarked to TableLock one above
	PrefWays   = 5195                    // what is not marked direct: to TableWays
	PrefNear   = 5196                    // while locked down: the LAN's prefixes, to main; unreachable one above
	PrefBand   = 5199                    // the last priority of our band: where direct goes on
	PrefNoMain = 32768                   // after main and default: what neither of them could route

	TableDefault = 253
	TableMain    = 254
	TableLocal   = 255

	// MetricLock is behind every metric that a route manager would choose.
	MetricLock = 4278198272
)

// metricV6 is what the kernel gives a v6 route without a metric: said aloud, so
// that a plan compares equal to what is read back.
const metricV6 = 1024

// Family is an address family.
type Family uint8

// The families.
const (
	V4 Family = 4
	V6 Family = 6
)

// FamilyOf returns the family of a.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return V4
	}
	return V6
}

// All returns 0.0.0.0/0 or ::/0.
func (f Family) All() netip.Prefix {
	if f == V4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func (f Family) String() string { return "v" + strconv.Itoa(int(f)) }

// ip is the program with the option that selects the family.
func (f Family) ip() string {
	if f == V6 {
		return "ip -6"
	}
	return "ip"
}

// A Rule is one line of the policy routing database.
type Rule struct {
	Family      Family
	Pref        uint32
	Not         bool         // matches what the mark does not match
	Mark, Mask  uint32       // Mask 0: any mark
	IIF         string       // "": any interface
	To          netip.Prefix // not valid: any destination
	Table       uint32       // 0 with the following
	Unreachable bool
	Goto        uint32 // priority of the rule to go on with; 0: none
	Nop         bool   // does nothing: somewhere to go to
}

func (r Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pref %d", r.Pref)
	if r.Not {
		b.WriteString(" not")
	}
	if r.To.IsValid() {
		b.WriteString(" to " + r.To.String())
	}
	if r.Mask != 0 {
		b.WriteString(" fwmark " + Field(r.Mask).Format(r.Mark))
	}
	if r.IIF != "" {
		b.WriteString(" iif " + r.IIF)
	}
	switch {
	case r.Unreachable:
		b.WriteString(" unreachable")
	case r.Nop:
		b.WriteString(" nop")
	case r.Goto != 0:
		fmt.Fprintf(&b, " goto %d", r.Goto)
	case r.Table != 0:
		b.WriteString(" lookup " + tableName(r.Table))
	}
	return b.String()
}

func tableName(t uint32) string {
	switch t {
	case TableDefault:
		return "default"
	case TableMain:
		return "main"
	case TableLocal:
		return "local"
	}
	return strconv.FormatUint(uint64(t), 10)
}

// RouteType is what a route does with a packet, in iproute2's words.
type RouteType string

// The types we install. Others appear only where somebody else put them into
// one of our tables.
const (
	Unicast     RouteType = ""
	Unreachable RouteType = "unreachable"
	Throw       RouteType = "throw" // on to the next rule
)

// A Route is one entry of one of our tables.
type Route struct {
	Table    uint32
	Dst      netip.Prefix // masked
	Type     RouteType
	Dev      string     // "" unless Unicast
	Via      netip.Addr // the next hop, on the link of Dev whatever other routes say; not valid for none
	Metric   uint32
	MTU      int   // bytes; 0: the link's
	Protocol uint8 // Protocol; another value is somebody else's route in our table
}

// Family returns the family of r's destination.
func (r Route) Family() Family { return FamilyOf(r.Dst.Addr()) }

func (r Route) String() string {
	var b strings.Builder
	if r.Type != Unicast {
		b.WriteString(string(r.Type) + " ")
	}
	if r.Dst.Bits() == 0 {
		b.WriteString("default")
	} else {
		b.WriteString(r.Dst.String())
	}
	if r.Via.IsValid() {
		b.WriteString(" via " + r.Via.String())
	}
	if r.Dev != "" {
		b.WriteString(" dev " + r.Dev)
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	fmt.Fprintf(&b, " table %d proto %d", r.Table, r.Protocol)
	return b.String()
}

// An Addr is an address of a tunnel's interface.
type Addr struct {
	Dev    string
	Prefix netip.Prefix // the address with its length, not masked
}

// A Link is the interface of a tunnel. Its Index is its identity: an interface
// that was deleted and made again is another one, and is not touched before
// whoever configures it says so.
type Link struct {
	Index int
	Name  string
	MTU   int
	Up    bool
}

// A Sysctl is one kernel parameter. Key is its path below /proc/sys.
type Sysctl struct {
	Key   string
	Value string
	Was   string // before us; only in a State that was observed
}

func (s Sysctl) String() string { return sysctlName(s.Key) + "=" + s.Value }

// sysctlName returns key as sysctl(8) takes it: with dots, unless an interface
// name has one (eth0.100).
func sysctlName(key string) string {
	if strings.Contains(key, ".") {
		return key
	}
	return strings.ReplaceAll(key, "/", ".")
}

// State is what of ours is in the kernel, or should be. It is a plain value;
// its slices are sorted.
type State struct {
	Links   []Link
	Addrs   []Addr
	Routes  []Route
	Rules   []Rule
	Sysctls []Sysctl
}

// Sort puts s into the order in which States compare equal.
func (s State) Sort() {
	slices.SortFunc(s.Links, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Addrs, func(a, b Addr) int {
		return cmp.Or(cmp.Compare(a.Dev, b.Dev), a.Prefix.Addr().Compare(b.Prefix.Addr()),
			cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	slices.SortFunc(s.Routes, func(a, b Route) int {
		if c := cmp.Or(cmp.Compare(a.Family(), b.Family()), cmp.Compare(a.Table, b.Table), a.Dst.Addr().Compare(b.Dst.Addr()),
			cmp.Compare(a.Dst.Bits(), b.Dst.Bits()), cmp.Compare(a.Metric, b.Metric)); c != 0 {
			return c
		}
		return cmp.Compare(a.String(), b.String()) // dear, and there may be thousands
	})
	slices.SortFunc(s.Rules, func(a, b Rule) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Pref, b.Pref), cmp.Compare(a.String(), b.String()))
	})
	slices.SortFunc(s.Sysctls, func(a, b Sysctl) int { return cmp.Compare(a.Key, b.Key) })
}

// Numbers returns which number the kernel shows for each tunnel: the rule at
// the number's priority looks up the number's table, and our route there names
// the interface.
func (s State) Numbers() map[Path]int {
	numbers := map[Path]int{}
	for _, r := range s.Rules {
		n := int(r.Table) - FirstTable
		if n < 0 || n >= MaxTunnels || r.Pref != uint32(PrefTunnel+2*n) {
			continue
		}
		for _, t := range s.Routes {
			if t.Table == r.Table && t.Dev != "" && t.Protocol == Protocol {
				numbers[Path(t.Dev)] = n
			}
		}
	}
	return numbers
}
