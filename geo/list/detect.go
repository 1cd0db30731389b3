package list

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// headSize is how much of a file Detect looks at.
const headSize = 64 << 10

// enoughLines is how many rules Detect looks at: the first ones of a list may
// be in error, or of another kind than most, all of them hardly ever.
const enoughLines = 200

// Detect says how r is written by its first lines, and returns a reader that
// gives all of r from the start. A file without any rule in its first 64 KiB is
// one of domains. A binary file counts as a MaxMind database: whether it really
// is one shows when it is read.
func Detect(r io.Reader) (Format, io.Reader, error) {
	in := bufio.NewReaderSize(r, headSize)
	head, err := in.Peek(headSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", nil, fmt.Errorf("reading the first lines: %w", err)
	}
	whole := errors.Is(err, io.EOF)
	if reason := notText(head, 1); reason != "" {
		return "", nil, &FileError{Reason: reason}
	}
	if f := datFormat(head); f != "" {
		return f, in, nil
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return FormatMMDB, in, nil
	}
	if start := bytes.TrimSpace(bytes.TrimPrefix(head, bom)); isBase64(start) || bytes.HasPrefix(start, autoProxy) {
		return FormatGFWList, in, nil
	}
	return vote(head, whole), in, nil
}

// vote reads the first rules of head in every way. whole says that head ends
// where the file does, so that its last line is not a part of one.
func vote(head []byte, whole bool) Format {
	votes := map[Format]int{}
	for n, seen := 1, 0; len(head) > 0 && seen < enoughLines; n++ {
		line, rest, ended := bytes.Cut(head, []byte("\n"))
		head = rest
		if !ended && !whole {
			break
		}
		rule := trim(line, n)
		if len(rule) == 0 || isComment(rule) {
			continue
		}
		if f := formatOf(rule); f != "" {
			votes[f]++
			seen++
		}
	}
	if votes[FormatDnsmasq] > 0 && votes[FormatDomains] > 0 {
		votes[FormatDomains] += votes[FormatDnsmasq] // which Names reads, too
	}
	best := FormatDomains
	for _, f := range []Format{FormatDnsmasq, FormatHosts, FormatAdblock, FormatRPZ, FormatCIDR, FormatAPNIC} {
		if votes[f] > votes[best] {
			best = f
		}
	}
	return best
}

// isAdblock reports whether a rule is one of those that only ad blockers have.
func isAdblock(rule []byte) bool {
	for _, start := range []string{"||", "@@", "|http", "[Adblock", "/^"} {
		if bytes.HasPrefix(rule, []byte(start)) {
			return true
		}
	}
	return isCosmetic(rule) || rule[len(rule)-1] == '^'
}

// formatOf returns the format that one rule is written in, or "".
func formatOf(rule []byte) Format {
	said := false
	ignore := func(Line) bool { said = true; return true }
	switch {
	case isZoneLine(rule):
		return FormatRPZ
	case parsePrefix(rule, ignore) == "" && said:
		return FormatCIDR
	case bytes.Count(rule, []byte("|")) >= 5 && (delegated{}).parse(rule, ignore) == "":
		return FormatAPNIC
	case bytes.Contains(rule, []byte("=/")) && new(names).parseDnsmasq(rule, ignore) == "":
		return FormatDnsmasq
	case new(names).parseHosts(rule, ignore) == "":
		return FormatHosts
	case new(names).parse(rule, ignore) == "":
		return FormatDomains
	case isAdblock(rule):
		return FormatAdblock
	}
	return ""
}
