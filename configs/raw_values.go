package configs

import (
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// target is a field of a raw struct: it takes its value from the file, or says
// in p why it cannot.
type target interface {
	take(p *problems, n *node, at place)
}

type rawString struct {
	place
	value string
}

func (r *rawString) take(p *problems, n *node, at place) {
	if n.kind != unstable.String {
		p.addf(at, "want a string%s, got %s", inQuotes(n), kindOf(n))
		at.bad = true
	}
	r.place, r.value = at, n.text
}

// rawStrings is a list of strings.
type rawStrings struct {
	place
	items []rawString
}

func (r *rawStrings) take(p *problems, n *node, at place) {
	r.place = at
	switch n.kind {
	case unstable.Array:
		r.items, r.bad = takeItems(p, n, at)
	case unstable.String:
		p.addf(at, "want a list, got a string: write [%s]", quote(n.text))
		r.bad = true
	default:
		p.addf(at, "want a list of strings, got %s", kindOf(n))
		r.bad = true
	}
}

// rawOneOrMore is a string, or a list of strings.
type rawOneOrMore struct {
	place
	items  []rawString
	single bool // written without brackets
}

func (r *rawOneOrMore) take(p *problems, n *node, at place) {
	r.place = at
	switch n.kind {
	case unstable.Array:
		r.items, r.bad = takeItems(p, n, at)
	case unstable.String:
		r.items, r.single = []rawString{{at, n.text}}, true
	default:
		p.addf(at, "want a string or a list of strings, got %s", kindOf(n))
		r.bad = true
	}
}

// text returns the value as the file writes it, on one line.
func (r rawOneOrMore) text() string {
	values := make([]string, len(r.items))
	for i, item := range r.items {
		values[i] = item.value
	}
	if r.single {
		return tomlString(values[0])
	}
	return tomlStrings(values)
}

// takeItems returns the strings of an array, each with the line it is on, and
// reports whether something else is among them.
func takeItems(p *problems, n *node, at place) (items []rawString, bad bool) {
	for i, item := range n.items {
		var s rawString
		s.take(p, item, at.item(i, item.line))
		if s.bad {
			bad = true
			continue
		}
		items = append(items, s)
	}
	return items, bad
}

// item returns the place of entry i of the list at p.
func (p place) item(i, line int) place {
	return place{line: line, key: p.key + "[" + strconv.Itoa(i) + "]"}
}

type rawBool struct {
	place
	value bool
}

func (r *rawBool) take(p *problems, n *node, at place) {
	if n.kind != unstable.Bool {
		p.addf(at, "want true or false, got %s", kindOf(n))
		return
	}
	r.place, r.value = at, n.text == "true"
}

func (r rawBool) or(fallback bool) bool {
	if r.given() {
		return r.value
	}
	return fallback
}

type rawInt struct {
	place
	value int64
}

func (r *rawInt) take(p *problems, n *node, at place) {
	if n.kind != unstable.Integer {
		p.addf(at, "want a whole number without quotes, got %s", kindOf(n))
		return
	}
	value, err := strconv.ParseInt(n.text, 0, 64)
	if err != nil {
		p.addf(at, "want a whole number, got %s", quote(n.text))
		return
	}
	r.place, r.value = at, value
}

// rawDuration is a string with a unit.
type rawDuration struct {
	rawString
}

func (r *rawDuration) take(p *problems, n *node, at place) {
	if n.kind == unstable.Integer || n.kind == unstable.Float {
		p.addf(at, "%s", noUnit(n.text))
		r.place, r.bad = at, true
		return
	}
	r.rawString.take(p, n, at)
}

func noUnit(number string) string {
	return number + ` has no unit (ms or s): write a string such as "400ms"`
}

// named is the tables of one family, [tunnel.wg0] and [tunnel.wg1], in the
// order of the file.
type named[T any] []table[T]

type table[T any] struct {
	place
	name string // "wg0"
	body T
}

func (r *named[T]) take(p *problems, n *node, at place) {
	family := strings.Trim(at.key, "[]")
	if n.kind != unstable.Table {
		p.addf(at, "want a table with a name of its own, such as [%s.%s], got %s", family, exampleName(family), kindOf(n))
		return
	}
	for _, e := range n.keys {
		t := table[T]{place: place{line: e.line, key: "[" + family + "." + tomlKey(e.name) + "]"}, name: e.name}
		if e.value.kind != unstable.Table {
			p.addf(place{line: e.line, key: at.key + " " + tomlKey(e.name)}, "keys stand in a table with a name of its own, such as [%s.%s]", family, exampleName(family))
			continue
		}
		t.bad = !takeTable(p, e.value, t.key, &t.body)
		*r = append(*r, t)
	}
}

// exampleName is a name that a table of this family could have.
func exampleName(family string) string {
	switch family {
	case "tunnel":
		return "wg0"
	case "side":
		return "foreign"
	}
	return "cn-domains"
}

// rules is an ordered list of tables.
type rules[T any] struct {
	place
	items []table[T]
}

func (r *rules[T]) take(p *problems, n *node, at place) {
	if n.kind != unstable.Array {
		p.addf(at, "want a list of lines such as [ { match = ... } ], got %s", kindOf(n))
		r.place, r.bad = at, true
		return
	}
	r.place = at
	for i, item := range n.items {
		t := table[T]{place: at.item(i, item.line)}
		if item.kind != unstable.Table {
			p.addf(t.place, "want a line such as { match = ... }, got %s", kindOf(item))
			r.bad = true
			continue
		}
		t.bad = !takeTable(p, item, t.key, &t.body)
		r.items = append(r.items, t)
	}
}

func kindOf(n *node) string {
	switch n.kind {
	case unstable.String:
		return "the string " + quote(n.text)
	case unstable.Integer, unstable.Float:
		return "the number " + n.text
	case unstable.Bool:
		return n.text
	case unstable.Array:
		return "a list"
	case unstable.Table:
		return "a table"
	}
	return "a date or time"
}

// inQuotes shows how a scalar is written as a string.
func inQuotes(n *node) string {
	switch n.kind {
	case unstable.Array, unstable.Table:
		return ""
	}
	return " in quotes (" + quote(n.text) + ")"
}
