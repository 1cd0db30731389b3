package wg

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxFile is far above any wg-quick file: thousands of peers.
const maxFile = 4 << 20

// Error says what is wrong with a wg-quick file, and where.
type Error struct {
	File    string
	Line    int    // from 1; 0 when it is about the whole file
	Section string // "Interface", "Peer" or ""
	Key     string // as wg-quick(8) spells it, or ""
	Text    string // what is wrong and what would be right; holds no secrets
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Section != "" {
		fmt.Fprintf(&b, "[%s] ", e.Section)
	}
	if e.Key != "" {
		fmt.Fprintf(&b, "%s: ", e.Key)
	}
	b.WriteString(e.Text)
	return b.String()
}

// The two kinds of section.
const (
	sectionInterface = "Interface"
	sectionPeer      = "Peer"
)

// parser reads one file, line by line.
type parser struct {
	cfg     Config
	line    int
	section string
	opened  int            // the line of the section's header
	seen    map[string]int // key → line: per section for a peer, per file for the interface
	iface   map[string]int
	errs    []*Error
}

// Parse reads a wg-quick file; name is what messages call it. Every key of
// wg(8) and wg-quick(8) is understood or refused. The error joins an *Error for
// each mistake. No secret is ever part of an error.
func Parse(r io.Reader, name string) (*Config, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	p := &parser{cfg: Config{File: name}, iface: map[string]int{}}
	if text := unreadable(data); text != "" {
		return nil, &Error{File: name, Text: text}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for line := range strings.Lines(string(data)) {
		p.line++
		line, _, _ = strings.Cut(line, "#")
		p.parseLine(strings.TrimSpace(line))
	}
	p.close()
	p.finish()
	if len(p.errs) > 0 {
		return nil, join(p.errs)
	}
	return &p.cfg, nil
}

// join returns all errors, in the order of the file.
func join(all []*Error) error {
	slices.SortStableFunc(all, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	errs := make([]error, len(all))
	for i, e := range all {
		errs[i] = e
	}
	return errors.Join(errs...)
}

// unreadable says why data is no text of ours, or "".
func unreadable(data []byte) string {
	switch {
	case len(data) > maxFile:
		return "too long for a wg-quick file"
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return "is UTF-16; save it as UTF-8"
	case bytes.IndexByte(data, 0) >= 0:
		return "is not a text file"
	}
	return ""
}

func (p *parser) parseLine(line string) {
	if line == "" {
		return
	}
	if line[0] == '[' {
		p.open(line)
		return
	}
	key, value, ok := strings.Cut(line, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	switch {
	case !ok:
		p.fail("", "want KEY = VALUE")
	case p.opened == 0:
		p.fail("", "want [Interface] or [Peer] before the first key")
	case p.section != "": // else the header was refused; one error is enough
		p.set(key, value)
	}
}

// open begins the section of a header line.
func (p *parser) open(header string) {
	p.close()
	p.opened = p.line
	switch strings.ToLower(header) {
	case "[interface]":
		p.section, p.seen = sectionInterface, p.iface
	case "[peer]":
		p.section, p.seen = sectionPeer, map[string]int{}
		p.cfg.Peers = append(p.cfg.Peers, Peer{Line: p.line})
	default:
		p.fail("", "unknown section (want [Interface] or [Peer])")
	}
}

// close checks the section that ends here.
func (p *parser) close() {
	if p.section == sectionPeer && p.seen["publickey"] == 0 {
		p.failAt(p.opened, "", "has no PublicKey")
	}
	p.section = ""
}

func (p *parser) set(name, value string) {
	key, ok := findKey(name)
	if !ok {
		p.fail("", unknownKey(name, p.section))
		return
	}
	if key.section != p.section {
		p.fail(key.name, fmt.Sprintf("belongs in [%s]", key.section))
		return
	}
	lower := strings.ToLower(key.name)
	if first := p.seen[lower]; first != 0 && !key.repeats {
		p.fail(key.name, fmt.Sprintf("is also in line %d", first))
		return
	}
	if p.seen[lower] == 0 {
		p.seen[lower] = p.line
	}
	var err error
	if p.section == sectionPeer {
		err = p.setPeer(&p.cfg.Peers[len(p.cfg.Peers)-1], key.name, value)
	} else {
		err = p.setInterface(key.name, value)
	}
	if err != nil {
		p.fail(key.name, err.Error())
	}
}

func (p *parser) fail(key, text string) { p.failAt(p.line, key, text) }

func (p *parser) failAt(line int, key, text string) {
	p.errs = append(p.errs, &Error{File: p.cfg.File, Line: line, Section: p.section, Key: key, Text: text})
}

func (p *parser) note(line int, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	p.cfg.notes = append(p.cfg.notes, Note{File: p.cfg.File, Line: line, Text: text})
}
