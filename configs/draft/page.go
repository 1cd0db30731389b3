package draft

import (
	"slices"
	"strings"
	"unicode/utf8"

	"smartdns/configs"
)

// page is a TOML file with comments. Each value of it knows where it came from
// and can be turned into a comment.
type page struct {
	head   []string // comments of the whole
	tables []*table
	tail   []string
}

type table struct {
	comment []string
	name    string // as it stands in brackets
	keys    []*key
	at      place
	text    string // of the line that it came from
	off     bool
	asked   bool // an answer of the user's, which nobody drops
}

type key struct {
	comment []string
	name    string
	array   bool
	broad   bool // an array of one entry a line
	entries []*entry
	off     bool
}

// entry is a value, or one of an array.
type entry struct {
	comment []string
	text    string // TOML, perhaps of several lines
	at      place
	from    string // the text of that line
	last    bool   // the line of names that matches everything
	off     bool
}

// owner is who a line of the rendered page belongs to.
type owner struct {
	table *table
	key   *key
	entry *entry
}

func (p *page) table(name string, comment ...string) *table {
	t := &table{name: name, comment: comment}
	p.tables = append(p.tables, t)
	return t
}

func (t *table) set(name string, e *entry, comment ...string) {
	t.keys = append(t.keys, &key{name: name, entries: []*entry{e}, comment: comment})
}

func (t *table) list(name string, entries []*entry, comment ...string) {
	if len(entries) > 0 {
		t.keys = append(t.keys, &key{name: name, array: true, entries: entries, comment: comment})
	}
}

// lines of an array, one entry each.
func (t *table) lines(name string, entries []*entry, comment ...string) {
	t.keys = append(t.keys, &key{name: name, array: true, broad: true, entries: entries, comment: comment})
}

// quoted is a value of the draft's own.
func quoted(s string) *entry { return &entry{text: configs.Quote(s)} }

func word(s string) *entry { return &entry{text: s} }

// rendering is a page as text, with the owner of each line.
type rendering struct {
	text   strings.Builder
	owners []owner
}

func (r *rendering) line(s string, o owner) {
	r.text.WriteString(s + "\n")
	r.owners = append(r.owners, o)
}

func (r *rendering) comments(lines []string, indent string) {
	for _, l := range lines {
		if l != "" {
			l = " " + l
		}
		r.line(indent+"#"+l, owner{})
	}
}

// render returns the page as TOML, and whose each line is.
func (p *page) render() (string, []owner) {
	r := new(rendering)
	r.comments(p.head, "")
	for _, t := range p.tables {
		if len(t.keys) == 0 {
			continue
		}
		r.line("", owner{})
		r.comments(t.comment, "")
		r.line(out(t.off)+"["+t.name+"]", owner{table: t})
		width := 0
		for i, k := range t.keys {
			if i == 0 || len(k.comment) > 0 {
				width = t.width(i)
			}
			if i > 0 && len(k.comment) > 0 {
				r.line("", owner{})
			}
			r.comments(k.comment, "")
			k.render(r, t, width)
		}
	}
	if len(p.tail) > 0 {
		r.line("", owner{})
	}
	for _, l := range p.tail {
		r.line(l, owner{})
	}
	return r.text.String(), r.owners
}

// width returns the columns of the names of key i and those below it that stand
// together.
func (t *table) width(i int) int {
	width := 0
	for n, k := range t.keys[i:] {
		if n > 0 && len(k.comment) > 0 {
			break
		}
		if !k.broad {
			width = max(width, len(k.name))
		}
	}
	return width
}

const widest = 96 // columns of an array on one line

func (k *key) render(r *rendering, t *table, width int) {
	o := owner{table: t, key: k}
	off := t.off || k.off
	if !k.array {
		o.entry = k.entries[0]
		r.line(out(off || o.entry.off)+k.name+strings.Repeat(" ", width-len(k.name))+" = "+o.entry.text, o)
		return
	}
	if !k.broad {
		texts := make([]string, len(k.entries))
		for i, e := range k.entries {
			texts[i] = e.text
		}
		one := k.name + strings.Repeat(" ", max(0, width-len(k.name))) + " = [" + strings.Join(texts, ", ") + "]"
		plain := !slices.ContainsFunc(k.entries, func(e *entry) bool { return e.off || len(e.comment) > 0 })
		if plain && utf8.RuneCountInString(one) <= widest {
			if len(k.entries) == 1 {
				o.entry = k.entries[0]
			}
			r.line(out(off)+one, o)
			return
		}
	}
	r.line(out(off)+k.name+" = [", o)
	for _, e := range k.entries {
		o.entry = e
		r.comments(e.comment, "  ")
		for l := range strings.SplitSeq(e.text+",", "\n") {
			r.line("  "+out(off || e.off)+l, o)
		}
	}
	o.entry = nil
	r.line(out(off)+"]", o)
}

// out begins a line that is only a comment.
func out(off bool) string {
	if off {
		return "#"
	}
	return ""
}

// inline returns strings as an array of TOML: on one line where it fits behind
// what is before it, else on several, which are indented.
func inline(values []string, before int) string {
	all := make([]string, len(values))
	width := before
	for i, v := range values {
		all[i] = configs.Quote(v)
		width += len(all[i]) + 2
	}
	if len(all) == 1 {
		return all[0]
	}
	if width <= widest {
		return "[" + strings.Join(all, ", ") + "]"
	}
	var b strings.Builder
	b.WriteString("[")
	column := widest
	for _, v := range all {
		if column+len(v)+2 > widest {
			b.WriteString("\n    ")
			column = 4
		} else {
			b.WriteString(" ")
		}
		b.WriteString(v + ",")
		column += len(v) + 2
	}
	return b.String() + "\n  ]"
}
