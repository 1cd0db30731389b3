package list

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Kind is what a list file holds.
type Kind string

// The kinds of list file.
const (
	KindNames    Kind = "names"    // domain rules, for Names
	KindPrefixes Kind = "prefixes" // addresses, for Prefixes
	KindMMDB     Kind = "mmdb"     // a MaxMind database, which is not for this package
)

// headSize is how much of a file Detect looks at.
const headSize = 64 << 10

// enoughLines is how many lines Detect looks at: the first ones of a list may
// be in error, all of them hardly ever.
const enoughLines = 20

// Detect says what r holds by its first lines, and returns a reader that gives
// all of r from the start. A file without any rule in its first 64 KiB is one
// of names. A binary file counts as a MaxMind database: whether it really is
// one shows when it is read.
func Detect(r io.Reader) (Kind, io.Reader, error) {
	in := bufio.NewReaderSize(r, headSize)
	head, err := in.Peek(headSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", nil, fmt.Errorf("reading the first lines: %w", err)
	}
	whole := errors.Is(err, io.EOF)
	if reason := notText(head, 1); reason != "" {
		return "", nil, &FileError{Reason: reason}
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return KindMMDB, in, nil
	}
	return vote(head, whole), in, nil
}

// vote reads the first rules of head both ways. whole says that head ends
// where the file does, so that its last line is not a part of one.
func vote(head []byte, whole bool) Kind {
	named, prefixes := 0, 0
	ignore := func(Line) bool { return true }
	for n := 1; len(head) > 0 && named+prefixes < enoughLines; n++ {
		line, rest, ended := bytes.Cut(head, []byte("\n"))
		head = rest
		if !ended && !whole {
			break
		}
		rule := trim(line, n)
		if len(rule) == 0 || isComment(rule) {
			continue
		}
		if parsePrefix(rule, ignore) == "" {
			prefixes++
		} else if new(names).parse(rule, ignore) == "" {
			named++
		}
	}
	if prefixes > named {
		return KindPrefixes
	}
	return KindNames
}
