package configs

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// schemaKeys returns every key of the raw structs as "listen dns",
// "tunnel config", "decide names match".
func schemaKeys(raw reflect.Type, where string) []string {
	var keys []string
	for i := range raw.NumField() {
		field := raw.Field(i)
		key := strings.TrimSpace(where + " " + field.Tag.Get("toml"))
		body := field.Type
		if body.Kind() == reflect.Slice { // named
			body = body.Elem()
		} else if items, ok := body.FieldByName("items"); ok && items.Type.Elem() != reflect.TypeFor[rawString]() { // rules
			body = items.Type.Elem()
		}
		if inner, ok := body.FieldByName("body"); ok {
			body = inner.Type
		}
		if field.Type == reflect.TypeFor[rawServers]() { // strings, or tables
			keys = append(keys, key)
		}
		if body.NumField() > 0 && body.Field(0).Tag.Get("toml") != "" {
			keys = append(keys, schemaKeys(body, key)...)
		} else {
			keys = append(keys, key)
		}
	}
	return keys
}

// documentKeys returns the keys of a document in the same form, each table
// family without the names of its tables.
func documentKeys(n *node, where string, depth int) []string {
	var keys []string
	for _, e := range n.keys {
		key := strings.TrimSpace(where + " " + e.name)
		if depth == 1 && slices.Contains([]string{"tunnel", "side", "list"}, where) {
			key = where
		}
		switch {
		case e.value.kind == unstable.Table:
			keys = append(keys, documentKeys(e.value, key, depth+1)...)
		case len(e.value.items) > 0 && e.value.items[0].kind == unstable.Table:
			for _, item := range e.value.items {
				keys = append(keys, documentKeys(item, key, depth+1)...)
			}
		default:
			keys = append(keys, key)
		}
	}
	return keys
}

func TestReferenceHasEveryKey(t *testing.T) {
	want := schemaKeys(reflect.TypeFor[rawConfig](), "")
	if len(want) < 25 || !slices.Contains(want, "decide names match") || !slices.Contains(want, "tunnel when_down") {
		t.Fatalf("the walk over the schema is broken: %q", want)
	}
	// Without the comment signs the examples are keys like the others.
	lines := strings.Split(reference, "\n")
	seen := make(map[string]bool)
	for i, line := range lines {
		trimmed := strings.TrimLeft(line, " ")
		if len(trimmed) > 1 && trimmed[0] == '#' && trimmed[1] != ' ' && trimmed[1] != '#' {
			lines[i] = trimmed[1:]
		}
		if strings.HasPrefix(lines[i], "[") {
			clear(seen)
		}
		if key, _, ok := strings.Cut(lines[i], " ="); ok && !strings.HasPrefix(key, " ") && !strings.ContainsAny(key, "#{") {
			if key = strings.TrimSpace(key); seen[key] {
				lines[i] = ""
			}
			seen[key] = true
		}
	}
	var p problems
	root := readTree(&p, []byte(strings.Join(lines, "\n")))
	if root == nil {
		t.Fatal(p.err())
	}
	got := slices.Compact(slices.Sorted(slices.Values(documentKeys(root, "", 0))))
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-schema +reference)\n%s", diff)
	}
}

// plain turns a tree into what go-toml's decoder makes of the same document,
// with numbers and dates as text.
func plain(n *node) any {
	switch n.kind {
	case unstable.Table:
		m := make(map[string]any)
		for _, e := range n.keys {
			m[e.name] = plain(e.value)
		}
		return m
	case unstable.Array:
		a := make([]any, len(n.items))
		for i, item := range n.items {
			a[i] = plain(item)
		}
		return a
	case unstable.String:
		return n.text
	case unstable.Bool:
		return n.text == "true"
	}
	return nil
}

func withoutNumbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any)
		for k := range maps.Keys(v) {
			m[k] = withoutNumbers(v[k])
		}
		return m
	case []any:
		a := make([]any, len(v))
		for i := range v {
			a[i] = withoutNumbers(v[i])
		}
		return a
	case string, bool:
		return v
	}
	return nil
}

// checkTree checks that the tree of a document says what go-toml's own decoder
// says.
func checkTree(t *testing.T, data string) {
	t.Helper()
	var p problems
	root := readTree(&p, []byte(data))
	want := make(map[string]any)
	err := toml.Unmarshal([]byte(strings.TrimPrefix(data, "\ufeff")), &want)
	if root == nil {
		if err == nil && !strings.Contains(p.err().Error(), "cut short") {
			t.Fatalf("refused, but go-toml takes it: %v\n%q", p.err(), data)
		}
		return
	}
	if err != nil {
		t.Fatalf("taken, but go-toml refuses it: %v\n%q", err, data)
	}
	if diff := cmp.Diff(withoutNumbers(want), plain(root)); diff != "" {
		t.Fatalf("(-go-toml +tree)\n%s\n%q", diff, data)
	}
}

func TestTreeSaysWhatTheDecoderSays(t *testing.T) {
	for _, data := range []string{
		"", "\ufeffa = 1\n", "a.b.c = 'x'\na.b.d = true\n",
		"[a.b]\nc = 1\n[a]\nd = [1, [2, {e = 'f'}], []]\n[a.g]\n",
		"[[a.b]]\nc = 1\n[a.b.d]\ne = 2\n[[a.b]]\n[[a.b.f]]\nx = \"\"\"\nlong\n\"\"\"\n",
		"\"\" = 'empty'\n\"a.b\" = 'quoted'\n[x.\"y z\"]\nt = {a.b = 1, a.c = {}}\n",
		reference,
	} {
		checkTree(t, data)
	}
}

func FuzzTree(f *testing.F) {
	f.Add("[[a.b]]\nc = {d.e = [1, {f = \"g\"}]}\n[a.b.h]\n")
	f.Add("[a]\nb.c = 'x'\n[a.d]\n")
	f.Fuzz(func(t *testing.T, data string) { checkTree(t, data) })
}

func TestNearest(t *testing.T) {
	keys := keysOf(reflect.TypeFor[rawTunnel]())
	for word, want := range map[string]string{
		"config": "config", "cofnig": "config", "conf": "config", "devise": "device", "when-down": "when_down",
		"whendown": "when_down", "WHEN_DOWN": "when_down", "inbond": "inbound", "mtu": "", "": "", "x": "",
	} {
		if got := nearest(word, keys); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestDistanceCountsEdits(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"abc", "abc", 0}, {"abc", "", 3}, {"", "ab", 2}, {"abc", "abd", 1},
		{"abc", "acb", 1}, {"abc", "ab", 1}, {"abc", "xabc", 1}, {"kitten", "sitting", 3},
	} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
