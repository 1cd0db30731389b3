package list_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smartdns/geo/list"
)

// sharedData opens a file of the collected test data, unpacked, and skips the
// test where there is none.
func sharedData(t testing.TB, name string) []byte {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir = filepath.Dir(dir); dir == "/" {
			t.Fatal("no go.mod above the test's directory")
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "..", "shared", "data", filepath.FromSlash(name)))
	if err != nil {
		t.Skipf("SKIPPED: no shared test data: %v", err)
	}
	if !strings.HasSuffix(name, ".gz") {
		return data
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return data
}

// show returns a line as the tests below write it.
func show(l list.Line) string {
	s := fmt.Sprintf("%d ", l.Number)
	switch l.Kind {
	case list.Suffix:
		return s + "suffix " + string(l.Name)
	case list.Full:
		return s + "full " + string(l.Name)
	case list.Keyword:
		return s + "keyword " + l.Text
	case list.Regexp:
		return s + "regexp " + l.Text
	case list.Prefix:
		return s + l.Prefix.String()
	case list.ExceptSuffix:
		return s + "not suffix " + string(l.Name)
	case list.ExceptFull:
		return s + "not full " + string(l.Name)
	case list.ExceptPrefix:
		return s + "not " + l.Prefix.String()
	case list.Dropped:
		return s + "dropped"
	}
	return s + "bad"
}

// collect returns the lines in the tests' form, and the error that ended them.
func collect(lines iter.Seq2[list.Line, error]) (out []string, err error) {
	for l, err := range lines {
		if err != nil {
			return out, err
		}
		out = append(out, show(l))
	}
	return out, nil
}

// padding is enough good lines that a few bad ones do not matter.
func padding(line string) string { return strings.Repeat(line+"\n", 200) }

type parserTest struct {
	name string
	text string
	want []string
}

// runParser parses each text, after many good lines so that single bad ones do
// not refuse it.
func runParser(t *testing.T, parse func(io.Reader) iter.Seq2[list.Line, error], good string, tests []parserTest) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := collect(parse(strings.NewReader(test.text + "\n" + padding(good))))
			if err != nil {
				t.Fatal(err)
			}
			if len(got) < 200 {
				t.Fatalf("got only %d lines", len(got))
			}
			if got = got[:len(got)-200]; !slices.Equal(got, test.want) {
				t.Errorf("%q\n got %q\nwant %q", test.text, got, test.want)
			}
		})
	}
}

func TestBadLineSaysWhatWouldBeRight(t *testing.T) {
	for _, test := range []struct {
		parse func(io.Reader) iter.Seq2[list.Line, error]
		good  string
		text  string
		want  string
	}{
		{list.Names, "a.cn", "a.com b.com", `line 2: "a.com b.com": more than one word: write one rule on each line`},
		{list.Names, "a.cn", "domian:a.com", `line 2: "domian:a.com": unknown kind of rule: write "domain:", "full:", "keyword:" or "regexp:" before the colon`},
		{list.Names, "a.cn", "top", `line 2: "top": a whole top-level domain: name what is meant below it, or write the rule in smartdns.toml`},
		{list.Names, "a.cn", "1.2.3.4", `line 2: "1.2.3.4": an address or a number, not a name: lists of addresses are of their own`},
		{list.Names, "a.cn", "例.１２", `line 2: "例.１２": an address or a number, not a name: lists of addresses are of their own`},
		{list.Prefixes, "1.1.1.1", "1.2.3.4/24", `line 2: "1.2.3.4/24": bits are set beyond the prefix length: write 1.2.3.0/24, or 1.2.3.4 alone`},
		{list.Prefixes, "1.1.1.1", "1.2.3.0/33", `line 2: "1.2.3.0/33": prefix length "33": write a number from 0 to 32`},
		{list.Prefixes, "1.1.1.1", "example.com", `line 2: "example.com": not an address: write 203.0.113.0/24, 203.0.113.7 or 203.0.113.1-203.0.113.9`},
		{list.Prefixes, "1.1.1.1", "1.2.3.9-1.2.3.1", `line 2: "1.2.3.9-1.2.3.1": not a range: write the lower address first, and both of one family`},
	} {
		var tally list.Tally
		text := test.good + "\n" + test.text + "\n" + padding(test.good)
		for _, err := range tally.Watch(test.parse(strings.NewReader(text))) {
			if err != nil {
				t.Fatal(err)
			}
		}
		if tally.First == nil || tally.First.Error() != test.want {
			t.Errorf("%q\n got %v\nwant %v", test.text, tally.First, test.want)
		}
		if tally.Used != 201 || tally.Bad+tally.Dropped != 1 {
			t.Errorf("%q: tally %+v", test.text, tally)
		}
	}
}

func TestRefusedFiles(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"HTML page":       {"\r\n<!DOCTYPE html>\n<html>\n", "line 2: is an HTML page"},
		"JSON":            {"{\"message\": \"rate limit exceeded\"}\n", "1 of 1 lines are bad"},
		"NUL":             {"a.com\nb\x00.com\n", "line 2: has a NUL"},
		"UTF-16":          {"\xff\xfea\x00.\x00", "line 1: "},
		"gzip":            {"\x1f\x8b\x08rest", "line 1: is compressed with gzip, twice"},
		"too many bad":    {strings.Repeat("a.com\n", 97) + "b c\n\nd e\n%\n", "3 of 100 lines are bad, at least 98 % have to be good; the first: line 98: \"b c\""},
		"a long line":     {"a.com\n" + strings.Repeat("x", 1<<20), "line 2: is longer than 64 KiB"},
		"all one comment": {"#" + strings.Repeat("x", 1<<20), "line 1: is longer than 64 KiB"},
	} {
		_, err := collect(list.Names(strings.NewReader(test.text)))
		if _, ok := errors.AsType[*list.FileError](err); !ok || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

func TestTwoBadLinesOfAHundredAreBorne(t *testing.T) {
	got, err := collect(list.Names(strings.NewReader(strings.Repeat("a.com\n", 98) + "b c\nd e\n")))
	if err != nil || len(got) != 100 {
		t.Errorf("%d lines, error %v", len(got), err)
	}
}

// endless is a file of one line that never ends.
type endless struct {
	line string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.line[e.at]
		e.at = (e.at + 1) % len(e.line)
	}
	return len(p), nil
}

func TestEndlessFileIsRefused(t *testing.T) {
	for name, test := range map[string]struct{ line, want string }{
		"lines":  {"a.cn\n", "more than 2000000 lines"},
		"bytes":  {"# " + strings.Repeat("x", 1000) + "\n", "larger than 32 MiB"},
		"blanks": {"\n", "more than 2000000 lines"},
	} {
		var last error
		for _, last = range list.Names(&endless{line: test.line}) {
		}
		if last == nil || !strings.Contains(last.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, last, test.want)
		}
	}
}

type brokenReader struct{ io.Reader }

var errBroken = errors.New("disk on fire")

func (r brokenReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errBroken
	}
	return n, err
}

func TestReadErrorEndsTheLines(t *testing.T) {
	got, err := collect(list.Names(brokenReader{strings.NewReader("a.com\nb.com")}))
	if !errors.Is(err, errBroken) || !slices.Equal(got, []string{"1 suffix a.com."}) {
		t.Errorf("got %q, %v: want the whole lines and the reader's error", got, err)
	}
}

func TestIterationCanStop(t *testing.T) {
	for l, err := range list.Names(strings.NewReader("server=/a.com/b.com/c.com/1.1.1.1\nd.com\n")) {
		if err != nil || l.Name != "a.com." {
			t.Fatalf("got %v, %v", l, err)
		}
		break
	}
}

func TestDetect(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want list.Format
	}{
		"names":               {"# list\nexample.com\n", list.FormatDomains},
		"dnsmasq":             {"server=/a.com/114.114.114.114\n", list.FormatDnsmasq},
		"dnsmasq and plain":   {"server=/a.com/1.1.1.1\nserver=/b.com/1.1.1.1\nc.com\n", list.FormatDomains},
		"hosts":               {"127.0.0.1 localhost\n0.0.0.0 a.com\n", list.FormatHosts},
		"a registry's":        {"2|apnic|20260214|8|19830613|20260213|+1000\napnic|*|ipv4|*|5|summary\napnic|CN|ipv4|1.0.1.0|256|20110414|allocated\n", list.FormatAPNIC},
		"v2fly":               {"domain:a.com\nregexp:^1\\.2\\.3\\.4$\n", list.FormatDomains},
		"prefixes":            {"\ufeff# list\r\n1.2.3.0/24\r\n", list.FormatCIDR},
		"one address":         {"2001:db8::1", list.FormatCIDR},
		"bogus-nxdomain":      {"## Public DNS\nbogus-nxdomain=1.2.3.4\n", list.FormatCIDR},
		"mostly prefixes":     {"# x\nsomething.wrong\n1.2.3.0/24\n1.2.4.0/24\n", list.FormatCIDR},
		"comments":            {"# nothing yet\n", list.FormatDomains},
		"nothing":             {"", list.FormatDomains},
		"a cut line at 64 KB": {strings.Repeat("#"+strings.Repeat("x", 1023)+"\n", 63) + strings.Repeat("1.2.3.4\n", 200), list.FormatCIDR},
		"binary":              {"\x00\x00\x01\x00\x00\x02", list.FormatMMDB},
	} {
		kind, r, err := list.Detect(strings.NewReader(test.text))
		if err != nil || kind != test.want {
			t.Errorf("%s: got %q, %v, want %q", name, kind, err, test.want)
			continue
		}
		if all, err := io.ReadAll(r); err != nil || string(all) != test.text {
			t.Errorf("%s: the reader lost something: %v", name, err)
		}
	}
	for name, text := range map[string]string{"HTML": "<html>", "UTF-16": "\xfe\xff\x00a", "gzip": "\x1f\x8b\x08"} {
		if kind, _, err := list.Detect(strings.NewReader(text)); err == nil {
			t.Errorf("%s: got %q, want an error", name, kind)
		}
	}
	if _, _, err := list.Detect(brokenReader{strings.NewReader("a.com\n")}); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

func TestDetectRealFiles(t *testing.T) {
	for name, want := range map[string]list.Format{
		"domains/accelerated-domains.china.conf.gz": list.FormatDnsmasq,
		"domains/apple.china.conf":                  list.FormatDnsmasq,
		"apnic/delegated-apnic-20260213.txt.gz":     list.FormatAPNIC,
		"domains/v2fly-cn.txt":                      list.FormatDomains,
		"domains/v2fly-geolocation-notcn.txt":       list.FormatDomains,
		"domains/bogus-nxdomain.china.conf":         list.FormatCIDR,
		"cnip/gaoyifan-china4.txt":                  list.FormatCIDR,
		"cnip/gaoyifan-china6.txt":                  list.FormatCIDR,
		"mmdb/GeoLite2-Country-Test.mmdb":           list.FormatMMDB,
		"mmdb/MaxMind-DB-test-mixed-32.mmdb":        list.FormatMMDB,
		"own/cn-GeoLite2-Country-schema.mmdb":       list.FormatMMDB,
		"own/cn-flat-country_code-schema.mmdb":      list.FormatMMDB,
		"own/cn-domains-core.txt":                   list.FormatDomains,
		"own/cn6.txt":                               list.FormatCIDR,
		"toplists/opendns-top-domains.txt":          list.FormatDomains,
	} {
		if kind, _, err := list.Detect(bytes.NewReader(sharedData(t, name))); err != nil || kind != want {
			t.Errorf("%s: got %q, %v, want %q", name, kind, err, want)
		}
	}
}
