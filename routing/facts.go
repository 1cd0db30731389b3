package routing

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Facts are what the kernel shows that is not ours but decides what ours must
// be, or stands in its way.
type Facts struct {
	Links    []Iface       // by index
	Defaults []Default     // of main and of the tables that every unmarked packet meets
	Gateways []netip.Addr  // next hops of those tables and far ends of point-to-point links, sorted
	Rules    []ForeignRule // in the order in which the kernel tries them, v4 first
	IPv6     bool          // the kernel speaks IPv6
	Stuck    []Sysctl      // parameters that should have Value, have Was, and may not be written here
}

// Iface is a network interface.
type Iface struct {
	Link
	Kind      string // as the kernel calls it: "wireguard", "tuntap", "bridge", ...; "device" for hardware
	Loopback  bool
	Addrs     []netip.Prefix // addresses with their lengths, not masked
	AcceptRA  int            // accept_ra as it was before us
	Strict    bool           // rp_filter, as it was before us, takes packets only where their answers would leave
	ARPIgnore int            // arp_ignore as it was before us; 0 answers for addresses of other interfaces too
	NoIPv6    bool           // IPv6 is disabled on it
}

// Default is a default route for packets without a mark.
type Default struct {
	Family Family
	Dev    string
	Via    netip.Addr // the next hop; not valid for none, and may be of the other family
	Metric uint32
}

// ForeignRule is a rule that is not ours, also those the kernel starts with.
type ForeignRule struct {
	Rule
	Protocol uint8
	Also     string // selectors and actions that Rule has no field for, as iproute2 prints them
	Narrow   bool   // Also narrows what the rule takes
	Wide     bool   // its table has a default route, or one for half of all addresses
}

func (r ForeignRule) String() string {
	s := r.Family.ip() + " rule " + r.Rule.String()
	if r.Also != "" {
		s += " " + r.Also
	}
	return s
}

// Link returns the interface with the given index.
func (f Facts) Link(index int) (Iface, bool) {
	for _, l := range f.Links {
		if l.Index == index {
			return l, true
		}
	}
	return Iface{}, false
}

// HasDefault reports whether packets of family fam without a mark have a default
// route.
func (f Facts) HasDefault(fam Family) bool {
	return slices.ContainsFunc(f.Defaults, func(d Default) bool { return d.Family == fam })
}

// Uplink returns the default route of family fam that the kernel prefers.
func (f Facts) Uplink(fam Family) (Default, bool) {
	best, found := Default{}, false
	for _, d := range f.Defaults {
		if d.Family == fam && (!found || d.Metric < best.Metric) {
			best, found = d, true
		}
	}
	return best, found
}

// Uplinks returns the interfaces that the default routes use, sorted.
func (f Facts) Uplinks() []string {
	var up []string
	for _, d := range f.Defaults {
		up = append(up, d.Dev)
	}
	slices.Sort(up)
	return slices.Compact(up)
}

// Own returns every address of this host with its length, and every gateway as
// a single address: what no answer may put into a set. The prefixes are not
// masked.
func (f Facts) Own() []netip.Prefix {
	var own []netip.Prefix
	for _, l := range f.Links {
		own = append(own, l.Addrs...)
	}
	for _, g := range f.Gateways {
		own = append(own, netip.PrefixFrom(g.WithZone(""), g.BitLen()))
	}
	return own
}

// Condition is something that an admin should know. It holds until it is gone.
type Condition struct {
	Kind  ConditionKind
	Text  string    // one sentence
	Fix   string    // a command; "" where none is known
	Since time.Time // when it was first seen
}

// ConditionKind names a Condition for programs.
type ConditionKind string

// The conditions of routing.
const (
	ForeignRuleFirst ConditionKind = "foreign-rule"    // a rule of others may take our packets
	RuleMissing      ConditionKind = "rule-missing"    // a rule that the kernel starts with is gone
	Fighting         ConditionKind = "fighting"        // somebody keeps undoing our state
	ApplyFailed      ConditionKind = "apply-failed"    // the kernel refused a step
	ObserveFailed    ConditionKind = "observe-failed"  // the kernel could not be read
	MarkFieldTaken   ConditionKind = "mark-field-used" // a rule of others uses bits of our field
	SysctlStuck      ConditionKind = "sysctl-stuck"    // a parameter is wrong, and may not be written here
)

// prefMain is where the kernel puts the look-up of main; that of default is
// one above.
const prefMain = 32766

// Conflicts says which rules of others stand in the way of in. The conditions
// are without their time.
func Conflicts(in Input, f Facts) []Condition {
	if len(in.Tunnels) == 0 {
		return nil
	}
	var cs []Condition
	add := func(k ConditionKind, format string, args ...any) {
		cs = append(cs, Condition{Kind: k, Text: fmt.Sprintf(format, args...)})
	}
	for _, s := range f.Stuck {
		cs = append(cs, Condition{
			Kind: SysctlStuck, Fix: "sysctl -w " + s.String(),
			Text: fmt.Sprintf("%s is %s, should be %s, and may not be set from here (/proc/sys is read-only)", sysctlName(s.Key), s.Was, s.Value),
		})
	}
	for _, fam := range in.families(f) {
		for _, t := range []uint32{TableMain, TableDefault} {
			if t == TableDefault && fam == V6 {
				continue // IPv6 starts without one
			}
			if !slices.ContainsFunc(f.Rules, func(r ForeignRule) bool {
				return r.Family == fam && r.Table == t && r.Mask == 0 && r.IIF == "" && !r.Narrow
			}) {
				pref := prefMain
				if t == TableDefault {
					pref = prefMain + 1
				}
				add(RuleMissing, "no %s rule looks up the table %s; put it back: %s rule add pref %d lookup %s",
					fam, tableName(t), fam.ip(), pref, tableName(t))
			}
		}
	}
	for _, r := range f.Rules {
		if r.stock() {
			continue
		}
		// After a tunnel's look-up its packets meet no other rule.
		first := slices.ContainsFunc(in.Tunnels, func(t Tunnel) bool {
			return r.Pref <= uint32(PrefTunnel+2*t.Number) && r.matches(in.Field, in.Field.Tunnel(t.Number))
		})
		switch {
		case first:
			add(ForeignRuleFirst, "%q comes before our rules and may take tunnel traffic another way; remove it or give it a priority above %d", r, PrefBand)
		case r.Pref < prefMain && !r.Narrow && r.IIF == "" && r.Wide && r.matches(in.Field, in.Field.Value(MarkDirect)):
			add(ForeignRuleFirst, "%q takes direct traffic before the main table does; is another VPN running?", r)
		case r.Mask&uint32(in.Field) != 0 && !r.Not && r.Mask != 1<<32-1:
			add(MarkFieldTaken, "%q uses bits of our mark field %#x", r, uint32(in.Field))
		}
	}
	return cs
}

// stock reports whether r is one of those the kernel makes by itself.
func (r ForeignRule) stock() bool {
	const kernel = 2 // RTPROT_KERNEL
	return r.Table == TableLocal || r.Protocol == kernel && (r.Table == 0 || r.Pref == prefMain || r.Pref == prefMain+1)
}

// MeetsUnmarked reports whether every packet without a mark is looked up by r,
// unless a rule before it has found a route.
func (r ForeignRule) MeetsUnmarked() bool {
	return r.Table != 0 && r.Pref < PrefNoMain && r.IIF == "" && !r.Narrow && (r.Mask == 0 || (r.Mark == 0) != r.Not)
}

// matches reports whether r may match a packet whose field f holds mark, and
// whose other mark bits are clear.
func (r ForeignRule) matches(f Field, mark uint32) bool {
	return r.Mask == 0 || (mark&uint32(f)&r.Mask == r.Mark) != r.Not
}
