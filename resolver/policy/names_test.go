package policy_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
)

func name(t testing.TB, s string) dnsname.FQDN {
	t.Helper()
	n, err := dnsname.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func suffix(t testing.TB, s string) policy.Entry {
	return policy.Entry{Kind: policy.Suffix, Name: name(t, s)}
}

func full(t testing.TB, s string) policy.Entry {
	return policy.Entry{Kind: policy.Full, Name: name(t, s)}
}

func list(name string, entries ...policy.Entry) policy.List {
	for i := range entries {
		entries[i].Line = i + 1
	}
	return policy.List{Name: name, Entries: slices.Values(entries)}
}

func rules(rs ...policy.NameRule) []policy.NameRule {
	for i := range rs {
		rs[i].Rule.Index = i
	}
	return rs
}

func TestMatch(t *testing.T) {
	names, err := policy.NewNames(rules(
		policy.NameRule{Rule: policy.Rule{Text: "user"}, Entries: []policy.Entry{
			suffix(t, "example.com"), full(t, "full.example.net"), {Kind: policy.Keyword, Text: "tracker"},
			{Kind: policy.Regexp, Text: `^ad[0-9]+\.`, Regexp: regexp.MustCompile(`^ad[0-9]+\.`)},
		}},
		policy.NameRule{Rule: policy.Rule{Text: "list:foreign"}, Lists: []policy.List{
			list("foreign", suffix(t, "google.cn"), suffix(t, "maps.google.cn")),
		}},
		policy.NameRule{Rule: policy.Rule{Text: "list:cn"}, Lists: []policy.List{
			list("cn", suffix(t, "cn"), suffix(t, "baidu.com"), suffix(t, "x.maps.google.cn")),
		}, Entries: []policy.Entry{full(t, "only.this")}},
		policy.NameRule{Rule: policy.Rule{Text: "*"}, Entries: []policy.Entry{{Kind: policy.All}}},
	))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		about, name, rule, by string
	}{
		{"a suffix matches itself", "example.com", "user", "domain example.com. :0"},
		{"a suffix matches below", "a.b.example.com", "user", "domain example.com. :0"},
		{"a suffix matches whole labels only", "notexample.com", "*", "*  :0"},
		{"an escaped dot does not end a label", `x\.baidu.com`, "*", "*  :0"},
		{"full matches itself", "full.example.net", "user", "full full.example.net. :0"},
		{"full does not match below", "a.full.example.net", "*", "*  :0"},
		{"keyword", "my-tracker.org", "user", "keyword tracker :0"},
		{"regexp", "ad42.org", "user", `regexp ^ad[0-9]+\. :0`},
		{"the earlier list wins over a longer suffix of a later one", "x.maps.google.cn", "list:foreign", "domain maps.google.cn. foreign:2"},
		{"within a list the longest suffix is named", "maps.google.cn", "list:foreign", "domain maps.google.cn. foreign:2"},
		{"a list's line", "www.baidu.com", "list:cn", "domain baidu.com. cn:2"},
		{"a top-level domain", "anything.cn", "list:cn", "domain cn. cn:1"},
		{"an earlier keyword wins over a list", "tracker.baidu.com", "user", "keyword tracker :0"},
		{"own entries and a list in one rule", "only.this", "list:cn", "full only.this. :0"},
		{"the root", ".", "*", "*  :0"},
	} {
		r, ok := names.Match(name(t, c.name))
		by := fmt.Sprintf("%s %s %s:%d", r.By.Kind, r.By.Text, r.By.List, r.By.Line)
		if !ok || r.Text != c.rule || by != c.by {
			t.Errorf("%s: Match(%s) = %q by %q, want %q by %q", c.about, c.name, r.Text, by, c.rule, c.by)
		}
	}
	if n := testing.AllocsPerRun(100, func() { names.Match("a.b.c.d.www.baidu.com.") }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}

func TestNoMatchWithoutAll(t *testing.T) {
	names, err := policy.NewNames(rules(policy.NameRule{Entries: []policy.Entry{suffix(t, "a.b")}}))
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := names.Match("b."); ok {
		t.Errorf("Match(b.) = %+v", r)
	}
	empty, err := policy.NewNames(nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := empty.Match("b."); ok {
		t.Errorf("Match on no rules = %+v", r)
	}
}

func TestBadEntries(t *testing.T) {
	for about, e := range map[string]policy.Entry{
		"no name":       {Kind: policy.Suffix},
		"no keyword":    {Kind: policy.Keyword},
		"no expression": {Kind: policy.Regexp},
		"unknown kind":  {Kind: 99},
	} {
		if _, err := policy.NewNames(rules(policy.NameRule{Lists: []policy.List{list("l", e)}})); err == nil || !strings.Contains(err.Error(), "list l line 1") {
			t.Errorf("%s: error %v", about, err)
		}
	}
}

// scan is the policy as a sentence: every rule in turn, every entry.
func scan(rs []policy.NameRule, n dnsname.FQDN) int {
	match := func(e policy.Entry) bool {
		switch e.Kind {
		case policy.Suffix:
			return e.Name.Contains(n)
		case policy.Full:
			return e.Name == n
		case policy.Keyword:
			return strings.Contains(strings.TrimSuffix(string(n), "."), e.Text)
		}
		return e.Kind == policy.All
	}
	for i, r := range rs {
		if slices.ContainsFunc(r.Entries, match) {
			return i
		}
		for _, l := range r.Lists {
			for e := range l.Entries {
				if match(e) {
					return i
				}
			}
		}
	}
	return -1
}

func TestAgainstLinearScan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	labels := []string{"a", "b", "c", "com", "cn", "x\\.y", "www", "\\000"}
	random := func() dnsname.FQDN {
		parts := make([]string, 1+r.IntN(4))
		for i := range parts {
			parts[i] = labels[r.IntN(len(labels))]
		}
		return name(t, strings.Join(parts, "."))
	}
	for range 50 {
		var rs []policy.NameRule
		for range 1 + r.IntN(6) {
			var own, listed []policy.Entry
			for range r.IntN(20) {
				own = append(own, policy.Entry{Kind: policy.Kind(r.IntN(2)), Name: random()})
				listed = append(listed, policy.Entry{Kind: policy.Kind(r.IntN(2)), Name: random()})
			}
			if r.IntN(4) == 0 {
				own = append(own, policy.Entry{Kind: policy.Keyword, Text: labels[r.IntN(3)]})
			}
			if r.IntN(8) == 0 {
				listed = append(listed, policy.Entry{Kind: policy.All})
			}
			rs = append(rs, policy.NameRule{Entries: own, Lists: []policy.List{list("l", listed...)}})
		}
		names, err := policy.NewNames(rules(rs...))
		if err != nil {
			t.Fatal(err)
		}
		for range 500 {
			n := random()
			want := scan(rs, n)
			got, ok := names.Match(n)
			if ok != (want >= 0) || ok && got.Index != want {
				t.Fatalf("Match(%s) = %d %v, a scan says %d", n, got.Index, ok, want)
			}
		}
	}
}
