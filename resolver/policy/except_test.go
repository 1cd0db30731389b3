package policy_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
)

func except(e policy.Entry) policy.Entry {
	e.Except = true
	return e
}

func TestExceptionsAreNotInTheirList(t *testing.T) {
	names, err := policy.NewNames(rules(
		policy.NameRule{Rule: policy.Rule{Text: "gfw"}, Lists: []policy.List{list("gfw",
			suffix(t, "google.com"), except(suffix(t, "dl.google.com")), suffix(t, "x.dl.google.com"),
			except(full(t, "www.google.com")), full(t, "a.example"), except(suffix(t, "a.example")),
			policy.Entry{Kind: policy.Keyword, Text: "porn"}, except(suffix(t, "porn.edu.cn")),
			policy.Entry{Kind: policy.Regexp, Text: `^cdn`, Regexp: regexp.MustCompile(`^cdn`)}, except(full(t, "cdn.cn")),
		)}},
		policy.NameRule{Rule: policy.Rule{Text: "more"}, Lists: []policy.List{list("more",
			suffix(t, "google.com"), except(suffix(t, "a.dl.google.com")), full(t, "a.example"),
		)}},
		policy.NameRule{Rule: policy.Rule{Text: "cn"}, Lists: []policy.List{list("cn",
			suffix(t, "cn"), suffix(t, "google.com"), full(t, "a.example"),
		)}},
		policy.NameRule{Rule: policy.Rule{Text: "*"}, Entries: []policy.Entry{{Kind: policy.All}}},
	))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ about, name, rule string }{
		{"the list's own name", "google.com", "gfw 1"},
		{"an exception is the next list's", "dl.google.com", "more 1"},
		{"so is what is below it", "b.dl.google.com", "more 1"},
		{"an exception of both is the third list's", "a.dl.google.com", "cn 2"},
		{"the list names something below its exception", "b.x.dl.google.com", "gfw 3"},
		{"a full exception is one name", "www.google.com", "more 1"},
		{"and not those below it", "b.www.google.com", "gfw 1"},
		{"an exception as long as the entry", "a.example", "more 3"},
		{"a keyword", "porn.com", "gfw 7"},
		{"an exception from a keyword", "www.porn.edu.cn", "cn 1"},
		{"an exception from an expression", "cdn.cn", "cn 1"},
		{"not from another list's", "www.cn", "cn 1"},
		{"nothing", "b.example", "* 0"},
	} {
		r, _ := names.Match(name(t, c.name))
		if got := fmt.Sprint(r.Text, " ", r.By.Line); got != c.rule {
			t.Errorf("%s: Match(%s) = %s, want %s", c.about, c.name, got, c.rule)
		}
	}
	if n := testing.AllocsPerRun(100, func() { names.Match("a.dl.google.com.") }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}

func TestBadExceptions(t *testing.T) {
	for _, e := range []policy.Entry{{Kind: policy.Keyword, Text: "a", Except: true}, {Kind: policy.Suffix, Except: true}} {
		if _, err := policy.NewNames(rules(policy.NameRule{Lists: []policy.List{list("l", e)}})); err == nil || !strings.Contains(err.Error(), "list l line 1") {
			t.Errorf("%+v: error %v", e, err)
		}
	}
}

// Match agrees with a scan of every list, one after the other.
func TestExceptionsAgreeWithAScan(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	labels := []string{"a", "b", "c"}
	random := func() dnsname.FQDN {
		n := "x."
		for range rnd.IntN(3) {
			n = labels[rnd.IntN(3)] + "." + n
		}
		return dnsname.FQDN(n)
	}
	for range 300 {
		var rs []policy.NameRule
		var lists [][]policy.Entry
		for i := range 4 {
			var entries []policy.Entry
			count := 1 + rnd.IntN(6)
			if rnd.IntN(10) == 0 {
				count = 200 // more than are entered together
			}
			for range count {
				entries = append(entries, policy.Entry{Kind: policy.Kind(rnd.IntN(2)), Name: random(), Except: rnd.IntN(3) == 0})
			}
			lists = append(lists, entries)
			rs = append(rs, policy.NameRule{Lists: []policy.List{list(fmt.Sprint(i), entries...)}})
		}
		names, err := policy.NewNames(rules(rs...))
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			n := random()
			want := scanned(lists, n)
			r, ok := names.Match(n)
			if ok != (want >= 0) || ok && r.Index != want {
				t.Fatalf("Match(%s) = %d, %v, want %d of %+v", n, r.Index, ok, want, lists)
			}
		}
	}
}

// scanned returns the first list that has name, or -1.
func scanned(lists [][]policy.Entry, name dnsname.FQDN) int {
	for i, entries := range lists {
		in, out := -1, -1
		for _, e := range entries {
			below := strings.HasSuffix("."+string(name), "."+string(e.Name))
			switch {
			case e.Name != name && (e.Kind == policy.Full || !below):
			case !e.Except:
				in = max(in, len(e.Name))
			case e.Kind == policy.Full:
				out = len(name)
			default:
				out = max(out, len(e.Name))
			}
		}
		if in > out {
			return i
		}
	}
	return -1
}
