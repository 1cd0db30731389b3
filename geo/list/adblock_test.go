package list_test

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
	"testing"

	"smartdns/geo/list"
)

func TestAdblock(t *testing.T) {
	runParser(t, list.Adblock, "||padding.cn^", []parserTest{
		{"names", "||a.com^\n|www.b.com^\nc.com\n.d.com^\n://e.com^\n||f.com\n||g.com^|\n|https://h.com/\n||i.com:8080^", []string{
			"1 suffix a.com.", "2 full www.b.com.", "3 full c.com.", "4 suffix d.com.", "5 full e.com.", "6 suffix f.com.", "7 suffix g.com.", "8 full h.com.", "9 suffix i.com.",
		}},
		{"hosts", "0.0.0.0 a.com b.com # c\n127.0.0.1 localhost", []string{"1 full a.com.", "1 full b.com.", "2 dropped"}},
		{"exceptions", "@@||a.com^\n@@|b.com^\n@@c.com\n@@||d.com^$important", []string{"1 not suffix a.com.", "2 not full b.com.", "3 not full c.com.", "4 not suffix d.com."}},
		{"rules taken back", "||a.com^$badfilter\n@@||b.com^$badfilter", []string{"1 not suffix a.com.", "2 suffix b.com."}},
		{"wildcards", "||*.a.com^\n||ad*.b.com^\n|x*.c.com^\n@@||d*.com^\n||*^\n||*.*^", []string{
			"1 suffix a.com.", `2 regexp (^|\.)ad.*\.b\.com$`, `3 regexp ^x.*\.c\.com$`, "4 dropped", "5 dropped", "6 dropped",
		}},
		{"expressions", `/^ads?[0-9]+\./` + "\n" + `/^https?:\/\/([^\/]+\.)*a\.(com|net)\/.*/` + "\n/banner/img/\n/(?=x)y/\n@@/^a/\n/^b\\.com$/$important", []string{
			`1 regexp ^ads?[0-9]+\.`, `2 regexp ^(?:([^\/]+\.)*a\.(com|net))$`, "3 dropped", "4 dropped", "5 dropped", `6 regexp ^b\.com$`,
		}},
		{"modifiers that change nothing", "||a.com^$important\n||b.com^$document,important\n||c.com^$all", []string{"1 suffix a.com.", "2 suffix b.com.", "3 suffix c.com."}},
		{"not about a whole name", "||a.com^$third-party\n||b.com^$script,domain=c.com\n||d.com^$dnstype=AAAA\n||e.com^$denyallow=f.com\n||g.com/ads\n|http://h.com/x|\n-banner-\n/ads/*\n&ad=\n_ad.", []string{
			"1 dropped", "2 dropped", "3 dropped", "4 dropped", "5 dropped", "6 dropped", "7 dropped", "8 dropped", "9 dropped", "10 dropped",
		}},
		{"about pages", "a.com##.ad\na.com#@#.ad\na.com#?#.ad\na.com#$#x\na.com$$script\na.com#%#//x", []string{"1 dropped", "2 dropped", "3 dropped", "4 dropped", "5 dropped", "6 dropped"}},
		{"addresses", "||1.2.3.4^\n||[2001:db8::1]^\n||1.2.3.4:80^", []string{"1 dropped", "2 dropped", "3 dropped"}},
		{"top-level domains", "||top^\n||cn^", []string{"1 dropped", "2 suffix cn."}},
		{"title and comments", "[Adblock Plus 2.0]\n! x\n# y\n##.ad", nil},
		{"bad", "||a..com^\n||a b^\nerror: no such list", []string{"1 bad", "2 bad", "3 bad"}},
	})
}

const autoProxyRules = `[AutoProxy 0.2.9]
! Title: x

||a.com
|http://b.com/c
|https://*.d.com
.e.com/f
g.com
@@||www.a.com
|http://1.2.3.4/
||cdn*.h.com
/^https?:\/\/[^\/]+blogspot\.(.*)/
/^https?:\/\/([^\/]+\.)*google\.(ac|ad)\/.*/
/^https?:\/\/i\.com\/j/
@@/^https?:\/\/(?=k)l\.com$
q=m
||top
search.n.com/?q=%2F
`

func TestGFWList(t *testing.T) {
	want := []string{
		"4 suffix a.com.", "5 suffix b.com.", "6 suffix d.com.", "7 suffix e.com.", "8 suffix g.com.", "9 not suffix www.a.com.", "10 dropped",
		`11 regexp (^|\.)cdn.*\.h\.com$`, `12 regexp ^(?:[^\/]+blogspot\.(.*))`, `13 regexp ^(?:([^\/]+\.)*google\.(ac|ad))$`,
		"14 dropped", "15 dropped", "16 dropped", "17 dropped", "18 suffix search.n.com.",
	}
	packed := base64.StdEncoding.EncodeToString([]byte(autoProxyRules))
	for about, text := range map[string]string{"plain": autoProxyRules, "base64": packed, "base64 in lines": packed[:64] + "\r\n" + packed[64:128] + "\n" + packed[128:] + "\n"} {
		f, r, err := list.Detect(strings.NewReader(text))
		if err != nil || f != list.FormatGFWList {
			t.Fatalf("%s: format %q, %v", about, f, err)
		}
		got, err := collect(list.Parse(r, f, list.Options{}))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v\n got %q\nwant %q", about, err, got, want)
		}
	}
	cut := list.GFWList(strings.NewReader(packed[:len(packed)-6]))
	if _, err := collect(cut); err == nil {
		t.Error("base64 that was cut off is no error")
	}
	damaged := list.GFWList(strings.NewReader(packed[:100] + "<html>"))
	if _, err := collect(damaged); err == nil {
		t.Error("base64 with something else in it is no error")
	}
}

// Expressions that were made for hosts say the same about names.
func TestWildcardsMatchNames(t *testing.T) {
	for rule, names := range map[string]struct{ in, out []string }{
		"||ad*.b.com^":                      {[]string{"ad.b.com", "ads1.b.com", "x.ad.b.com", "ad.x.b.com"}, []string{"bad.b.com", "b.com", "ads.b.com.cn"}},
		"|x*.c.com^":                        {[]string{"x1.c.com", "x.c.com"}, []string{"a.x.c.com", "yx.c.com"}},
		`/^https?:\/\/[^\/]+blog\.(.*)/`:    {[]string{"a.blog.com", "ablog.x"}, []string{"a.blogs.com"}},
		`/^https?:\/\/(.*\.)?a\.(b|c)\/.*/`: {[]string{"a.b", "x.a.c"}, []string{"xa.b", "a.b.c"}},
	} {
		for l, err := range list.Adblock(strings.NewReader(rule)) {
			if err != nil || l.Kind != list.Regexp {
				t.Fatal(rule, l, err)
			}
			re := regexp.MustCompile(l.Text)
			for _, n := range names.in {
				if !re.MatchString(n) {
					t.Errorf("%s does not match %s", rule, n)
				}
			}
			for _, n := range names.out {
				if re.MatchString(n) {
					t.Errorf("%s matches %s", rule, n)
				}
			}
		}
	}
}

func TestRealGFWList(t *testing.T) {
	data := sharedData(t, "gfwlist/gfwlist.txt")
	f, r, err := list.Detect(bytes.NewReader(data))
	if err != nil || f != list.FormatGFWList {
		t.Fatalf("format %q, %v", f, err)
	}
	var got list.Tally
	for _, err := range got.Watch(list.Parse(r, f, list.Options{})) {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the first that was left out: %v", got.First)
	got.First = nil
	if want := (list.Tally{Used: 4345, Excepts: 33, Dropped: 5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func FuzzAdblock(f *testing.F) {
	f.Add("[Adblock]\n! x\n||a.com^\n@@|b.com^$important\nc.com##.ad\n/^d/\n||e*.f^\n0.0.0.0 g.h\n")
	f.Add("$$\n#@#\n/\n@@\n||\n|\n||*^\n://\n$\n|https://a/\n||a^$badfilter\n")
	f.Fuzz(func(t *testing.T, text string) { checkLines(t, text, list.Adblock(strings.NewReader(text))) })
}

func FuzzGFWList(f *testing.F) {
	f.Add(autoProxyRules)
	f.Add("@@\n|\n||\n/\n@@/\n/^https?:\\/\\/[/\n.\n")
	f.Fuzz(func(t *testing.T, text string) {
		checkLines(t, "\n"+text, list.GFWList(strings.NewReader("[AutoProxy]\n"+text)))
		packed := base64.StdEncoding.EncodeToString([]byte("[AutoProxy]\n" + text))
		checkLines(t, "\n"+text, list.GFWList(strings.NewReader(packed)))
	})
}

func BenchmarkGFWList(b *testing.B) {
	data := sharedData(b, "gfwlist/gfwlist.txt")
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range list.GFWList(bytes.NewReader(data)) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
