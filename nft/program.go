package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"smartdns/routing"
)

// A program is the table as objects: each prints as nft text and is written as
// netlink messages from the same value.
type program struct {
	counters []string
	sets     []set
	chains   []chain
	paths    []routing.Path
	field    routing.Field
	marks    []uint32 // of the tunnels
	moves    []move
	strict   bool
	offload  []string // interfaces of the flowtable
}

// A chain with a base is called by the kernel, any other by rules.
type chain struct {
	name  string
	base  *hook
	about string // for readers of the text
	rules []rule
}

// hook is where the kernel calls a chain.
type hook struct {
	kind     string
	name     string
	number   uint32
	priority int32
	text     string // the priority in words
}

// setKind is what a set's keys are.
type setKind struct {
	text   string
	magic  uint32 // as the nft program numbers it
	length uint32
	family family
}

func addresses(f family) setKind {
	if f.size == 4 {
		return setKind{"ipv4_addr", 7, 4, f}
	}
	return setKind{"ipv6_addr", 8, 16, f}
}

func interfaces() setKind { return setKind{"ifname", 41, unix.IFNAMSIZ, family{}} }

// A set is static, with its elements, or one of marks, whose elements the
// Marker adds.
type set struct {
	name   string
	kind   setKind
	marks  bool
	size   uint32
	ranges []element // begins and ends in turn
	names  []string
	macs   []routing.MAC
}

// A move deletes the conntrack entries with a mark when the chain changes that
// gives new flows their way: flows of a tunnel that went down go direct or by
// another tunnel, and come back when it is up again.
type move struct {
	chain string
	mark  uint32
	field routing.Field
	// unless the chain was one of these, after which there are no such flows.
	unless []chain
}

func (r Ruleset) program() program { return r.programFrom(stock{}) }

// programFrom is program with the sets that are in stock.
func (r Ruleset) programFrom(s stock) program {
	p := program{chains: r.chains(), paths: r.Paths(), sets: r.sets(s), field: r.field(), offload: sorted(r.Gateway.Offload), strict: r.KillSwitch.Level != Lax}
	for _, c := range p.chains {
		for _, rule := range c.rules {
			for _, t := range rule.terms {
				if name, ok := strings.CutPrefix(t.text, "counter name "); ok {
					p.counters = append(p.counters, strings.Trim(name, `"`))
				}
			}
		}
	}
	slices.Sort(p.counters)
	p.counters = slices.Compact(p.counters)
	for _, t := range r.Tunnels {
		p.marks = append(p.marks, t.Mark)
		p.moves = append(p.moves, r.moves(t)...)
	}
	return p
}

func (r Ruleset) sets(from stock) []set {
	var tunnels []string
	for _, t := range r.Tunnels {
		tunnels = append(tunnels, string(t.Path))
	}
	uplinks := slices.DeleteFunc(slices.Clone(r.Interfaces.Uplinks), func(s string) bool {
		return slices.Contains(tunnels, s)
	})
	out := []set{
		{name: setLANIfs, kind: interfaces(), names: sorted(r.Interfaces.LAN)},
		{name: setUplinks, kind: interfaces(), names: sorted(uplinks)},
		{name: setSkip, kind: interfaces(), names: sorted(r.Interfaces.Skip)},
		{name: setTunnels, kind: interfaces(), names: sorted(tunnels)},
	}
	private := r.Addresses.Private
	if private == nil {
		private = Private()
	}
	out = append(out, static(setLAN, r.Addresses.LAN)...)
	out = append(out, static(setLocal, slices.Concat(private, r.Addresses.LAN))...)
	out = append(out, from.static(setHome, r.Addresses.Home)...)
	if r.KillSwitch.Level != Lax {
		out = append(out, static(setNear, r.KillSwitch.Near)...)
	}
	out = append(out, r.portalSets()...)
	for _, l := range r.Addresses.Lists {
		out = append(out, from.static(ident(l.Name), l.Prefixes)...)
	}
	out = append(out, r.gatewaySets()...)
	for _, p := range r.Paths() {
		for _, f := range families() {
			size := r.SetSize
			if size == 0 {
				size = DefaultSetSize
			}
			out = append(out, set{name: setOf(p, f), kind: addresses(f), marks: true, size: size})
		}
	}
	return out
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}

// check reports two objects of one name.
func (p program) check() error {
	seen := map[string]bool{}
	for _, s := range p.sets {
		if seen[s.name] {
			return fmt.Errorf("two sets would be called %s: rename the list or the tunnel", s.name)
		}
		seen[s.name] = true
	}
	clear(seen)
	for _, c := range p.chains {
		if seen[c.name] {
			return fmt.Errorf("two chains would be called %s: rename the tunnel", c.name)
		}
		seen[c.name] = true
	}
	return nil
}

// interval reports whether the set's elements are ranges.
func (s set) interval() bool { return !s.marks && s.kind.family.size != 0 }

func (s set) flags() uint32 {
	switch {
	case s.marks:
		return unix.NFT_SET_TIMEOUT
	case s.interval():
		return unix.NFT_SET_INTERVAL
	}
	return 0
}

// An element is a key of a set; in a set of ranges it is where one begins, or
// the first key after one.
type element struct {
	key [16]byte
	end bool
}

// elements returns the static elements as the kernel takes them, sorted. Nobody
// may change them.
func (s set) elements() []element {
	if len(s.ranges) > 0 {
		return s.ranges
	}
	out := make([]element, 0, len(s.names)+len(s.macs))
	for _, n := range s.names {
		var e element
		copy(e.key[:], n)
		out = append(out, e)
	}
	for _, m := range s.macs {
		var e element
		copy(e.key[:], m[:])
		out = append(out, e)
	}
	return out
}

// keyOf returns the address as the first bytes of a key.
func keyOf(a netip.Addr) (k [16]byte) {
	if a.Is4() {
		b := a.As4()
		copy(k[:], b[:])
		return k
	}
	return a.As16()
}

// inlineElements is how many elements a set shows in the text that people read.
const inlineElements = 24

func (p program) text(full bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# smartdns: each flow leaves by its path (direct or a tunnel) or not at all\n")
	fmt.Fprintf(&b, "table inet %s {\n", TableName)
	for _, c := range p.counters {
		fmt.Fprintf(&b, "\tcounter %s {\n\t}\n", c)
	}
	for _, s := range p.sets {
		fmt.Fprintf(&b, "\n%s", indent(s.text(full)))
	}
	if len(p.offload) > 0 {
		fmt.Fprintf(&b, "\n%s", indent(flowtableText(p.offload)))
	}
	for _, c := range p.chains {
		fmt.Fprintf(&b, "\n%s", indent(c.text()))
	}
	b.WriteString("}\n")
	return b.String()
}

func indent(s string) string {
	var b strings.Builder
	for l := range strings.Lines(s) {
		b.WriteString("\t" + l)
	}
	return b.String()
}

func (s set) text(full bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "set %s {\n\ttype %s\n", s.name, s.kind.text)
	if s.size > 0 {
		fmt.Fprintf(&b, "\tsize %d\n", s.size)
	}
	if s.marks {
		b.WriteString("\tflags timeout\n")
	}
	if s.interval() {
		b.WriteString("\tflags interval\n")
	}
	switch n := s.count(); {
	case n == 0:
	case n > inlineElements && !full:
		fmt.Fprintf(&b, "\t# %d elements, not shown here\n", n)
	default:
		fmt.Fprintf(&b, "\telements = { %s }\n", strings.Join(s.items(n), ",\n\t\t     "))
	}
	b.WriteString("}\n")
	return b.String()
}

// count is how many static elements people see: a range is one.
func (s set) count() int { return len(s.names) + len(s.macs) + (len(s.ranges)+1)/2 }

// items returns the first static elements, at most that many, as people write
// them.
func (s set) items(most int) []string {
	out := make([]string, 0, most)
	for _, n := range s.names[:min(most, len(s.names))] {
		out = append(out, fmt.Sprintf("%q", n))
	}
	for _, m := range s.macs[:min(most-len(out), len(s.macs))] {
		out = append(out, m.String())
	}
	for r := range s.prefixes() {
		if len(out) == most {
			break
		}
		if p, ok := r.Prefix(); ok && p.IsSingleIP() {
			out = append(out, p.Addr().String())
		} else if ok {
			out = append(out, p.String())
		} else {
			out = append(out, r.String())
		}
	}
	return out
}

func (c chain) text() string {
	var b strings.Builder
	if c.about != "" {
		fmt.Fprintf(&b, "# %s\n", c.about)
	}
	fmt.Fprintf(&b, "chain %s {\n", c.name)
	if c.base != nil {
		fmt.Fprintf(&b, "\t%s\n", c.base)
	}
	for _, r := range c.rules {
		fmt.Fprintf(&b, "\t%s\n", r)
	}
	b.WriteString("}\n")
	return b.String()
}

func (h hook) String() string {
	return fmt.Sprintf("type %s hook %s priority %s; policy accept;", h.kind, h.name, h.text)
}
