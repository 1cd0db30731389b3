package list_test

import (
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"smartdns/geo/list"
)

func rpzNames(r io.Reader) iter.Seq2[list.Line, error] { return list.RPZ(r, list.KindNames) }

func rpzPrefixes(r io.Reader) iter.Seq2[list.Line, error] { return list.RPZ(r, list.KindPrefixes) }

const zoneHead = `$TTL 2h
@ IN SOA localhost. root.localhost. (
        2026010101 ; serial
        1h 15m 30d 2h )
  IN NS localhost.
`

func TestRPZ(t *testing.T) {
	for about, test := range map[string]struct {
		text string
		want []string
	}{
		"names": {zoneHead + "a.com CNAME .\n*.a.com CNAME .\nB.com 300 IN CNAME *.\nc.com IN 1h A 192.0.2.1\nd.com TXT \"a ; b\" ; c\n", []string{
			"6 full a.com.", "7 suffix a.com.", "8 full b.com.", "9 full c.com.", "10 full d.com.",
		}},
		"several records of a name": {zoneHead + "a.com A 192.0.2.1\n  AAAA 2001:db8::1\na.com MX 10 b.com.\n", []string{"6 full a.com."}},
		"exceptions":                {zoneHead + "a.com CNAME rpz-passthru.\n*.a.com CNAME rpz-passthru.\nb.com CNAME b.com.\n", []string{"6 not full a.com.", "7 not suffix a.com.", "8 not full b.com."}},
		"drop and truncate":         {zoneHead + "a.com CNAME rpz-drop.\nb.com CNAME rpz-tcp-only.\n", []string{"6 full a.com.", "7 dropped"}},
		"other triggers":            {zoneHead + "8.0.0.0.10.rpz-client-ip CNAME .\nns.x.rpz-nsdname CNAME .\n32.1.2.0.192.rpz-nsip CNAME .\n32.1.2.0.192.rpz-ip CNAME .\n", []string{"6 dropped", "7 dropped", "8 dropped", "9 dropped"}},
		"an origin": {"$ORIGIN rpz.example.\n@ SOA a. b. 1 2 3 4 5\na.com CNAME .\nb.com.rpz.example. CNAME .\n$ORIGIN com.rpz.example.\nc CNAME .\n@ CNAME .\n", []string{
			"3 full a.com.", "4 full b.com.", "6 full c.com.", "7 full com.",
		}},
		"a zone that its SOA names": {"rpz.example. 60 IN SOA a. b. 1 2 3 4 5\na.com CNAME .\nb.com.rpz.example. CNAME .\nrpz.example. NS x.\n", []string{"2 full a.com.", "3 full b.com."}},
		"no head":                   {"a.com CNAME .\nb.com. CNAME .\n", []string{"1 full a.com.", "2 full b.com."}},
		"directives":                {zoneHead + "$INCLUDE x\n$GENERATE 1-2 a$ A 1.2.3.4\n$TTL 5\n", []string{"6 dropped", "7 dropped"}},
		"signatures":                {zoneHead + "a.com CNAME .\na.com RRSIG CNAME 8 2 300 x y 1 z. q=\n", []string{"6 full a.com."}},
		"top-level domains":         {zoneHead + "*.top CNAME .\n*.cn CNAME .\n", []string{"6 dropped", "7 suffix cn."}},
	} {
		got, err := collect(rpzNames(strings.NewReader(test.text)))
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v\n got %q\nwant %q", about, err, got, test.want)
		}
	}
	good := zoneHead + strings.Repeat("a.com CNAME .\n", 100)
	for _, bad := range []string{"a.com", "a.com CNAME", "a.com WHAT x", "a..com CNAME .", "* CNAME .", ") a.com CNAME .", `a.com TXT "x`} {
		got, err := collect(rpzNames(strings.NewReader(good + bad + "\n")))
		if err != nil || len(got) != 2 || !strings.HasSuffix(got[1], " bad") {
			t.Errorf("%s: %q, %v", bad, got, err)
		}
	}
}

func TestRPZAddresses(t *testing.T) {
	text := zoneHead + `24.0.2.0.192.rpz-ip CNAME .
32.7.2.0.192.rpz-ip CNAME rpz-passthru.
32.zz.db8.2001.rpz-ip CNAME .
128.1.zz.2.db8.2001.rpz-ip A 192.0.2.1
48.0.0.0.0.0.1.db8.2001.rpz-ip CNAME .
8.zz.rpz-ip CNAME .
a.com CNAME .
0.0.0.0.0.rpz-ip CNAME .
`
	want := []string{"6 192.0.2.0/24", "7 not 192.0.2.7/32", "8 2001:db8::/32", "9 2001:db8:2::1/128", "10 2001:db8:1::/48", "11 ::/8", "12 dropped", "13 dropped"}
	got, err := collect(rpzPrefixes(strings.NewReader(text)))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\n got %q\nwant %q", err, got, want)
	}
	for _, bad := range []string{"33.0.2.0.192", "24.1.2.0.192", "x.0.2.0.192", "24", "24.2.0.192", "64.zz.1.zz", "128.1.2.3.4.5.6.7.8.9"} {
		got, err := collect(rpzPrefixes(strings.NewReader(strings.Repeat(zoneHead, 20) + bad + ".rpz-ip CNAME .\n")))
		if err != nil || len(got) != 1 || !strings.HasSuffix(got[0], " bad") {
			t.Errorf("%s: %q, %v", bad, got, err)
		}
	}
}

func FuzzRPZ(f *testing.F) {
	f.Add(zoneHead+"a.com CNAME .\n*.a.com 60 IN A 1.2.3.4\n  AAAA ::1\n24.0.2.0.192.rpz-ip CNAME rpz-passthru.\n", true)
	f.Add("$ORIGIN x.\n@ SOA ( \n \"a\\\"b\" )\n32.zz.db8.2001.rpz-ip CNAME .\n\\", false)
	f.Fuzz(func(t *testing.T, text string, names bool) {
		kind := list.KindPrefixes
		if names {
			kind = list.KindNames
		}
		checkLines(t, text, list.RPZ(strings.NewReader(text), kind))
	})
}
