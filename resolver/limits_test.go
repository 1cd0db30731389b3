package resolver

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"smartdns/resolver/dnsname"
)

// However many large replies come at once, what reading them takes is bounded
// (SECURITY section 6.2), and given back.
func TestRepliesBeingReadAreBounded(t *testing.T) {
	var p parsing
	var releases []func()
	for {
		release, ok := p.take(64 << 10)
		if !ok {
			break
		}
		if releases = append(releases, release); len(releases) > 1000 {
			t.Fatal("1000 replies of 64 KiB are read at once")
		}
	}
	if len(releases) < 16 {
		t.Errorf("no more than %d large replies may be read at once", len(releases))
	}
	for _, release := range releases {
		release()
	}
	if used := p.used.Load(); used != 0 {
		t.Errorf("%d octets are still counted", used)
	}
}

func TestReasonsAreOneLineOfText(t *testing.T) {
	d := new(Decision)
	d.explain(edeUnreachable, errors.Join(errors.New("one\x1b[2J"), errors.New("two\xff")).Error())
	if got := d.EDE[0].Text; strings.ContainsAny(got, "\n\x1b") || !utf8.ValidString(got) || !strings.Contains(got, "; two") {
		t.Errorf("%q", got)
	}
}

func TestZoneOf(t *testing.T) {
	for name, want := range map[dnsname.FQDN]string{
		".": "", "com.": "com.", "example.com.": "example.com.", "a.b.c.example.com.": "example.com.", "www.qq.com.": "qq.com.",
		"a.www.sina.com.cn.": "sina.com.cn.", "com.cn.": "com.cn.", "a.b.co.uk.": "b.co.uk.", "x.y.baidu.cn.": "baidu.cn.",
	} {
		if got := zoneOf(name); got != want {
			t.Errorf("%s counts for %q, want %q", name, got, want)
		}
	}
}
