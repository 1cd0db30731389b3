package list

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
)

// Geosite reads one category of a geosite.dat of v2ray: the one with this code,
// such as "cn" or "GOOGLE". Attributes may follow: "google@cn" is what has the
// attribute cn there, "google@-ads" what does not have ads. Numbers of lines
// count the domains of the category. Names are as for Names.
func Geosite(r io.Reader, code string) iter.Seq2[Line, error] {
	return new(names).geosite(r, code)
}

func (n *names) geosite(r io.Reader, code string) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		code, attributes, _ := strings.Cut(code, "@")
		g := geosite{names: n, out: output{yield: yield}, seen: map[string]bool{}}
		for a := range strings.SplitSeq(attributes, "@") {
			if a != "" {
				g.attributes = append(g.attributes, strings.ToLower(a))
			}
		}
		d := dat{in: bufio.NewReaderSize(r, maxLine)}
		err := d.find(code)
		if err == nil {
			_, err = d.elements(g.add)
		}
		if err == nil && !g.out.stopped && g.used == 0 && len(g.attributes) > 0 {
			err = &FileError{Reason: fmt.Sprintf("nothing in category %q is @%s; there are %s", code, attributes, g.seenText())}
		}
		if err != nil {
			yield(Line{}, fileError(g.out.number, err))
			return
		}
		g.out.end()
	}
}

// fileError returns an error in the form of this package: what is wrong with
// the content is a FileError.
func fileError(number int, err error) error {
	if err == errDat {
		return &FileError{Number: number, Reason: err.Error()}
	}
	return err
}

type geosite struct {
	*names
	out        output
	attributes []string // that a domain must have, or must not, with a hyphen
	seen       map[string]bool
	used       int
}

// add passes a domain on, and reports whether anybody wants the next one.
func (g *geosite) add(domain []byte) bool {
	g.out.number++
	kind, value, ok := g.domain(domain)
	if !ok {
		g.out.judge(nil, "not a domain as v2ray writes it")
		return !g.out.stopped
	}
	if kind == Dropped {
		return true
	}
	g.used++
	var reason string
	switch kind {
	case Keyword:
		reason = parseKeyword(value, g.out.emit)
	case Regexp:
		reason = g.parseRegexp(value, g.out.emit)
	case Suffix, Full:
		reason = g.emit(kind, value, g.out.emit)
	default:
		reason = "an unknown type of domain"
	}
	g.out.judge(value, reason)
	return !g.out.stopped
}

// domain reads a message of type 0 (a part of names), 1 (an expression), 2 (a
// name and those below it) or 3 (a name alone). One without the attributes that
// are wanted is Dropped.
func (g *geosite) domain(b []byte) (kind LineKind, value []byte, ok bool) {
	kind = Keyword // a type of 0 is not written
	var has [8]string
	attributes := has[:0]
	for len(b) > 0 {
		tag, number, data, rest, ok := cutMessage(b)
		if !ok {
			return Bad, nil, false
		}
		b = rest
		switch tag {
		case 1<<3 | wireVarint:
			kind = [...]LineKind{Keyword, Regexp, Suffix, Full, Bad}[min(number, 4)]
		case 2<<3 | wireBytes:
			value = data
		case 3<<3 | wireBytes:
			if len(g.attributes) == 0 {
				continue
			}
			if tag, _, key, _, ok := cutMessage(data); ok && tag == 1<<3|wireBytes {
				a := strings.ToLower(string(key))
				attributes = append(attributes, a)
				g.seen[a] = true
			}
		}
	}
	for _, want := range g.attributes {
		without, not := strings.CutPrefix(want, "-")
		if slices.Contains(attributes, without) == not {
			return Dropped, nil, true
		}
	}
	return kind, value, true
}

func (g *geosite) seenText() string {
	var all []string
	for a := range g.seen {
		all = append(all, "@"+a)
	}
	if len(all) == 0 {
		return "no attributes in it"
	}
	slices.Sort(all)
	return someOf(all, 8)
}
