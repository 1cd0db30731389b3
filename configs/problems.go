package configs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxErrors is how many errors one Parse reports: a screen full. Whoever has
// more should look at the first ones first.
const maxErrors = 20

// Error is one thing that is wrong in a file.
type Error struct {
	Pos  Pos
	Key  string // "[side.foreign] via"; "" when the file is not TOML at all
	Text string // what is wrong, and what would be right
}

// Error returns "smartdns.toml:27: [side.foreign] via: ...", one line of
// printable characters whatever the file holds.
func (e *Error) Error() string { return located(e.Pos, e.Key, e.Text) }

// Warning is one thing that is legal, works, and is probably not meant.
type Warning struct {
	Pos  Pos
	Key  string
	Text string
}

// String returns the warning in the form of an Error.
func (w Warning) String() string { return located(w.Pos, w.Key, w.Text) }

func located(pos Pos, key, text string) string {
	parts := []string{pos.String(), key, text}
	return printable(strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": "))
}

// place is where a value of the file stands.
type place struct {
	line int    // 0 when the file does not have it
	key  string // as an Error prints it
	bad  bool   // what stands there is an error already
}

// given reports whether the file has the value, and nothing is wrong with it
// so far.
func (p place) given() bool { return p.line > 0 && !p.bad }

// missing reports whether the file does not have the value.
func (p place) missing() bool { return p.line == 0 }

// child returns the place of a key of the table at p, which need not be there.
func (p place) child(key string) place { return place{line: p.line, key: p.key + " " + key} }

// problems collects everything that is wrong in one file.
type problems struct {
	file string // base name
	list []*Error
}

func (p *problems) addf(at place, format string, args ...any) {
	p.list = append(p.list, &Error{
		Pos:  Pos{File: p.file, Line: at.line},
		Key:  at.key,
		Text: fmt.Sprintf(format, args...),
	})
}

// valuef adds an error about a value that err complains of.
func (p *problems) valuef(item rawString, err error) {
	text := err.Error()
	if !strings.HasPrefix(text, "is ") && !strings.HasPrefix(text, "has ") {
		text = ": " + text
	} else {
		text = " " + text
	}
	p.addf(item.place, "%s%s", quote(item.value), text)
}

func (p *problems) twice(item rawString) {
	p.addf(item.place, "%s stands there twice", quote(item.value))
}

func (p *problems) pos(at place) Pos {
	if at.missing() {
		return defaultPos()
	}
	return Pos{File: p.file, Line: at.line}
}

func defaultPos() Pos { return Pos{File: "default"} }

// err joins what was found in the order of the file, or returns nil.
func (p *problems) err() error {
	slices.SortStableFunc(p.list, func(a, b *Error) int { return cmp.Compare(a.Pos.Line, b.Pos.Line) })
	var errs []error
	for i, e := range p.list {
		if i == maxErrors {
			errs = append(errs, fmt.Errorf("%s: and %d more", printable(p.file), len(p.list)-i))
			break
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// printable escapes what could move a terminal's cursor, end a log line or
// turn the direction of the text.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case !unicode.IsPrint(r):
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

// quote quotes a value of the file for an error text, without a password that
// may be in it, cut to a length that leaves room for the rest of the sentence.
func quote(s string) string {
	const longest = 80
	s = withoutPassword(s)
	if utf8.RuneCountInString(s) > longest {
		s = string([]rune(s)[:longest]) + "…"
	}
	return strconv.Quote(s)
}
