package configs_test

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"smartdns/configs"
)

var update = flag.Bool("update", false, "write testdata anew")

// badCase is one case of testdata/bad.txt.
type badCase struct {
	name, input string
	noNewline   bool // the input does not end in one
	want        string
}

const noNewline = "-- no newline\n"

func readBadCases(t testing.TB) (head string, cases []badCase) {
	t.Helper()
	data, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(data), "== ")
	for _, text := range strings.Split(rest, "\n== ") {
		name, body, _ := strings.Cut(text+"\n", "\n")
		c := badCase{name: name}
		before, after, found := strings.Cut(body, noNewline)
		if found {
			c.input, c.want, c.noNewline = strings.TrimSuffix(before, "\n"), after, true
		} else if c.input, c.want, found = strings.Cut(body, "--\n"); !found {
			t.Fatalf("%s: no line \"--\"", name)
		}
		c.want = strings.TrimSpace(c.want)
		cases = append(cases, c)
	}
	return head, cases
}

func TestParseRefuses(t *testing.T) {
	head, cases := readBadCases(t)
	if len(cases) < 60 {
		t.Errorf("%d cases, want 60", len(cases))
	}
	var out strings.Builder
	out.WriteString(strings.TrimRight(head, "\n") + "\n")
	for _, c := range cases {
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
		if err := os.WriteFile("testdata/bad.txt", []byte(out.String()), 0o644); err != nil {
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
