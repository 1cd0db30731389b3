package resolver

import (
	"fmt"
	"net/netip"
	"slices"

	"smartdns/geo"
	"smartdns/resolver/policy"
	"smartdns/routing"
)

// maxAddresses is how many addresses an answer has at most (SECURITY N-13):
// each takes an element of a set.
const maxAddresses = 32

// classify judges every address of the answer, says which way it leaves, and
// takes out those that may not be answered. Fresh and cached answers go
// through it alike.
func (r *Resolver) classify(t *task) {
	kept, filtered := 0, ""
	records, data := len(t.msg.answer), t.msg.data(t.q.Type)
	t.msg = t.msg.filter(func(f found) bool {
		a := r.judged(t, f)
		a.Dropped = r.refused(t, f, a, kept)
		if a.Dropped == "" {
			kept++
		} else if filtered == "" {
			filtered = fmt.Sprintf("%s: %s", f.addr, a.Dropped)
		}
		t.Addresses = append(t.Addresses, a)
		return a.Dropped == ""
	})
	if filtered != "" {
		t.explain(edeFiltered, filtered)
	} else if len(t.msg.answer) < records {
		t.explain(edeFiltered, "a service record could not be read")
	}
	if data && !t.msg.data(t.q.Type) {
		// That nothing is left is ours to say, and clients may cache it.
		t.msg.authority = []record{localSOA(t.msg.end(t.q.Name))}
	}
}

// judged returns what is known about an address and the path it leaves by.
func (r *Resolver) judged(t *task, f found) Address {
	v := t.pol.Geo.Classify(f.addr)
	a := Address{Addr: f.addr, From: f.from, TTL: f.ttl, Region: v.Region.String(), Source: Source{List: v.List, Line: v.Line, Prefix: v.Prefix}}
	if own, ok := t.ownPath(f.addr); ok {
		a.Path, a.Rule, a.Note = own.Via, addressRuleOf(own), clientNote
		return a
	}
	rule := t.pol.Addresses.Match(v, f.addr)
	a.Path, a.Rule = rule.Via, addressRuleOf(rule)
	pinned := t.pins(f.addr, v)
	if pinned {
		a.Path, a.Rule = t.pin.Via, ruleOf(t.pin)
	}
	a.Note = r.unmarkable(f.addr, v, rule, a.Path, pinned)
	if pinned && a.Note != "" && rule.Via != a.Path {
		a.Dropped = fmt.Sprintf("cannot be tied to %s (%s)", a.Path, a.Note)
	}
	if t.rule.Side == Domestic && t.rule.Action == policy.AskSide && v.Region != geo.Home && a.Path.IsTunnel() {
		r.count.marks.directRefused.Add(1)
	}
	return a
}

// pins reports whether the rule of the name, rather than those for addresses,
// says which way an address leaves. An answer that looks forged pulls nothing
// out of the tunnel, whatever its name was pinned to.
func (t *task) pins(a netip.Addr, v geo.Verdict) bool {
	if kind, _ := geo.Special(a); t.pin.Via == "" || kind != geo.NotSpecial {
		return false
	}
	return !t.doubtful || t.pin.Via != routing.Direct || v.Region == geo.Home
}

// refused returns why an address may not be answered, "" when it may.
func (r *Resolver) refused(t *task, f found, a Address, kept int) string {
	kind, prefix := geo.Special(f.addr)
	switch {
	case a.Dropped != "":
		return a.Dropped
	case t.shape.refuses(f) != "":
		return t.shape.refuses(f)
	case f.from == "AAAA" && t.pol.Local.DNS64.excludes(f.addr):
		return "[dns64] exclude has it"
	case f.addr.Is4In6():
		r.count.poison.stripped.Add(1)
		return "a v4 address in v6 clothing"
	case kind != geo.NotSpecial && !t.ours() && !t.pol.privateOK(t.q.Name):
		r.count.poison.stripped.Add(1)
		return fmt.Sprintf("%s in an answer for a public name (%s)", kind, prefix)
	case kind == geo.NotSpecial && f.addr.Is6() && t.shape.aaaa != policy.AAAAKeep && r.paths.CanV6 != nil && !r.paths.CanV6(a.Path):
		return fmt.Sprintf("%s carries no IPv6", a.Path)
	case kept >= maxAddresses:
		return fmt.Sprintf("more than %d addresses", maxAddresses)
	}
	return ""
}

// ours reports whether the whole answer is ours, or a private side's: a public
// name that leads to a local one is no less an attempt at rebinding than one
// with its address.
func (t *task) ours() bool {
	return !slices.ContainsFunc(t.Steps, func(s Step) bool { return s.Local == "" && !t.pol.Sides[s.Side].Private })
}

// unmarkable returns why an address gets no mark, "" when it gets one.
// Towards a tunnel an answer may move an address freely; towards direct only
// one that is home, or of a name that the user pinned: otherwise any page
// could pull somebody else's address out of the tunnel (SECURITY N-07).
func (r *Resolver) unmarkable(a netip.Addr, v geo.Verdict, rule policy.AddressRule, path routing.Path, pinned bool) string {
	if kind, _ := geo.Special(a); kind != geo.NotSpecial {
		return kind.String() + ": never marked"
	}
	if carriesV4(a) {
		return "carries a v4 address: never marked"
	}
	if r.paths.Never != nil {
		if why := r.paths.Never(a); why != "" {
			r.count.marks.never.Add(1)
			return why + ": never marked"
		}
	}
	switch {
	case r.paths.Marker == nil && r.paths.Unmarked != "":
		return r.paths.Unmarked
	case r.paths.Marker == nil:
		return "there is no tunnel"
	case path == routing.Direct && v.Region != geo.Home && !pinned && rule.Named:
		return "the rule for its prefix is a static set"
	case path == routing.Direct && v.Region != geo.Home && !pinned:
		return "direct is where it goes by itself"
	}
	return ""
}

// carriesV4 reports whether a v6 address stands for a v4 one (v4-mapped,
// NAT64, 6to4): packets to it end at an address with a path of its own.
func carriesV4(a netip.Addr) bool {
	b := a.As16()
	nat64 := [12]byte{0x00, 0x64, 0xff, 0x9b}
	return a.Is4In6() || a.Is6() && ([12]byte(b[:12]) == nat64 || b[0] == 0x20 && b[1] == 0x02)
}
