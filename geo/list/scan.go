package list

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
)

// The largest file and line that are read. No known list comes near them; what
// does is not a list.
const (
	MaxSize  = 32 << 20 // octets, unpacked
	MaxLines = 2_000_000
	maxLine  = 64 << 10
)

// minValid is how many of 100 lines have to be valid: a file with more bad
// ones is something else, for instance a page that says the mirror has moved.
const minValid = 98

var (
	bom     = []byte("\xef\xbb\xbf")
	utf16LE = []byte("\xff\xfe")
	utf16BE = []byte("\xfe\xff")
)

// A parse reads the rule of one line, which is neither empty nor a comment,
// and passes what it says to emit. It returns the reason when the line is bad.
type parse func(rule []byte, emit func(Line) bool) (reason string)

// scan runs p over the lines of r.
func scan(r io.Reader, p parse) iter.Seq2[Line, error] { return scanIndented(r, p, false) }

// scanIndented is scan, for a p that wants to see the white space that lines
// start with.
func scanIndented(r io.Reader, p parse, indented bool) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		in := bufio.NewReaderSize(io.LimitReader(r, MaxSize+1), maxLine)
		out := output{yield: yield}
		size := 0
		emit := out.emit
		for !out.stopped {
			raw, err := in.ReadSlice('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				yield(Line{}, readError(out.number+1, err))
				return
			}
			if len(raw) == 0 {
				break
			}
			out.number++
			size += len(raw)
			if refused := refuse(raw, out.number, size, out.valid+out.bad == 0); refused != nil {
				yield(Line{}, refused)
				return
			}
			rule := trim(raw, out.number)
			if len(rule) == 0 || isComment(rule) {
				continue
			}
			if indented && (raw[0] == ' ' || raw[0] == '\t') {
				rule = bytes.TrimRight(raw, "\r\n\t ")
			}
			out.judge(rule, p(rule, emit))
		}
		out.end()
	}
}

// output passes lines on, and counts how many are valid.
type output struct {
	yield      func(Line, error) bool
	number     int // of the current line
	valid, bad int
	firstBad   error
	stopped    bool
}

// emit passes on what the current line says, and reports whether anybody wants
// to read on.
func (o *output) emit(l Line) bool {
	l.Number = o.number
	if e, ok := l.Err.(*LineError); ok {
		e.Number = o.number
	}
	o.stopped = o.stopped || !o.yield(l, nil)
	return !o.stopped
}

// judge counts the current line, which is bad when there is a reason.
func (o *output) judge(rule []byte, reason string) {
	if reason == "" {
		o.valid++
		return
	}
	o.bad++
	e := &LineError{Text: clip(rule), Reason: reason}
	if o.firstBad == nil {
		o.firstBad = e
	}
	o.emit(Line{Kind: Bad, Err: e})
}

// end refuses the file as a whole if too much of it was bad.
func (o *output) end() {
	if total := o.valid + o.bad; !o.stopped && o.bad*100 > total*(100-minValid) {
		o.yield(Line{}, &FileError{
			Reason: fmt.Sprintf("%d of %d lines are bad, at least %d %% have to be good", o.bad, total, minValid),
			First:  o.firstBad,
		})
	}
}

// refuse returns why the file cannot be a list, as line n of it shows, or nil.
func refuse(raw []byte, n, size int, first bool) error {
	switch {
	case size > MaxSize:
		return &FileError{Number: n, Reason: fmt.Sprintf("the file is larger than %d MiB", MaxSize>>20)}
	case n > MaxLines:
		return &FileError{Number: n, Reason: fmt.Sprintf("the file has more than %d lines", MaxLines)}
	case bytes.IndexByte(raw, 0) >= 0:
		return &FileError{Number: n, Reason: "has a NUL: a binary file, not a list"}
	}
	if first {
		if reason := notText(raw, n); reason != "" {
			return &FileError{Number: n, Reason: reason}
		}
	}
	return nil
}

// notText says what a file is that starts like b and is no list; "" when it
// may be one.
func notText(b []byte, n int) string {
	switch rule := trim(b, n); {
	case n == 1 && (bytes.HasPrefix(b, utf16LE) || bytes.HasPrefix(b, utf16BE)):
		return "is UTF-16: save it as UTF-8"
	case n == 1 && packingOf(b) != NotPacked:
		return "is compressed with " + string(packingOf(b)) + ", twice"
	case bytes.HasPrefix(rule, []byte("<")):
		return "is an HTML page, not a list"
	}
	return ""
}

func readError(n int, err error) error {
	if errors.Is(err, bufio.ErrBufferFull) {
		return &FileError{Number: n, Reason: fmt.Sprintf("is longer than %d KiB: not a list", maxLine>>10)}
	}
	if _, ok := errors.AsType[*FileError](err); ok {
		return err
	}
	return fmt.Errorf("reading line %d: %w", n, err)
}

// trim returns line n without white space around it, and the first one without
// a byte order mark.
func trim(raw []byte, n int) []byte {
	if n == 1 {
		raw = bytes.TrimPrefix(raw, bom)
	}
	return bytes.TrimSpace(raw)
}

func isComment(rule []byte) bool {
	return rule[0] == '#' || rule[0] == ';' || rule[0] == '!'
}

// cutComment returns the rule before a comment at the end of a line. A '#'
// needs white space before it: dnsmasq writes ports as 1.2.3.4#53.
func cutComment(rule []byte) []byte {
	if bytes.IndexByte(rule, '#') < 0 && bytes.IndexByte(rule, ';') < 0 {
		return rule
	}
	for i := 1; i < len(rule); i++ {
		if (rule[i] == '#' || rule[i] == ';') && (rule[i-1] == ' ' || rule[i-1] == '\t') {
			return bytes.TrimRight(rule[:i], " \t")
		}
	}
	return rule
}

func clip(rule []byte) string {
	const most = 80
	if len(rule) > most {
		return string(rule[:most]) + "…"
	}
	return string(rule)
}
