package configs

import (
	"reflect"
	"slices"

	"github.com/pelletier/go-toml/v2/unstable"
)

// takeTable fills the raw struct that into points to from a table, and reports
// whether it knows all keys of it: each is the tag of a field.
func takeTable(p *problems, n *node, where string, into any) (ok bool) {
	ok = true
	fields := reflect.ValueOf(into).Elem()
	for _, e := range n.keys {
		at := place{line: e.line, key: keyUnder(where, e)}
		field, known := fieldOf(fields, e.name)
		switch {
		case !known:
			ok = false
			unknownKey(p, at, e, fields.Type())
		case takes(field):
			field.Addr().Interface().(target).take(p, e.value, at)
		case e.value.kind != unstable.Table:
			p.addf(at, "want a table: write [%s] above its keys", e.name)
		default:
			takeTable(p, e.value, at.key, field.Addr().Interface())
		}
	}
	return ok
}

func takes(field reflect.Value) bool {
	_, ok := field.Addr().Interface().(target)
	return ok
}

// keyUnder names a key as an error prints it: "[listen]", "[listen] dns",
// "[decide] names[3] match".
func keyUnder(where string, e entry) string {
	switch {
	case where != "":
		return where + " " + tomlKey(e.name)
	case e.value.kind == unstable.Table || e.value.kind == unstable.Array && len(e.value.items) > 0 && e.value.items[0].kind == unstable.Table:
		return "[" + tomlKey(e.name) + "]"
	}
	return tomlKey(e.name)
}

func fieldOf(fields reflect.Value, key string) (reflect.Value, bool) {
	for i := range fields.NumField() {
		if fields.Type().Field(i).Tag.Get("toml") == key {
			return fields.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// keysOf returns the keys of a raw struct, in order.
func keysOf(raw reflect.Type) []string {
	var keys []string
	for i := range raw.NumField() {
		keys = append(keys, raw.Field(i).Tag.Get("toml"))
	}
	return keys
}

func unknownKey(p *problems, at place, e entry, raw reflect.Type) {
	keys := keysOf(raw)
	root := reflect.TypeFor[rawConfig]()
	elsewhere := tableWith(root, e.name)
	if raw == root && elsewhere != "" && e.value.kind != unstable.Table {
		p.addf(at, "unknown key here (it belongs in %s)", elsewhere)
		return
	}
	if near := nearest(e.name, keys); near != "" {
		if raw == root {
			near = "[" + near + "]"
		}
		p.addf(at, "unknown %s (did you mean %s?)", keyOrTable(e), near)
		return
	}
	if raw == reflect.TypeFor[rawNameRule]() && e.name == "block" {
		p.addf(at, `unknown key (write answer = "block")`)
		return
	}
	if raw != root && elsewhere != "" {
		p.addf(at, "unknown key here (it belongs in %s)", elsewhere)
		return
	}
	p.addf(at, "unknown %s (%s)", keyOrTable(e), thereAre(keys))
}

func keyOrTable(e entry) string {
	if e.value.kind == unstable.Table {
		return "table"
	}
	return "key"
}

// tableWith returns the header of the table that has the key, or "".
func tableWith(root reflect.Type, key string) string {
	for i := range root.NumField() {
		field := root.Field(i)
		name := field.Tag.Get("toml")
		body, isFamily := field.Type, field.Type.Kind() == reflect.Slice
		if isFamily {
			one, _ := body.Elem().FieldByName("body")
			body = one.Type
			name += "." + exampleName(name)
		}
		if slices.Contains(keysOf(body), key) {
			return "[" + name + "]"
		}
	}
	return ""
}
