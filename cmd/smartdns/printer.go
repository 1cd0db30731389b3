package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/fatih/color"
	"golang.org/x/term"
)

// width is what output is laid out for: a terminal over ssh.
const width = 80

// printer writes aligned rows, in colour where the output is a terminal and
// NO_COLOR is not set.
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
	gap := width - utf8.RuneCountInString(plain(left)) - utf8.RuneCountInString(plain(right))
	if gap >= 2 {
		fmt.Fprintln(p.w, left+strings.Repeat(" ", gap)+right)
		return
	}
	fmt.Fprintln(p.w, left)
	fmt.Fprintln(p.w, strings.Repeat(" ", max(labelWidth+2, width-utf8.RuneCountInString(plain(right))))+right)
}

// labelWidth is the width of a row's label.
const labelWidth = 11

// row prints an indented row: label, text, and right at the right edge.
func (p printer) row(label, text, right string) {
	p.line("  "+p.faint(pad(label, labelWidth))+text, p.faint(right))
}

// pad fills s up with spaces to n columns.
func pad(s string, n int) string {
	if k := utf8.RuneCountInString(plain(s)); k < n {
		return s + strings.Repeat(" ", n-k)
	}
	return s + " "
}

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

// safe keeps what came off the network from steering the terminal.
func safe(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

func (p printer) json(v any) error {
	e := json.NewEncoder(p.w)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}
