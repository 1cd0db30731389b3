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
		_, _, err := x.suffixes.add(e.Name, 0, e.Line)
		return err
	case Full:
		_, _, err := x.fulls.add(e.Name, 0, e.Line)
		return err
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
// may turn out not to mean them.
type shadow struct{ suffixes, fulls table }

// enter enters a name of n.sources[at] where Match finds it.
func (n *Names) enter(kind Kind, name dnsname.FQDN, at, line int) error {
	suffixes, fulls := &n.suffixes, &n.fulls
	for level := 0; ; level++ {
		t := fulls
		if kind == Suffix {
			t = suffixes
		}
		before, taken, err := t.add(name, at, line)
		if err != nil || !taken || int(before.source) == at || n.sources[before.source].excepts == nil {
			return err
		}
		if level == len(n.shadows) {
			n.shadows = append(n.shadows, shadow{suffixes: newTable(), fulls: newTable()})
		}
		suffixes, fulls = &n.shadows[level].suffixes, &n.shadows[level].fulls
	}
}

// below returns the entry of a name behind that of the level above.
func (n *Names) below(level int, kind Kind, name string) (slot, bool) {
	switch {
	case level == len(n.shadows):
	case kind == Suffix:
		return n.shadows[level].suffixes.find(dnsname.FQDN(name))
	case kind == Full:
		return n.shadows[level].fulls.find(dnsname.FQDN(name))
	}
	return slot{}, false
}

// compact gives back what reading the rules left over.
func (n *Names) compact() {
	n.suffixes.compact()
	n.fulls.compact()
	for i := range n.shadows {
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
