package update

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

var (
	rirHeader   = regexp.MustCompile(`^2(?:\.\d+)?\|[a-z]+\|(\d{8})\|`)                                                 // of a delegated file
	dateComment = regexp.MustCompile(`(?i)^[#!;]\s*(?:last[ -](?:modified|updated)|updated?(?: at)?|date)\s*:\s*(.+)$`) // of a text list
)

// madeIn returns when a file says that it was made: in the header of a regional
// registry, in a comment at its start, or in the metadata of a MaxMind database;
// zero when it does not say.
func madeIn(path string) time.Time {
	f, err := os.Open(path)
	if err != nil {
		return time.Time{}
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 8<<10))
	for n := 0; n < 20 && lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if m := rirHeader.FindStringSubmatch(line); m != nil {
			return parsed(m[1], "20060102")
		}
		if m := dateComment.FindStringSubmatch(line); m != nil {
			made := parsed(m[1], time.RFC1123Z, time.RFC1123, time.RFC3339, time.UnixDate, time.DateTime, "2006-01-02 15:04", time.DateOnly)
			if !made.IsZero() {
				return made
			}
		}
	}
	return buildEpoch(f)
}

func parsed(text string, layouts ...string) time.Time {
	for _, layout := range layouts {
		if t, err := time.Parse(layout, strings.TrimSpace(text)); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// buildEpoch returns the build_epoch of a MaxMind database, a uint64 in the
// metadata at its end.
func buildEpoch(f *os.File) time.Time {
	const most = 128 << 10 // of metadata
	info, err := f.Stat()
	if err != nil {
		return time.Time{}
	}
	b := make([]byte, min(info.Size(), most))
	if _, err := f.ReadAt(b, info.Size()-int64(len(b))); err != nil {
		return time.Time{}
	}
	i := bytes.LastIndex(b, []byte("\xab\xcd\xefMaxMind.com"))
	if i < 0 {
		return time.Time{}
	}
	_, value, ok := bytes.Cut(b[i:], []byte("build_epoch"))
	if !ok || len(value) < 2 || value[0] > 8 || value[1] != 2 || len(value) < 2+int(value[0]) {
		return time.Time{}
	}
	var epoch int64
	for _, c := range value[2 : 2+value[0]] {
		epoch = epoch<<8 | int64(c)
	}
	return time.Unix(epoch, 0).UTC()
}

// endsInLine reports whether a file is text whose last line has its end, and
// whether it is text at all.
func endsInLine(path string) (ends, text bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, false, err
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return false, false, err
	}
	head = head[:n]
	for i := 0; i < utf8.UTFMax-1 && len(head) > 0 && !utf8.Valid(head); i++ {
		head = head[:len(head)-1] // a rune that was cut
	}
	if len(head) == 0 || !utf8.Valid(head) || bytes.IndexByte(head, 0) >= 0 {
		return false, false, nil
	}
	last := make([]byte, 1)
	if _, err := f.Seek(-1, io.SeekEnd); err != nil {
		return false, true, err
	}
	_, err = f.Read(last)
	return last[0] == '\n', true, err
}
