package list_test

import (
	"bytes"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"testing"

	"smartdns/geo/list"
)

func TestNames(t *testing.T) {
	runParser(t, list.Names, "padding.cn", []parserTest{
		{"plain", "example.com", []string{"1 suffix example.com."}},
		{"case and last dot", "WWW.Example.COM.", []string{"1 suffix www.example.com."}},
		{"leading dot", ".example.com", []string{"1 suffix example.com."}},
		{"wildcards", "*.example.com\n+.example.com\ndomain:*.a.com", []string{"1 suffix example.com.", "2 suffix example.com.", "3 suffix a.com."}},
		{"white space", " \texample.com\t ", []string{"1 suffix example.com."}},
		{"CRLF and blank lines", "\r\na.com\r\n\r\nb.com\r\n", []string{"2 suffix a.com.", "4 suffix b.com."}},
		{"byte order mark", "\ufeffa.com\nb.com", []string{"1 suffix a.com.", "2 suffix b.com."}},
		{"byte order mark and comment", "\ufeff# x\nb.com", []string{"2 suffix b.com."}},
		{"comments", "# a\n; b\n! c\na.com # d\nb.com ; e", []string{"4 suffix a.com.", "5 suffix b.com."}},
		{"underscore", "_dns.example.com", []string{"1 suffix _dns.example.com."}},
		{"international name", "例子.中国\nXN--FSQU00A.XN--FIQS8S", []string{"1 suffix xn--fsqu00a.xn--fiqs8s.", "2 suffix xn--fsqu00a.xn--fiqs8s."}},
		{"international name in upper case", "BÜCHER.example", []string{"1 suffix xn--bcher-kva.example."}},
		{"international top-level domain", "中国\n公司", []string{"1 suffix xn--fiqs8s.", "2 suffix xn--55qx5d."}},
		{"top-level domains", "cn\ncom\ntop\nxn--io0a7i\n.", []string{"1 suffix cn.", "2 dropped", "3 dropped", "4 suffix xn--io0a7i.", "5 dropped"}},
		{"full name of one label", "full:localhost", []string{"1 full localhost."}},
		{"v2fly", "domain:a.com\nfull:www.a.com\nkeyword:Ads\nregexp:^ad[0-9]+\\.a\\.com$", []string{
			"1 suffix a.com.", "2 full www.a.com.", "3 keyword ads", "4 regexp ^ad[0-9]+\\.a\\.com$",
		}},
		{"v2fly attributes", "a.com @cn\ndomain:b.com:@cn,@ads\nfull:c.com @cn @!ads # d\nregexp:^x:@cn\nd.com &other", []string{
			"1 suffix a.com.", "2 suffix b.com.", "3 full c.com.", "4 regexp ^x", "5 suffix d.com.",
		}},
		{"dnsmasq", "server=/a.com/114.114.114.114\nserver=/b.com/c.com/1.2.3.4#53 # d\nserver=/d.com/\nlocal=/e.com/\naddress=/f.com/0.0.0.0\nipset=/g.com/set", []string{
			"1 suffix a.com.", "2 suffix b.com.", "2 suffix c.com.", "3 suffix d.com.", "4 suffix e.com.", "5 suffix f.com.", "6 suffix g.com.",
		}},
		{"dnsmasq, switched off", "#server=/a.com/1.2.3.4\nserver=/cn/top/1.2.3.4", []string{"2 suffix cn.", "2 dropped"}},
		{"dnsmasq, one name bad", "server=/a.com/b c/1.2.3.4", []string{"1 suffix a.com.", "1 bad"}},
		{"mixed", "server=/a.com/1.2.3.4\ndomain:b.com\nc.com", []string{"1 suffix a.com.", "2 suffix b.com.", "3 suffix c.com."}},
		{"bad dnsmasq", "server=/a.com", []string{"1 bad"}},
		{"dnsmasq for all names", "server=/#/1.2.3.4", []string{"1 dropped"}},
		{"dnsmasq without a name", "server=1.2.3.4", []string{"1 bad"}},
		{"not UTF-8", "b\xfccher.de", []string{"1 bad"}},
		{"label too long", strings.Repeat("a", 64) + ".com", []string{"1 bad"}},
		{"name too long", strings.Repeat("abcdefg.", 32) + "com", []string{"1 bad"}},
	})
}

func TestBadNames(t *testing.T) {
	for _, text := range []string{
		"a..com", "a b", "http://a.com/", "||a.com^", "1.2.3.4", "2001:db8::1", "keyword:", "keyword:a/b",
		"regexp:", "regexp:(", "a=b", "=", ":", "full:", "domain:", "..",
	} {
		got, err := collect(list.Names(strings.NewReader(text + "\n" + padding("a.cn"))))
		if err != nil || got[0] != "1 bad" || len(got) != 201 {
			t.Errorf("%q: got %q, %v", text, got[0], err)
		}
	}
}

// TestRealNames counts what the lists that people use hold.
func TestRealNames(t *testing.T) {
	for name, want := range map[string]list.Tally{
		"domains/accelerated-domains.china.conf.gz": {Used: 110_769 - 2, Dropped: 2},
		"domains/apple.china.conf":                  {Used: 164},
		"domains/google.china.conf":                 {Used: 112},
		"domains/v2fly-cn.txt":                      {Used: 6449 + 3, Dropped: 44}, // brands such as "alibaba"
		"own/cn-domains-core.txt":                   {Used: 551},
		"toplists/opendns-top-domains.txt":          {Used: 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			var got list.Tally
			for _, err := range got.Watch(list.Names(bytes.NewReader(sharedData(t, name)))) {
				if err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%d used, %d dropped, %d bad; the first: %v", got.Used, got.Dropped, got.Bad, got.First)
			if got.First = nil; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func FuzzNames(f *testing.F) {
	f.Add("server=/a.com/b.com/114.114.114.114\n#server=/c.com/1.1.1.1\n")
	f.Add("domain:a.com:@cn\nfull:b.com @ads\nkeyword:k\nregexp:^x$\n")
	f.Add("\ufeff例子.中国\r\n.a.b\r\ntop\n; x\n! y\n")
	f.Add("<html>")
	f.Fuzz(func(t *testing.T, text string) { checkLines(t, text, list.Names(strings.NewReader(text))) })
}

// checkLines checks what holds for the lines of every list of names, whatever
// is in it: numbers that grow and are in the file, names that read back,
// expressions that compile, a reason for what is left out.
func checkLines(t *testing.T, text string, lines iter.Seq2[list.Line, error]) {
	t.Helper()
	last := 0
	for l, err := range lines {
		if err != nil {
			return
		}
		if l.Number < last || l.Number < 1 || l.Number > strings.Count(text, "\n")+1 {
			t.Fatalf("line %d after line %d", l.Number, last)
		}
		last = l.Number
		checkLine(t, l)
	}
}

func checkLine(t *testing.T, l list.Line) {
	t.Helper()
	switch l.Kind {
	case list.Suffix, list.Full, list.ExceptSuffix, list.ExceptFull:
		if again, err := collect(list.Names(strings.NewReader("full:" + string(l.Name)))); err != nil || len(again) != 1 || again[0] != "1 full "+string(l.Name) {
			t.Fatalf("%q does not read back: %q, %v", l.Name, again, err)
		}
	case list.Regexp:
		regexp.MustCompile(l.Text)
	case list.Keyword:
		if l.Text == "" || l.Text != strings.ToLower(l.Text) {
			t.Fatalf("keyword %q", l.Text)
		}
	case list.Prefix, list.ExceptPrefix:
		if p := l.Prefix; !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Bits() == 0 {
			t.Fatalf("prefix %v", p)
		}
	default:
		if l.Err == nil || l.Err.Error() == "" {
			t.Fatalf("line %d: no reason", l.Number)
		}
	}
}

func BenchmarkNames(b *testing.B) {
	data := sharedData(b, "domains/accelerated-domains.china.conf.gz")
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range list.Names(bytes.NewReader(data)) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// Reading a list costs no allocation per line.
func TestNamesDoNotAllocate(t *testing.T) {
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "server=/n%d.example.com/114.114.114.114\n", i)
	}
	allocs := testing.AllocsPerRun(3, func() {
		n := 0
		for l, err := range list.Names(strings.NewReader(text.String())) {
			if err != nil || l.Kind != list.Suffix {
				t.Fatal(l, err)
			}
			n++
		}
		if n != 10_000 {
			t.Fatalf("%d names", n)
		}
	})
	if allocs > 100 {
		t.Errorf("%.0f allocations for 10,000 lines", allocs)
	}
}

// Names stay as they were when later ones are read.
func TestNamesOfOneListDoNotTouchEachOther(t *testing.T) {
	var text strings.Builder
	for i := range 5_000 {
		fmt.Fprintf(&text, "name-%d.example.com\n", i)
	}
	var all []string
	for l := range list.Names(strings.NewReader(text.String())) {
		all = append(all, string(l.Name))
	}
	for i, name := range all {
		if want := fmt.Sprintf("name-%d.example.com.", i); name != want {
			t.Fatalf("%q, want %q", name, want)
		}
	}
}
