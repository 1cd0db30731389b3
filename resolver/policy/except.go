package policy

import (
	"errors"

	"smartdns/resolver/dnsname"
)

// excepts are the names that a list says it does not mean, of those that it
// matches.
type excepts struct{ suffixes, fulls table }

func (x *excepts) add(e Entry) error {
	switch e.Kind {
	case Suffix:
		return x.suffixes.add(e.Name, 0, e.Line)
	case Full:
		return x.fulls.add(e.Name, 0, e.Line)
	}
	return errors.New("an exception that is no name")
}

// hold reports whether name is an exception from an entry that matched it. One
// for a shorter name than that of the entry is not: the list names what it
// means below its own exceptions.
func (x *excepts) hold(name dnsname.FQDN, kind Kind, text string) bool {
	if _, ok := x.fulls.find(name); ok {
		return true
	}
	least := len(text)
	if kind != Suffix && kind != Full {
		least = 0
	}
	for suffix, more := name, true; more && len(suffix) >= least; suffix, more = suffix.Parent() {
		if _, ok := x.suffixes.find(suffix); ok {
			return true
		}
	}
	return false
}

// shadow holds names that an earlier list has, too, but one with exceptions: it
// may turn out not to mean them. Its tables have the seeds of those above it.
type shadow struct{ suffixes, fulls table }

// cast makes a table of one level, 0 for those above all shadows, pass on to the
// next level what an earlier list with exceptions has.
func (n *Names) cast(t *table, kind Kind, level int) {
	t.taken = func(earlier, later slot) {
		if earlier.source == later.source || n.sources[earlier.from()].excepts == nil {
			return
		}
		if level == len(n.shadows) {
			s := &shadow{table{seed: n.suffixes.seed}, table{seed: n.fulls.seed}}
			n.cast(&s.suffixes, Suffix, level+1)
			n.cast(&s.fulls, Full, level+1)
			n.shadows = append(n.shadows, s)
		}
		n.shadows[level].of(kind).wait(later)
	}
}

func (s *shadow) of(kind Kind) *table {
	if kind == Suffix {
		return &s.suffixes
	}
	return &s.fulls
}

// below returns the entry of a name behind that of the level above.
func (n *Names) below(level int, kind Kind, name string) (slot, bool) {
	if level == len(n.shadows) || kind != Suffix && kind != Full {
		return slot{}, false
	}
	return n.shadows[level].of(kind).find(dnsname.FQDN(name))
}

// compact gives back what reading the rules left over.
func (n *Names) compact() {
	n.suffixes.compact()
	n.fulls.compact()
	for i := 0; i < len(n.shadows); i++ { // one may cast the next
		n.shadows[i].suffixes.compact()
		n.shadows[i].fulls.compact()
	}
	for _, s := range n.sources {
		if s.excepts != nil {
			s.excepts.suffixes.compact()
			s.excepts.fulls.compact()
		}
	}
}
