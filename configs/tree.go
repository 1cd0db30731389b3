package configs

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// node is a value of the file with its place, which go-toml's own decoder does
// not keep.
type node struct {
	kind  unstable.Kind // String, Integer, Bool, ..., Array or Table, however it is spelt
	line  int
	text  string  // of a scalar, unquoted
	items []*node // of an Array
	keys  []entry // of a Table, in the order of the file
	index map[string]*node
}

type entry struct {
	name  string
	line  int
	value *node
}

func (n *node) find(name string) *node {
	return n.index[name]
}

func (n *node) put(name string, line int, value *node) {
	if n.index == nil {
		n.index = make(map[string]*node)
	}
	n.index[name] = value
	n.keys = append(n.keys, entry{name, line, value})
}

// readTree parses a TOML document. On a syntax error it adds that to p and
// returns nil: what follows the error cannot be trusted.
func readTree(p *problems, data []byte) *node {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	// The decoder knows what the parser alone does not: which keys and tables
	// stand there twice.
	if err := toml.Unmarshal(data, &map[string]any{}); err != nil {
		p.syntax(err)
		return nil
	}
	t := treeBuilder{root: &node{kind: unstable.Table, line: 1}}
	for i, c := range data {
		if c == '\n' {
			t.ends = append(t.ends, i)
		}
	}
	t.table = t.root
	t.parser.Reset(data)
	for t.parser.NextExpression() {
		if err := t.expression(t.parser.Expression()); err != nil {
			p.syntax(err)
			return nil
		}
	}
	if err := t.parser.Error(); err != nil {
		p.syntax(err)
		return nil
	}
	if len(data) > 0 && t.numberEnd == len(data) {
		p.addf(place{line: len(t.ends) + 1}, "the file ends right after a digit and may be cut short: end the line with a newline")
		return nil
	}
	return t.root
}

func (p *problems) syntax(err error) {
	at := place{line: 1}
	if located, ok := errors.AsType[*toml.DecodeError](err); ok {
		at.line, _ = located.Position()
	}
	text := strings.TrimPrefix(err.Error(), "toml: ")
	if strings.HasSuffix(text, "at start of value") || strings.HasPrefix(text, "expected keyword") {
		text += " (strings stand in quotes)"
	}
	p.addf(at, "%s", text)
}

// treeBuilder turns the expressions of a document into one tree.
type treeBuilder struct {
	parser    unstable.Parser
	ends      []int // offsets of the newlines
	root      *node
	table     *node // the one whose header came last
	numberEnd int   // offset of the end of the last number
}

func (t *treeBuilder) lineOf(n *unstable.Node) int {
	return 1 + sort.SearchInts(t.ends, int(n.Raw.Offset))
}

// errShape says that the decoder and the parser of go-toml disagree.
var errShape = errors.New("a key is a table here and a value there")

func (t *treeBuilder) expression(e *unstable.Node) error {
	switch e.Kind {
	case unstable.Table, unstable.ArrayTable:
		parent, name, line, err := t.descend(t.root, e.Key())
		if err != nil {
			return err
		}
		t.table, err = header(parent, name, line, e.Kind == unstable.ArrayTable)
		return err
	case unstable.KeyValue:
		return t.keyValue(t.table, e)
	}
	return fmt.Errorf("unexpected %s", e.Kind)
}

// header returns the table that a [header] or [[header]] opens.
func header(parent *node, name string, line int, array bool) (*node, error) {
	table := &node{kind: unstable.Table, line: line}
	have := parent.find(name)
	switch {
	case have == nil && array:
		parent.put(name, line, &node{kind: unstable.Array, line: line, items: []*node{table}})
	case have == nil:
		parent.put(name, line, table)
	case have.kind == unstable.Array && array:
		have.items = append(have.items, table)
	case have.kind == unstable.Table && !array:
		return have, nil
	default:
		return nil, errShape
	}
	return table, nil
}

// descend follows all parts of a dotted key but the last, making the tables
// that are not there yet, and returns the table that holds the last part.
func (t *treeBuilder) descend(from *node, key unstable.Iterator) (table *node, name string, line int, err error) {
	table = from
	for key.Next() {
		part := key.Node()
		name, line = string(part.Data), t.lineOf(part)
		if key.IsLast() {
			break
		}
		next := table.find(name)
		if next == nil {
			next = &node{kind: unstable.Table, line: line}
			table.put(name, line, next)
		}
		if next.kind == unstable.Array && len(next.items) > 0 {
			next = next.items[len(next.items)-1]
		}
		if next.kind != unstable.Table {
			return nil, "", 0, errShape
		}
		table = next
	}
	return table, name, line, nil
}

func (t *treeBuilder) keyValue(table *node, e *unstable.Node) error {
	table, name, line, err := t.descend(table, e.Key())
	if err != nil {
		return err
	}
	if table.find(name) != nil {
		return errShape
	}
	value, err := t.value(e.Value(), line)
	if err != nil {
		return err
	}
	table.put(name, line, value)
	return nil
}

// value copies a value out of the parser's memory. Arrays have no position of
// their own there: they are where their key is.
func (t *treeBuilder) value(v *unstable.Node, line int) (*node, error) {
	n := &node{kind: v.Kind, line: line}
	if v.Kind != unstable.Array {
		n.line = t.lineOf(v)
	}
	switch v.Kind {
	case unstable.Array:
		for it := v.Children(); it.Next(); {
			item, err := t.value(it.Node(), line)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
	case unstable.InlineTable:
		n.kind = unstable.Table
		for it := v.Children(); it.Next(); {
			if err := t.keyValue(n, it.Node()); err != nil {
				return nil, err
			}
		}
	case unstable.Integer, unstable.Float:
		n.text = string(v.Data)
		t.numberEnd = int(v.Raw.Offset + v.Raw.Length)
	default:
		n.text = string(v.Data)
	}
	return n, nil
}
