package draft

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"smartdns/configs"
)

// located finds the place of an error of Parse or of whoever compiles the file.
var located = regexp.MustCompile(`^` + regexp.QuoteMeta(FileName) + `:(\d+): (.*)$`)

// keyed finds the key of an error that has no line.
var keyed = regexp.MustCompile(`^` + regexp.QuoteMeta(FileName) + `: \[([^\]]+)\] (\w+): (.*)$`)

// find returns the owner of a key's lines.
func (p *page) find(table, name string) owner {
	for _, t := range p.tables {
		if t.name != table {
			continue
		}
		for _, k := range t.keys {
			if k.name == name && k.array {
				return owner{table: t, key: k}
			} else if k.name == name {
				return owner{table: t, key: k, entry: k.entries[0]}
			}
		}
	}
	return owner{}
}

// noList finds the name in the error about a list that is not there.
var noList = regexp.MustCompile(`no list "([^"]+)"`)

// Settle turns every value that check refuses into a comment, with a note, until
// check has nothing to say. check gets the whole text; each line of its error
// begins with "smartdns.toml:LINE: ", as those of configs do. Settle returns the
// error that is in no line that the draft could do without.
func (d *Draft) Settle(check func(text string) error) error {
	for {
		text, owners := d.page.render()
		err := check(text)
		if err == nil {
			d.sortNotes()
			return nil
		}
		progress := false
		for line := range strings.Lines(err.Error()) {
			line = strings.TrimSuffix(line, "\n")
			m := located.FindStringSubmatch(line)
			if m == nil {
				if m := keyed.FindStringSubmatch(line); m != nil && d.drop(d.page.find(m[1], m[2]), m[3]) {
					progress = true
				}
				continue
			}
			n, _ := strconv.Atoi(m[1])
			if n < 1 || n > len(owners) {
				continue
			}
			if d.drop(owners[n-1], m[2]) {
				progress = true
			}
		}
		if !progress {
			return fmt.Errorf("checking the draft: %w", err)
		}
	}
}

// parse settles the draft as far as the file alone can be judged.
func (d *Draft) parse() error { return d.Settle(parses) }

func parses(text string) error {
	_, err := configs.Parse(strings.NewReader(text), FileName)
	return err
}

// mustParse returns what is wrong with a draft of answers alone, of which
// nothing can be left out.
func (d *Draft) mustParse() error {
	err := parses(d.Text())
	if err == nil {
		return nil
	}
	var all []error
	for line := range strings.Lines(err.Error()) {
		text := strings.TrimSuffix(line, "\n")
		if m := located.FindStringSubmatch(text); m != nil {
			text = m[2]
		}
		all = append(all, errors.New(text))
	}
	return errors.Join(all...)
}

// drop turns the smallest thing that o names into a comment, and reports
// whether there was one. A line of names that matches everything stays, and
// decides by itself.
func (d *Draft) drop(o owner, why string) bool {
	if o.table != nil && o.table.asked {
		return false
	}
	note := Note{Kind: Lost, Why: why + " (so it is a comment in the new file)"}
	if m := noList.FindStringSubmatch(why); m != nil && d.gone["list."+m[1]] {
		why = "" // said of the list already
	}
	switch {
	case o.entry != nil && !o.entry.off:
		note.File, note.Line, note.Text = o.entry.at.file, o.entry.at.line, o.entry.from
		if o.entry.last {
			if o.entry.text == lastResort {
				return false
			}
			o.entry.text = lastResort
			note.Why = why + `: names in no line are decided by "auto" instead`
		} else {
			o.entry.off = true
			o.key.fold()
			o.table.fold()
		}
	case o.entry == nil && o.key != nil && !o.key.off:
		e := o.key.entries[0]
		note.File, note.Line, note.Text = e.at.file, e.at.line, e.from
		if slices.ContainsFunc(o.key.entries, func(e *entry) bool { return e.last }) {
			return false
		}
		o.key.off = true
		o.table.fold()
	case o.key == nil && o.table != nil && !o.table.off:
		note.File, note.Line, note.Text = o.table.at.file, o.table.at.line, o.table.text
		o.table.off = true
		if d.gone == nil {
			d.gone = map[string]bool{}
		}
		d.gone[o.table.name] = true
	default:
		return false
	}
	if why == "" {
		return true
	}
	if note.File == "" {
		note.File, note.Text = FileName, "an answer"
	}
	d.notes = append(d.notes, note)
	return true
}

// fold takes an array out of which nothing is left, since an empty one may mean
// something else than none.
func (k *key) fold() {
	k.off = !slices.ContainsFunc(k.entries, func(e *entry) bool { return !e.off })
}

// fold takes a table out of which nothing is left.
func (t *table) fold() {
	t.off = t.off || !slices.ContainsFunc(t.keys, func(k *key) bool { return !k.off })
}

// lastResort is the last line of names that always works.
const lastResort = `{ match = "*", ask = "auto" }`

func (d *Draft) sortNotes() {
	order := map[string]int{}
	for i, s := range d.sources {
		order[s] = i
	}
	slices.SortStableFunc(d.notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	d.notes = slices.Compact(d.notes)
}
