package resolver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"smartdns/geo"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/resolver/wire"
)

// DNS64 makes AAAA records out of A records for clients without IPv4 (RFC
// 6147). The zero DNS64 makes none.
type DNS64 struct {
	// Prefix is where the NAT64 takes v4 addresses: /32, /40, /48, /56, /64 or
	// /96 (RFC 6052 section 2.2).
	Prefix netip.Prefix
	// Exclude are v6 addresses that count as absent, and v4 addresses that are
	// not turned into v6 ones.
	Exclude AddrSet
	// OnPath says that the NAT64 is reached through the path of the v4 address,
	// so that the v6 address is marked for it too; else it stands before us, and
	// what it sends on is v4.
	OnPath bool
}

// synthesisTTL bounds the TTL of an answer that has no SOA to do so (RFC 6147
// section 5.1.7), in seconds.
const synthesisTTL = 600

const ipv4only = dnsname.FQDN("ipv4only.arpa.")

// dns64 answers an AAAA question that has no answer with what the A records
// are behind the NAT64. Each v4 address decides its path.
func (r *Resolver) dns64(ctx context.Context, t *task) {
	d := t.pol.Local.DNS64
	switch {
	case !d.Prefix.IsValid(), t.q.Type != wire.TypeAAAA, t.shape.aaaa != policy.AAAAAuto:
		return
	case t.q.Flags.DO && t.q.Flags.CD: // it validates for itself (RFC 6147 section 5.5)
		return
	case t.msg.rcode != wire.NoError && t.msg.rcode != wire.ServFail, t.msg.data(wire.TypeAAAA), t.blocked():
		return
	}
	empty, reasons, known, asked := t.msg, t.EDE, len(t.Addresses), t.q
	t.msg, t.EDE, t.name, t.links = message{}, nil, t.q.Name, 0
	four := *t.q
	four.Type = wire.TypeA
	t.q = &four
	r.lookup(ctx, t)
	r.classify(t)
	t.q = asked
	if !r.synthesise(t, known, negativeTTL(empty)) {
		t.msg, t.EDE = empty, reasons
		return
	}
	t.note("it has no AAAA record that can be answered: made from A by dns64 in %s", d.Prefix)
}

func (t *task) blocked() bool {
	return slices.ContainsFunc(t.EDE, func(e EDE) bool { return e.Code == edeBlocked })
}

// negativeTTL is for how long the answer m says that there is nothing.
func negativeTTL(m message) uint32 {
	for _, r := range m.authority {
		if r.typ == wire.TypeSOA {
			return r.ttl
		}
	}
	return synthesisTTL
}

// synthesise turns the A records of the answer into AAAA records, and reports
// whether there is one. The addresses from known on are theirs.
func (r *Resolver) synthesise(t *task, known int, ttl uint32) bool {
	d := t.pol.Local.DNS64
	var made []Address
	for i := range t.Addresses[known:] {
		a := &t.Addresses[known+i]
		if a.Dropped != "" {
			continue
		}
		v6 := Address{Addr: d.embed(a.Addr), From: "AAAA", TTL: min(a.TTL, ttl), Region: a.Region, Source: a.Source, Path: a.Path, Rule: a.Rule}
		switch {
		case d.excludes(a.Addr):
			a.Dropped = "[dns64] exclude has it"
		case !d.takes(a.Addr) && t.msg.end(t.q.Name) != ipv4only:
			a.Dropped = fmt.Sprintf("%s is for global addresses only (RFC 6052)", d.Prefix)
		case d.OnPath && r.paths.CanV6 != nil && !r.paths.CanV6(a.Path):
			a.Dropped = fmt.Sprintf("%s carries no IPv6", a.Path)
		}
		if a.Dropped != "" {
			continue
		}
		v6.Note = r.unmadeMark(d, *a, v6.Addr)
		made = append(made, v6)
	}
	if len(made) == 0 {
		return false
	}
	var answer []record
	for _, rec := range t.msg.answer {
		v4, isA := rec.addr()
		rec.ttl = min(rec.ttl, ttl)
		switch {
		case rec.covers() == wire.TypeA: // nobody has signed what we make
			continue
		case isA && !slices.ContainsFunc(made, func(m Address) bool { return m.Addr == d.embed(v4) }):
			continue
		case isA:
			rec.typ, rec.data = wire.TypeAAAA, d.embed(v4).AsSlice()
		}
		answer = append(answer, rec)
	}
	t.msg = message{answer: answer}
	t.Addresses = append(t.Addresses, made...)
	return true
}

// unmadeMark returns why the v6 address of v4 gets no mark, "" when it gets
// one: the static sets that may send v4 the right way do not know it.
func (r *Resolver) unmadeMark(d DNS64, v4 Address, v6 netip.Addr) string {
	kind, _ := geo.Special(v4.Addr)
	switch {
	case v4.Rule.Client:
		return v4.Note
	case !d.OnPath:
		return fmt.Sprintf("the NAT64 sends it on as %s", v4.Addr)
	case r.paths.Marker == nil, kind != geo.NotSpecial:
		return v4.Note
	case r.paths.Never != nil:
		if why := r.paths.Never(v6); why != "" {
			return why + ": never marked"
		}
	}
	return ""
}

// excludes reports whether a v6 address counts as absent, or a v4 one is not
// synthesised.
func (d DNS64) excludes(a netip.Addr) bool { return d.Prefix.IsValid() && contains(d.Exclude, a) }

// takes reports whether v4 may stand behind the prefix: only addresses of the
// whole Internet behind the well-known one (RFC 6052 section 3.1).
func (d DNS64) takes(v4 netip.Addr) bool {
	kind, _ := geo.Special(v4)
	return kind == geo.NotSpecial || d.Prefix != netip.MustParsePrefix("64:ff9b::/96")
}

// embed returns the v6 address of a v4 one (RFC 6052 section 2.2): behind the
// prefix, around the octet of bits 64 to 71, which is zero.
func (d DNS64) embed(v4 netip.Addr) netip.Addr {
	b, four := d.Prefix.Addr().As16(), v4.As4()
	at := d.Prefix.Bits() / 8
	for _, octet := range four {
		if at == 8 {
			at++
		}
		b[at] = octet
		at++
	}
	return netip.AddrFrom16(b)
}

// extract returns the v4 address that stands in v6.
func (d DNS64) extract(v6 netip.Addr) (netip.Addr, bool) {
	if !d.Prefix.IsValid() || !d.Prefix.Contains(v6) {
		return netip.Addr{}, false
	}
	var four [4]byte
	b, at := v6.As16(), d.Prefix.Bits()/8
	for i := range four {
		if at == 8 {
			at++
		}
		four[i] = b[at]
		at++
	}
	return netip.AddrFrom4(four), true
}

// reverse returns the name that has the PTR records of a v4 address in v6
// clothing (RFC 6147 section 5.3.1).
func (d DNS64) reverse(name dnsname.FQDN, qtype uint16) (dnsname.FQDN, bool) {
	const size = 32*2 + len("ip6.arpa.")
	if !d.Prefix.IsValid() || qtype != wire.TypePTR || len(name) != size || !strings.HasSuffix(string(name), ".ip6.arpa.") {
		return "", false
	}
	var b [16]byte
	for i := range 32 {
		n, err := strconv.ParseUint(string(name[2*i]), 16, 4)
		if err != nil || name[2*i+1] != '.' {
			return "", false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	v4, ok := d.extract(netip.AddrFrom16(b))
	if !ok {
		return "", false
	}
	return policy.Reverse(v4), true
}
