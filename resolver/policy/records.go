package policy

import (
	"errors"
	"fmt"
	"slices"

	"smartdns/resolver/dnsname"
)

// Record is a static record of class IN.
type Record struct {
	Type uint16
	TTL  uint32 // seconds
	Data []byte // in wire form, without compression; never changed
	Pos  Place
}

// Place is where a record stands.
type Place struct {
	File string
	Line int // from 1
}

func (p Place) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// TypeCNAME is the type that leads to another name.
const TypeCNAME = 5

// Records are the names that have records of the user's: from zone files,
// hosts files and the config. It is filled by AddZone and AddHosts; from the
// first Match on it never changes, and is safe for concurrent use. A nil
// Records has none.
type Records struct {
	names map[dnsname.FQDN][]Record
	wild  map[dnsname.FQDN][]Record // by what stands behind "*."
	// inner are the names between a wildcard and a name with records: they
	// exist, so that the wildcard does not stand for them (RFC 4592).
	inner map[dnsname.FQDN]bool
}

// Len returns how many names have records; a wildcard is one.
func (r *Records) Len() int {
	if r == nil {
		return 0
	}
	return len(r.names) + len(r.wild)
}

// Match returns the records of name, and the name that they stand under: name
// itself, or a wildcard that stands for it (RFC 4592 section 3.3). ok is true
// also for a name without records that has some below it and lies below a
// wildcard: it is there, and empty.
func (r *Records) Match(name dnsname.FQDN) (all []Record, at dnsname.FQDN, ok bool) {
	if r == nil {
		return nil, "", false
	}
	if all, ok := r.names[name]; ok {
		return all, name, true
	}
	if len(r.wild) == 0 {
		return nil, "", false
	}
	if zone, ok := starred(name); ok {
		if all, ok := r.wild[zone]; ok {
			return all, name, true
		}
	}
	if r.inner[name] {
		return nil, name, true
	}
	for up, more := name.Parent(); more; up, more = up.Parent() {
		if all, ok := r.wild[up]; ok {
			return all, wildcard(up), true
		}
		if _, ok := r.names[up]; ok || r.inner[up] {
			return nil, "", false // the wildcard above stands for what is not there
		}
	}
	return nil, "", false
}

// starred returns what stands behind "*." in name.
func starred(name dnsname.FQDN) (zone dnsname.FQDN, ok bool) {
	if len(name) < 2 || name[:2] != "*." {
		return "", false
	}
	return name.Parent()
}

func wildcard(zone dnsname.FQDN) dnsname.FQDN {
	if zone == dnsname.Root {
		return "*."
	}
	return "*." + zone
}

var (
	errBesideCNAME = errors.New("a name with a CNAME has no other record")
	errTwoCNAMEs   = errors.New("a name has one CNAME")
)

// add enters a record, unless it is there already.
func (r *Records) add(name dnsname.FQDN, rec Record) error {
	if r.names == nil {
		r.names, r.wild = map[dnsname.FQDN][]Record{}, map[dnsname.FQDN][]Record{}
	}
	into := r.names
	if zone, ok := starred(name); ok {
		into, name = r.wild, zone
	}
	for _, other := range into[name] {
		switch same := other.Type == rec.Type; {
		case same && slices.Equal(other.Data, rec.Data):
			return nil
		case same && rec.Type == TypeCNAME:
			return fmt.Errorf("%w: there is another at %s", errTwoCNAMEs, other.Pos)
		case other.Type == TypeCNAME || rec.Type == TypeCNAME:
			return fmt.Errorf("%w: there is one at %s", errBesideCNAME, other.Pos)
		}
	}
	into[name] = append(into[name], rec)
	return nil
}

// Close ends the filling: what was added is now found.
func (r *Records) Close() {
	r.inner = map[dnsname.FQDN]bool{}
	if len(r.wild) == 0 {
		return
	}
	for name := range r.names {
		r.between(name)
	}
	for name := range r.wild {
		r.between(name)
		if _, is := r.names[name]; !is && r.below(name) {
			r.inner[name] = true
		}
	}
}

// between notes the names above name and below a wildcard.
func (r *Records) between(name dnsname.FQDN) {
	up, ok := name.Parent()
	for ; ok && r.below(up); up, ok = up.Parent() {
		if _, is := r.names[up]; !is {
			r.inner[up] = true
		}
	}
}

// below reports whether name lies below a wildcard's zone.
func (r *Records) below(name dnsname.FQDN) bool {
	for up, ok := name.Parent(); ok; up, ok = up.Parent() {
		if _, is := r.wild[up]; is {
			return true
		}
	}
	return false
}
