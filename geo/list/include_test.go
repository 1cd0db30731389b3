package list_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"smartdns/geo/list"
)

func TestIncludes(t *testing.T) {
	files := map[string]string{
		"google":  "google.com\ngoogle.cn @cn\ndomain:doubleclick.cn:@ads,@cn\nfull:ads.google.com @ads\ninclude:youtube\n",
		"youtube": "youtube.com\nyoutube.cn @cn\n",
		"loop":    "include:loop2\n",
		"loop2":   "a.com\ninclude:loop\n",
		"bad":     "<html>\n",
		"twice":   strings.Repeat("include:google\n", 2000),
	}
	open := func(name string) (io.ReadCloser, error) {
		text, ok := files[name]
		if !ok {
			return nil, fmt.Errorf("there is no %s", name)
		}
		return io.NopCloser(strings.NewReader(text)), nil
	}
	parse := func(text string) ([]string, error) {
		return collect(list.Parse(strings.NewReader(padding("a.cn")+text), list.FormatDomains, list.Options{Include: open}))
	}
	for text, want := range map[string][]string{
		"include:google":           {"201 suffix google.com.", "201 suffix google.cn.", "201 suffix doubleclick.cn.", "201 full ads.google.com.", "201 suffix youtube.com.", "201 suffix youtube.cn."},
		"include:google @cn # x":   {"201 suffix google.cn.", "201 suffix doubleclick.cn.", "201 suffix youtube.cn."},
		"include:google @cn @-ads": {"201 suffix google.cn.", "201 suffix youtube.cn."},
		"include:youtube\nb.com":   {"201 suffix youtube.com.", "201 suffix youtube.cn.", "202 suffix b.com."},
		"include:loop":             {"201 suffix a.com.", "201 bad", "201 bad", "201 bad"}, // of the line, and of either file
		"include:none":             {"201 bad"},
		"include:bad":              {"201 bad"},
		"include:../../etc/passwd": {"201 bad"},
		"include:.hidden":          {"201 bad"},
		"include:":                 {"201 bad"},
		"include:google something": {"201 bad"},
	} {
		got, err := parse(text)
		if err != nil || !slices.Equal(got[200:], want) {
			t.Errorf("%s: %v\n got %q\nwant %q", text, err, got[200:], want)
		}
	}
	// A small file cannot stand for an endless one.
	if got, _ := parse("include:twice"); len(got) > 10_000 {
		t.Errorf("%d lines", len(got))
	}
	got, err := collect(list.Names(strings.NewReader(padding("a.cn") + "include:google")))
	if err != nil || got[200] != "201 dropped" {
		t.Errorf("without a way to open files: %q, %v", got[200], err)
	}
}

func TestTopLevelDomainsOfTheHomeCountry(t *testing.T) {
	const text = "cn\nir\nru\nxn--p1ai\ntop\n"
	for home, want := range map[string]string{
		"":   "1 suffix cn.|2 dropped|3 dropped|4 dropped|5 dropped",
		"IR": "1 suffix cn.|2 suffix ir.|3 dropped|4 dropped|5 dropped",
		"RU": "1 suffix cn.|2 dropped|3 suffix ru.|4 suffix xn--p1ai.|5 dropped",
	} {
		got, err := collect(list.Parse(strings.NewReader(text), list.FormatDomains, list.Options{Home: home}))
		if joined := strings.Join(got, "|"); err != nil || joined != want {
			t.Errorf("home %q: %s, %v, want %s", home, joined, err, want)
		}
	}
}
