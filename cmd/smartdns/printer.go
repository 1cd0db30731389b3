package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/fatih/color"
	"golang.org/x/term"
)

// width is what output is laid out for: a terminal over ssh.
const width = 80

// printer writes aligned rows, in colour where the output is a terminal and
// NO_COLOR is not set. What is longer than a row goes on in the next one.
type printer struct {
	w     io.Writer
	color bool
}

func newPrinter(w io.Writer) printer {
	f, ok := w.(*os.File)
	return printer{w, ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (p printer) paint(s string, attrs ...color.Attribute) string {
	if !p.color || s == "" {
		return s
	}
	c := color.New(attrs...)
	c.EnableColor()
	return c.Sprint(s)
}

func (p printer) good(s string) string  { return p.paint(s, color.FgGreen) }
func (p printer) bad(s string) string   { return p.paint(s, color.FgRed, color.Bold) }
func (p printer) faint(s string) string { return p.paint(s, color.Faint) }
func (p printer) bold(s string) string  { return p.paint(s, color.Bold) }

// line prints left, and right at the right edge; where they do not fit side by
// side, right has a line of its own.
func (p printer) line(left, right string) {
	if right == "" {
		fmt.Fprintln(p.w, left)
		return
	}
	if gap := width - columns(left) - columns(right); gap >= 2 {
		fmt.Fprintln(p.w, left+strings.Repeat(" ", gap)+right)
		return
	}
	fmt.Fprintln(p.w, left)
	fmt.Fprintln(p.w, strings.Repeat(" ", max(indent, width-columns(right)))+right)
}

const (
	labelWidth = 11
	indent     = 2 + labelWidth
)

// row prints an indented row: label, text, and right at the right edge of its
// last line.
func (p printer) row(label, text, right string) {
	lines := wrap(text, width-indent)
	for i, l := range lines {
		at := ""
		if i == len(lines)-1 {
			at = right
		}
		p.line("  "+p.faint(pad(label, labelWidth))+l, p.faint(at))
		label = ""
	}
}

// headline prints the first line, which begins at the left edge and is painted
// whole.
func (p printer) headline(text, right string, paint func(string) string) {
	lines := wrap(text, width-columns(right)-2)
	for i, l := range lines {
		at := ""
		if i == 0 {
			at = right
		}
		p.line(paint(l), at)
	}
}

// hanging prints text whose further lines are indented by two columns.
func (p printer) hanging(text string, paint func(string) string) {
	for i, l := range wrap(text, width-2) {
		if i > 0 {
			l = "  " + l
		}
		p.line(paint(l), "")
	}
}

// wrap cuts s at blanks into lines of at most n columns. What has no blank
// stays whole: addresses, names and commands are there to be copied.
func wrap(s string, n int) []string {
	var lines []string
	for columns(s) > n {
		cut, at, escape := -1, 0, false
		for i, r := range s {
			switch {
			case escape:
				escape = r != 'm'
				continue
			case r == '\x1b':
				escape = true
				continue
			case r == ' ' && at > 0 && (at <= n || cut < 0):
				cut = i
			}
			if at++; at > n && cut > 0 {
				break
			}
		}
		if cut < 0 {
			break
		}
		lines = append(lines, strings.TrimRight(s[:cut], " "))
		s = strings.TrimLeft(s[cut:], " ")
	}
	return append(lines, s)
}

// pad fills s up with spaces to n columns.
func pad(s string, n int) string {
	if k := columns(s); k < n {
		return s + strings.Repeat(" ", n-k)
	}
	return s + " "
}

// columns is how wide s is on a terminal.
func columns(s string) int { return utf8.RuneCountInString(plain(s)) }

// plain is s without colour.
func plain(s string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, "\x1b[")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		_, s, _ = strings.Cut(after, "m")
	}
}

// steers reports whether a terminal would do something about r instead of
// showing it: control characters, and those that turn the direction of text.
func steers(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x61c || r == 0x200e || r == 0x200f ||
		r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff
}

// safe keeps what came off the network, or out of a file, from steering the
// terminal.
func safe(s string) string {
	return strings.Map(func(r rune) rune {
		if steers(r) {
			return '?'
		}
		return r
	}, s)
}

// safeLines is safe for text of several lines, in which tabs indent.
func safeLines(s string) string {
	return strings.Map(func(r rune) rune {
		if steers(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, s)
}

// cleaned returns a copy of v in which every string is safe, so that no printer
// has to remember which of them came off the network.
func cleaned[T any](v T) T {
	clean(reflect.ValueOf(&v).Elem())
	return v
}

func clean(v reflect.Value) {
	if !v.CanSet() {
		return // inside a type that prints itself, as addresses and times do
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(safe(v.String()))
	case reflect.Struct:
		for _, f := range v.Fields() {
			clean(f)
		}
	case reflect.Slice:
		own := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(own, v)
		for i := range own.Len() {
			clean(own.Index(i))
		}
		v.Set(own)
	case reflect.Pointer:
		if !v.IsNil() {
			own := reflect.New(v.Type().Elem())
			own.Elem().Set(v.Elem())
			clean(own.Elem())
			v.Set(own)
		}
	}
}

// show prints data, as JSON or by text.
func show[T any](a *app, v T, text func(T)) error {
	if a.json {
		return a.out.json(v)
	}
	text(cleaned(v))
	return nil
}

// json prints v. What a terminal would act on is escaped, which reads back as
// the same text.
func (p printer) json(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	var out strings.Builder
	for _, r := range string(b) {
		if steers(r) && r != '\n' {
			fmt.Fprintf(&out, `\u%04x`, r)
		} else {
			out.WriteRune(r)
		}
	}
	_, err = fmt.Fprintln(p.w, out.String())
	return err
}
