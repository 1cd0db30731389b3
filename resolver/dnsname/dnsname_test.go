package dnsname_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"smartdns/resolver/dnsname"
)

func TestParseMakesOneSpelling(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	for _, c := range []struct{ in, want string }{
		{".", "."},
		{"com", "com."},
		{"com.", "com."},
		{"WWW.Example.COM", "www.example.com."},
		{"_dns._udp.a-b.test", "_dns._udp.a-b.test."},
		{"xn--fiqs8s", "xn--fiqs8s."},
		{`x\.baidu.com`, `x\.baidu.com.`},
		{`x\046baidu.com`, `x\.baidu.com.`},
		{`back\\slash.com`, `back\\slash.com.`},
		{`back\092slash.com`, `back\\slash.com.`},
		{`\065bc.com`, "abc.com."},
		{`a\ b.com`, `a\032b.com.`},
		{"a b.com", ""},
		{`a\032b.com`, `a\032b.com.`},
		{`\000\255.com`, `\000\255.com.`},
		{`\@.com`, "@.com."},
		{label63 + ".com", label63 + ".com."},
	} {
		got, err := dnsname.Parse(c.in)
		if c.want == "" {
			if err == nil {
				t.Errorf("Parse(%q) = %q, want an error", c.in, got)
			}
			continue
		}
		if err != nil || string(got) != c.want {
			t.Errorf("Parse(%q) = %q, %v, want %q", c.in, got, err, c.want)
		}
		if again, err := dnsname.Parse(string(got)); err != nil || again != got {
			t.Errorf("Parse(%q) = %q, %v: not its own canonical form", got, again, err)
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	label := strings.Repeat("b", 62) + "."
	for _, c := range []struct{ in, want string }{
		{"", "empty name"},
		{".com", `label "" of ".com" is empty`},
		{"a..com", `label "" of "a..com" is empty`},
		{"a.com..", "is empty"},
		{"www.bad name.com", `label "bad name" of "www.bad name.com" has a blank`},
		{"例子.cn", "xn--"},
		{"a\x00.com", "control character"},
		{"\u007f.com", "control character"},
		{strings.Repeat("a", 64) + ".com", "longer than 63"},
		{strings.Repeat(label, 4) + "abc", "longer than 255"},
		{strings.Repeat(label, 5), "longer than 255"},
		{`a\`, "lone backslash"},
		{`a\25.com`, `\DDD`},
		{`a\2`, `\DDD`},
		{`a\256.com`, "above 255"},
	} {
		got, err := dnsname.Parse(c.in)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Parse(%q) = %q, %v, want an error with %q", c.in, got, err, c.want)
		}
	}
	longest := strings.Repeat(label, 4) + "a"
	if f, err := dnsname.Parse(longest); err != nil || len(f.AppendWire(nil)) != 255 {
		t.Errorf("a name of 255 octets: %v", err)
	}
}

func TestContainsCountsLabels(t *testing.T) {
	for _, c := range []struct {
		zone, name string
		want       bool
	}{
		{"baidu.com.", "baidu.com.", true},
		{"baidu.com.", "www.baidu.com.", true},
		{"baidu.com.", "notbaidu.com.", false},
		{"baidu.com.", "com.", false},
		{"baidu.com.", `x\.baidu.com.`, false},
		{"baidu.com.", `x\\.baidu.com.`, true},
		{"baidu.com.", `x\\\.baidu.com.`, false},
		{"com.", `x\.baidu.com.`, true},
		{".", "com.", true},
		{".", ".", true},
		{"com.", ".", false},
		{"", "com.", false},
		{"", "", false},
		{".", "", false},
	} {
		if got := dnsname.FQDN(c.zone).Contains(dnsname.FQDN(c.name)); got != c.want {
			t.Errorf("%q contains %q: %v, want %v", c.zone, c.name, got, c.want)
		}
	}
}

func TestParentAndLabels(t *testing.T) {
	for _, c := range []struct {
		name, parent string
		labels       int
	}{
		{"www.example.com.", "example.com.", 3},
		{"com.", ".", 1},
		{`x\.baidu.com.`, "com.", 2},
		{`x\\.baidu.com.`, "baidu.com.", 3},
		{`\255\046.com.`, "com.", 2},
		{".", "", 0},
		{"", "", 0},
	} {
		f := dnsname.FQDN(c.name)
		parent, ok := f.Parent()
		if string(parent) != c.parent || ok != (c.parent != "") || f.Labels() != c.labels {
			t.Errorf("%q: parent %q (%v), %d labels; want %q, %d", c.name, parent, ok, f.Labels(), c.parent, c.labels)
		}
	}
}

func TestStringDropsTheLastDot(t *testing.T) {
	for in, want := range map[dnsname.FQDN]string{"example.com.": "example.com", ".": ".", `a\..`: `a\.`} {
		if got := in.String(); got != want {
			t.Errorf("%q.String() = %q, want %q", string(in), got, want)
		}
	}
}

func TestFromWireRefuses(t *testing.T) {
	long := bytes.Repeat(append([]byte{63}, bytes.Repeat([]byte{'a'}, 63)...), 4)
	for name, b := range map[string][]byte{
		"nothing":          {},
		"no end":           {1, 'a'},
		"short label":      {5, 'a'},
		"compressed":       {1, 'a', 0xc0, 12},
		"unknown label":    {0x41, 'a', 0},
		"longer than 255":  append(long, 0),
		"never ends, long": long,
	} {
		if f, n, err := dnsname.FromWire(b); err == nil {
			t.Errorf("%s: read as %q, %d", name, f, n)
		}
	}
}

// FuzzWire checks that the two forms carry the same names, and that
// dnsname and miekg/dns agree on which octets are a name.
func FuzzWire(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte("\x03WWW\x07example\x03com\x00rest"))
	f.Add([]byte{4, 'a', '.', '\\', 0, 1, 0xff, 0})
	f.Add([]byte{1, ' ', 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		name, n, err := dnsname.FromWire(b)
		if err != nil {
			return
		}
		wire := name.AppendWire([]byte("x"))[1:]
		if !bytes.Equal(wire, lower(b[:n])) {
			t.Fatalf("%q: wire form % x, was % x", name, wire, b[:n])
		}
		if again, err := dnsname.Parse(string(name)); err != nil || again != name {
			t.Fatalf("Parse(%q) = %q, %v", name, again, err)
		}
		text, off, err := dns.UnpackDomainName(b[:n], 0)
		if err != nil || off != n {
			t.Fatalf("%q: miekg/dns reads %q to %d: %v", name, text, off, err)
		}
		if theirs, err := dnsname.Parse(text); err != nil || theirs != name {
			t.Fatalf("Parse(%q) = %q, %v, want %q", text, theirs, err, name)
		}
		if parent, ok := name.Parent(); ok && (!parent.Contains(name) || name.Contains(parent) || parent.Labels() != name.Labels()-1) {
			t.Fatalf("parent of %q is %q", name, parent)
		}
	})
}

// FuzzParse checks that whatever parses survives the way to the wire and back.
func FuzzParse(f *testing.F) {
	for _, s := range []string{".", "a", "a.b.", `\.`, `\000`, `a\\.b`, strings.Repeat("a.", 127), "例子"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := dnsname.Parse(s)
		if err != nil {
			return
		}
		wire := name.AppendWire(nil)
		if len(wire) > 255 {
			t.Fatalf("%q takes %d octets", name, len(wire))
		}
		if back, n, err := dnsname.FromWire(wire); err != nil || n != len(wire) || back != name {
			t.Fatalf("%q came back as %q (%d of %d): %v", name, back, n, len(wire), err)
		}
	})
}

func lower(b []byte) []byte {
	out := bytes.Clone(b)
	for i, c := range out {
		if 'A' <= c && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return out
}

func TestFromWireAllocatesTheNameOnly(t *testing.T) {
	b := []byte("\x03WWW\x07example\x03com\x00")
	if n := testing.AllocsPerRun(100, func() { dnsname.FromWire(b) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
	zone, name := dnsname.FQDN("example.com."), dnsname.FQDN("www.example.com.")
	walk := func() {
		if parent, ok := name.Parent(); !ok || !zone.Contains(parent) || name.Labels() != 3 {
			t.Error("walked astray")
		}
	}
	if n := testing.AllocsPerRun(100, walk); n > 0 {
		t.Errorf("walking a name: %v allocations", n)
	}
}

// What Canonical accepts is what Parse makes of it.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"www.example.com", "a", "", ".", "a.", "a..b", "A.b", `a\.b`, "a b", "xn--fiqs8s", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a", strings.Repeat("a.", 126) + "ab"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		name, err := dnsname.Parse(string(text))
		if n := dnsname.Canonical(text); n > 0 && (err != nil || string(name) != string(text)+"." || n != name.Labels()) {
			t.Errorf("%q is canonical, and Parse says %q, %v", text, name, err)
		}
		if again := strings.TrimSuffix(string(name), "."); err == nil && again != "" && !strings.ContainsAny(again, `\`) && dnsname.Canonical([]byte(again)) == 0 && !strings.ContainsFunc(again, func(c rune) bool {
			return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
		}) {
			t.Errorf("%q is not canonical", again)
		}
	})
}
