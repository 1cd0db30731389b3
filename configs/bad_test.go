package configs_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"smartdns/configs"
)

var update = flag.Bool("update", false, "write testdata anew")

// badCase is one case of a file in testdata/bad, where every table has its own.
type badCase struct {
	name, input string
	noNewline   bool // the input does not end in one
	want        string
}

const noNewline = "-- no newline\n"

// badFile is a file of testdata/bad.
type badFile struct {
	path, head string
	cases      []badCase
}

func readBadFiles(t testing.TB) []badFile {
	t.Helper()
	paths, err := filepath.Glob("testdata/bad/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var files []badFile
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, _ := strings.Cut(string(data), "== ")
		f := badFile{path: path, head: head}
		for _, text := range strings.Split(rest, "\n== ") {
			name, body, _ := strings.Cut(text+"\n", "\n")
			c := badCase{name: name}
			before, after, found := strings.Cut(body, noNewline)
			if found {
				c.input, c.want, c.noNewline = strings.TrimSuffix(before, "\n"), after, true
			} else if c.input, c.want, found = strings.Cut(body, "--\n"); !found {
				t.Fatalf("%s: %s: no line \"--\"", path, name)
			}
			c.want = strings.TrimSpace(c.want)
			f.cases = append(f.cases, c)
		}
		files = append(files, f)
	}
	return files
}

func TestParseRefuses(t *testing.T) {
	n := 0
	for _, f := range readBadFiles(t) {
		n += len(f.cases)
		t.Run(strings.TrimSuffix(filepath.Base(f.path), ".txt"), f.test)
	}
	if n < 130 {
		t.Errorf("%d cases: testdata/bad is not seen", n)
	}
}

func (f badFile) test(t *testing.T) {
	var out strings.Builder
	out.WriteString(strings.TrimRight(f.head, "\n") + "\n")
	for _, c := range f.cases {
		got := ""
		t.Run(c.name, func(t *testing.T) {
			cfg, err := configs.Parse(strings.NewReader(c.input), "/etc/smartdns/smartdns.toml")
			if err == nil || cfg != nil {
				t.Fatalf("Parse = %v, %v, want an error and no Config", cfg, err)
			}
			got = err.Error()
			if diff := cmp.Diff(c.want, got); diff != "" && !*update {
				t.Errorf("(-want +got)\n%s", diff)
			}
			checkErrorForm(t, err)
		})
		end := "--\n"
		if c.noNewline {
			end = "\n" + noNewline
		}
		out.WriteString("\n== " + c.name + "\n" + c.input + end + got + "\n")
	}
	if *update {
		if err := os.WriteFile(f.path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// checkErrorForm checks what holds for every error of Parse: each has a place
// and is one line that a terminal and a log can take.
func checkErrorForm(t *testing.T, err error) {
	t.Helper()
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if !strings.HasPrefix(line, "smartdns.toml:") {
			t.Errorf("%q does not begin with its file", line)
		}
		if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q is not printable", line)
		}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T does not join errors", err)
	}
	last := 1
	for i, e := range joined.Unwrap() {
		located, ok := errors.AsType[*configs.Error](e)
		if !ok && i == 20 {
			break // and 5 more
		}
		if !ok {
			t.Fatalf("%q has no place", e)
		}
		if located.Pos.Line < last {
			t.Errorf("%q comes after line %d", e, last)
		}
		last = located.Pos.Line
	}
}
