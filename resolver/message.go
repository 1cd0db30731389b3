package resolver

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"smartdns/resolver/cache"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/wire"
)

// message is what we keep of a reply: the chain from the asked name and, of a
// negative answer, the SOA. It is a value; its records are shared and never
// changed in place.
type message struct {
	rcode     uint16
	ad        bool
	answer    []record
	authority []record
}

// parse reads the reply to (asked, qtype). Whatever is not the chain from the
// asked name is dropped: other owners, the additional section, NS records. An
// upstream says with it nothing about any other name (SECURITY S-09). With do,
// the signatures and the proofs of absence stay.
func parse(msg []byte, asked dnsname.FQDN, qtype uint16, do bool) (message, error) {
	r, err := newReader(msg, asked)
	if err != nil {
		return message{}, err
	}
	m := message{rcode: wire.RCode(msg), ad: msg[3]&0x20 != 0}
	var room [2][8]record // enough for most
	answer, err := r.section(room[0][:0], binary.BigEndian.Uint16(msg[answerCount:]))
	if err != nil {
		return message{}, err
	}
	authority, err := r.section(room[1][:0], binary.BigEndian.Uint16(msg[authorityCount:]))
	if err != nil {
		return message{}, err
	}
	if m.answer, err = chain(answer, asked, qtype, do); err != nil {
		return message{}, err
	}
	m.authority = m.proofs(authority, asked, do)
	return m, nil
}

// chain returns the records of all that lead from asked to the data of qtype.
func chain(all []record, asked dnsname.FQDN, qtype uint16, do bool) ([]record, error) {
	var kept []record
	keep := func(name dnsname.FQDN, typ uint16) (n int) {
		for _, r := range all {
			if r.name != name || r.typ != typ && !(do && r.covers() == typ) {
				continue
			}
			same := func(k record) bool { return k.name == name && k.typ == r.typ && string(k.data) == string(r.data) }
			if typ == wire.TypeCNAME && r.typ == typ && n > 0 || slices.ContainsFunc(kept, same) {
				continue // a name has one CNAME, and nobody needs a record twice
			}
			kept = append(kept, r)
			if r.typ == typ {
				n++
			}
		}
		return n
	}
	seen := map[dnsname.FQDN]bool{asked: true}
	for name := asked; ; {
		if keep(name, qtype) > 0 || qtype == wire.TypeCNAME {
			return kept, nil
		}
		if do {
			for parent, ok := name.Parent(); ok; parent, ok = parent.Parent() {
				keep(parent, typeDNAME)
			}
		}
		if keep(name, wire.TypeCNAME) == 0 {
			return kept, nil
		}
		name = lastTarget(kept)
		switch {
		case name == "":
			return nil, errMalformed
		case seen[name]:
			return nil, errLoop
		case len(seen) > maxLinks:
			return nil, errTooLong
		}
		seen[name] = true
	}
}

// lastTarget returns what the last CNAME points to, "" without one.
func lastTarget(answer []record) dnsname.FQDN {
	for _, r := range slices.Backward(answer) {
		if r.typ == wire.TypeCNAME {
			return r.target()
		}
	}
	return ""
}

// end returns the name at the end of m's chain from asked.
func (m message) end(asked dnsname.FQDN) dnsname.FQDN {
	if t := lastTarget(m.answer); t != "" {
		return t
	}
	return asked
}

// proofs returns the records of an authority section that belong to the end of
// m's chain.
func (m message) proofs(authority []record, asked dnsname.FQDN, do bool) []record {
	end := m.end(asked)
	var kept []record
	for _, r := range authority {
		switch {
		case r.typ == wire.TypeSOA && r.name.Contains(end):
			if minimum, ok := soaMinimum(r.data); ok {
				r.ttl = min(r.ttl, minimum, maxNegativeTTL)
				kept = append(kept, r)
			}
		case do && (r.typ == typeNSEC || r.typ == typeNSEC3):
			kept = append(kept, r)
		case do && (r.covers() == wire.TypeSOA || r.covers() == typeNSEC || r.covers() == typeNSEC3):
			kept = append(kept, r)
		}
	}
	return kept
}

// soaMinimum returns the last field of a SOA's data.
func soaMinimum(data []byte) (uint32, bool) {
	if len(data) < 22 {
		return 0, false
	}
	return clampTTL(binary.BigEndian.Uint32(data[len(data)-4:])), true
}

// data reports whether m has records of the asked type.
func (m message) data(qtype uint16) bool {
	return slices.ContainsFunc(m.answer, func(r record) bool { return r.typ == qtype })
}

// open returns the target of a chain that ends without saying what is there.
func (m message) open(qtype uint16) (dnsname.FQDN, bool) {
	if m.rcode != wire.NoError || m.data(qtype) || len(m.authority) > 0 {
		return "", false
	}
	t := lastTarget(m.answer)
	return t, t != ""
}

// links returns how many CNAMEs m has.
func (m message) links() (n int) {
	for _, r := range m.answer {
		if r.typ == wire.TypeCNAME {
			n++
		}
	}
	return n
}

// life says how long m may be kept, and as what.
func (m message) life(qtype uint16) (cache.Kind, time.Duration) {
	ttl := uint32(maxTTL)
	for _, r := range m.answer {
		ttl = min(ttl, r.ttl)
	}
	if m.rcode == wire.NoError && m.data(qtype) {
		return cache.Positive, seconds(ttl)
	}
	for _, r := range m.authority {
		if r.typ == wire.TypeSOA {
			return cache.Negative, seconds(min(ttl, r.ttl))
		}
	}
	return cache.Bare, seconds(ttl)
}

func seconds(ttl uint32) time.Duration { return time.Duration(ttl) * time.Second }

// age makes m as it is after age. Its records must be its own.
func (m message) age(age time.Duration) {
	m.bound(func(ttl uint32) uint32 { return ttl - min(ttl, uint32(age/time.Second)) })
}

// bound replaces the TTLs of m, whose records must be its own.
func (m message) bound(ttl func(uint32) uint32) {
	for _, records := range [...][]record{m.answer, m.authority} {
		for i := range records {
			records[i].ttl = ttl(records[i].ttl)
		}
	}
}

// pack appends m as a whole message to dst, which is empty: with a header whose
// counts it fills in, and the question. It has no OPT.
func (m message) pack(dst []byte, header *[wire.HeaderLen]byte, question []byte, name dnsname.FQDN) []byte {
	var known places
	known.know(name, wire.HeaderLen)
	dst = append(append(dst, header[:]...), question...)
	dst = known.add(dst, answerCount, m.answer)
	return known.add(dst, authorityCount, m.authority)
}

// found is an address in an answer.
type found struct {
	addr netip.Addr
	from string // "A", "AAAA", "ipv4hint" or "ipv6hint"
	ttl  uint32
}

// addresses returns every address that a client could take from m.
func (m message) addresses() []found {
	var all []found
	for _, r := range m.answer {
		if a, ok := r.addr(); ok {
			all = append(all, found{a, typeName(r.typ), r.ttl})
		}
		if isService(r.typ) {
			if s, err := parseService(r.data); err == nil {
				for _, h := range s.hints() {
					h.ttl = r.ttl
					all = append(all, h)
				}
			}
		}
	}
	return all
}

// filter returns m without the addresses that keep refuses: their A and AAAA
// records, and their places in the hints of HTTPS and SVCB. A service record
// that cannot be read is dropped, since nobody knows which addresses a client
// would find in it. What is left of a set that lost something has no signature
// and no AD. Everything else stays octet by octet. The records must be m's own:
// they are moved.
func (m message) filter(keep func(found) bool) message {
	kept := m.answer[:0]
	var changed []rrset
	for _, r := range m.answer {
		if a, ok := r.addr(); ok && !keep(found{a, typeName(r.typ), r.ttl}) {
			changed = append(changed, rrset{r.name, r.typ})
			continue
		}
		if isService(r.typ) {
			data, ok := filterHints(r, keep)
			if !ok || len(data) != len(r.data) {
				changed = append(changed, rrset{r.name, r.typ})
			}
			if !ok {
				continue
			}
			r.data = data
		}
		kept = append(kept, r)
	}
	if changed != nil {
		m.ad = false
		kept = slices.DeleteFunc(kept, func(r record) bool { return slices.Contains(changed, rrset{r.name, r.covers()}) })
	}
	m.answer = kept
	return m
}

// rrset is what a signature signs.
type rrset struct {
	name dnsname.FQDN
	typ  uint16
}
