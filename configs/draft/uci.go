package draft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"smartdns/configs"
)

// maxUCI is far above any file of UCI.
const maxUCI = 1 << 20

// UCI returns the smartdns.toml that a file of OpenWrt's UCI stands for: a
// section is a table, its options and lists are keys, and every line of the
// result says what the line of that number says in the file, so that an error
// about one is about the other. The sections name and address are the lines of
// [decide]; where the last of them does not match everything, what does is
// added. The section smartdns is for the script that starts the program.
//
// What is not written as UCI is, or cannot be a table or key, is an error that
// begins with name and the line.
func UCI(data []byte, name string) (string, error) {
	if len(data) > maxUCI {
		return "", fmt.Errorf("%s: is larger than %d MiB", name, maxUCI>>20)
	}
	u := uci{name: name}
	for n, line := range strings.Split(string(data), "\n") {
		u.lines = append(u.lines, "")
		u.at = n + 1
		words, err := uciWords(strings.TrimSuffix(line, "\r"))
		if err != nil {
			u.errorf("%w", err)
			continue
		}
		u.line(words)
	}
	u.close()
	u.everything()
	if len(u.errs) > 0 {
		return "", errors.Join(u.errs...)
	}
	return strings.Join(u.lines, "\n") + "\n", nil
}

// uci is a file that is being read.
type uci struct {
	name    string
	at      int // the line that is being read, from 1
	lines   []string
	errs    []error
	section *uciSection
	tunnel  string            // the first
	last    map[string]string // the last match of names and addresses; not there: no line
}

type uciSection struct {
	kind, name string
	at         int
	keys       []*uciKey
}

type uciKey struct {
	name   string
	at     int
	list   bool
	values []string
}

func (u *uci) errorf(format string, args ...any) { u.errorAt(u.at, format, args...) }

func (u *uci) errorAt(line int, format string, args ...any) {
	const most = 20
	if len(u.errs) < most {
		u.errs = append(u.errs, fmt.Errorf("%s:%d: "+format, append([]any{u.name, line}, args...)...))
	}
}

// line takes a line of the file.
func (u *uci) line(words []string) {
	if len(words) == 0 || words[0] == "package" {
		return
	}
	switch word := words[0]; word {
	case "config", "option", "list":
		switch {
		case word == "config" && len(words) != 2 && len(words) != 3:
			u.errorf("write config TYPE or config TYPE 'NAME'")
		case word == "config":
			u.close()
			u.section = &uciSection{kind: words[1], at: u.at, name: strings.Join(words[2:], "")}
		case len(words) != 3:
			u.errorf("write %s KEY 'VALUE'", word)
		case u.section == nil:
			u.errorf("%s %s: no config line is above it", word, words[1])
		default:
			u.key(words[1], words[2], word == "list")
		}
	default:
		u.errorf("%q: a line begins with config, option or list", clip(word))
	}
}

// key adds a value to the section. Of an option the last one counts, as in UCI.
func (u *uci) key(name, value string, list bool) {
	k := &uciKey{name: name, at: u.at, list: list}
	if i := slices.IndexFunc(u.section.keys, func(k *uciKey) bool { return k.name == name }); i >= 0 {
		if k = u.section.keys[i]; !list || !k.list {
			*k = uciKey{name: name, at: u.at, list: list}
		}
	} else {
		u.section.keys = append(u.section.keys, k)
	}
	k.values = append(k.values, value)
}

// close ends the section, and writes what it stands for.
func (u *uci) close() {
	s := u.section
	u.section = nil
	if s == nil {
		return
	}
	family, head := s.kind, ""
	switch s.kind {
	case "smartdns":
		for _, k := range s.keys {
			if k.name != "enabled" && k.name != "file" {
				u.errorAt(k.at, "config smartdns has no option %q: it has enabled and file", k.name)
			}
		}
		return
	case "name", "address":
		family = map[string]string{"name": "names", "address": "addresses"}[s.kind]
		head = "[[decide." + family + "]]"
		if u.last == nil {
			u.last = map[string]string{}
		}
		u.last[family] = s.match()
	case "tunnel", "side", "list":
		name := s.called()
		if name == "" {
			u.errorAt(s.at, "write config %s 'NAME', or option name 'NAME' below it", s.kind)
			return
		}
		if s.kind == "tunnel" && u.tunnel == "" {
			u.tunnel = name
		}
		head = "[" + s.kind + "." + configs.QuoteKey(name) + "]"
	default:
		if configs.ShapeOf("", s.kind) != configs.ShapeTable {
			u.errorAt(s.at, "there is no table %q: see smartdns config", clip(s.kind))
			return
		}
		head = "[" + s.kind + "]"
	}
	u.lines[s.at-1] = head
	for _, k := range s.keys {
		text, err := k.toml(configs.ShapeOf(family, k.name))
		if err != nil {
			u.errorAt(k.at, "%s %w", clip(k.name), err)
		}
		u.lines[k.at-1] = text
	}
}

// called takes the name out of the section: UCI's own names have no dots or
// dashes.
func (s *uciSection) called() string {
	i := slices.IndexFunc(s.keys, func(k *uciKey) bool { return k.name == "name" })
	if i < 0 {
		return s.name
	}
	name := s.keys[i].values[0]
	s.keys = slices.Delete(s.keys, i, i+1)
	return name
}

// match is what the section matches, if that is one thing.
func (s *uciSection) match() string {
	for _, k := range s.keys {
		if k.name == "match" && len(k.values) == 1 {
			return k.values[0]
		}
	}
	return ""
}

// toml is the key as the file has it.
func (k *uciKey) toml(shape configs.Shape) (string, error) {
	value := configs.Quote(k.values[0])
	switch shape {
	case configs.ShapeList:
		value = tomlList(k.values)
	case configs.ShapeWordOrList:
		if k.list && len(k.values) > 1 {
			value = tomlList(k.values)
		}
	case configs.ShapeTable:
		return "", errors.New("is a table: write a config of its own")
	default:
		if k.list && len(k.values) > 1 {
			return "", errors.New("has one value: write option")
		}
	}
	switch v := k.values[0]; shape {
	case configs.ShapeYesNo:
		switch v {
		case "1", "on", "true", "yes", "enabled":
			value = "true"
		case "0", "off", "false", "no", "disabled":
			value = "false"
		}
	case configs.ShapeNumber:
		if v != "" && strings.Trim(v, "0123456789") == "" && (v == "0" || v[0] != '0') {
			value = v
		}
	}
	return configs.QuoteKey(k.name) + " = " + value, nil
}

func tomlList(values []string) string {
	var all []string
	for _, v := range values {
		all = append(all, configs.Quote(v))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// everything adds the last lines of [decide] where they are not written.
func (u *uci) everything() {
	add := func(family string, lines ...string) {
		if last, ok := u.last[family]; ok && last != "*" {
			for _, l := range lines {
				u.lines = append(u.lines, "[[decide."+family+"]]", l)
			}
		}
	}
	add("names", "match = \"*\"\nask = \"auto\"")
	out := "direct"
	if u.tunnel != "" {
		out = u.tunnel
	}
	add("addresses", "match = [\"private\", \"home\"]\nvia = \"direct\"", "match = \"*\"\nvia = "+configs.Quote(out))
}

// uciWords splits a line into its words: bare, 'as it is', or "with \ before
// what is meant as it is".
func uciWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	in := false // a word
	end := func() {
		if in {
			words = append(words, word.String())
		}
		word.Reset()
		in = false
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t':
			end()
		case '#':
			if !in {
				return words, nil
			}
			word.WriteByte(c)
		case '\'':
			in = true
			n := strings.IndexByte(line[i+1:], '\'')
			if n < 0 {
				return nil, errors.New("a quote is not closed on its line")
			}
			word.WriteString(line[i+1 : i+1+n])
			i += n + 1
		case '"':
			in = true
			for i++; i < len(line) && line[i] != '"'; i++ {
				if line[i] == '\\' && i+1 < len(line) {
					i++
				}
				word.WriteByte(line[i])
			}
			if i >= len(line) {
				return nil, errors.New("a quote is not closed on its line")
			}
		case '\\':
			in = true
			if i++; i == len(line) {
				return nil, errors.New(`ends with \`)
			}
			word.WriteByte(line[i])
		default:
			in = true
			word.WriteByte(c)
		}
	}
	end()
	return words, nil
}
