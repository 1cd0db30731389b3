package policy_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	geolist "smartdns/geo/list"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
)

// realList returns the suffixes of a list of the collected test data, and skips
// the test where there is none.
func realList(t testing.TB, file string) []geolist.Line {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "..", "shared", "data", "domains", file))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("SKIPPED: no shared test data: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(file, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	var all []geolist.Line
	for l, err := range geolist.Names(r) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Kind == geolist.Suffix {
			all = append(all, l)
		}
	}
	return all
}

// many yields n distinct names as long as those of the field's lists.
func many(n int) iter.Seq[policy.Entry] {
	return func(yield func(policy.Entry) bool) {
		for i := range n {
			if !yield(policy.Entry{Kind: policy.Suffix, Name: dnsname.FQDN(fmt.Sprintf("name%d.com.", i)), Line: i + 1}) {
				return
			}
		}
	}
}

// heapOf returns the rules of one list, and how many octets of heap they hold.
func heapOf(t *testing.T, size int, entries iter.Seq[policy.Entry]) (*policy.Names, uint64) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	names, err := policy.NewNames(rules(policy.NameRule{Lists: []policy.List{{Name: "l", Size: size, Entries: entries}}}))
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	return names, after.HeapAlloc - before.HeapAlloc
}

func TestSizePerName(t *testing.T) {
	const n = 1_000_000
	for _, size := range []int{0, n, 2 * n} { // nobody knows, right, wrong
		names, heap := heapOf(t, size, many(n))
		if names.Len() != n {
			t.Errorf("Len() = %d, want %d", names.Len(), n)
		}
		if per := float64(heap) / n; per > 40 {
			t.Errorf("told about %d: %.1f octets per name, want at most 40", size, per)
		}
		for _, i := range []int{0, 1, n / 2, n - 1} {
			if got, ok := names.Match(dnsname.FQDN(fmt.Sprintf("www.name%d.com.", i))); !ok || got.By.Line != i+1 {
				t.Errorf("name %d: %+v %v", i, got.By, ok)
			}
		}
		if got, ok := names.Match(dnsname.FQDN(fmt.Sprintf("name%d.com.", n))); ok {
			t.Errorf("a name that is not there: %+v", got.By)
		}
	}
}

// The lists that people have are not larger than those that tests make.
func TestSizePerNameOfRealLists(t *testing.T) {
	for _, file := range []string{"accelerated-domains.china.conf.gz", "v2fly-geolocation-notcn.txt"} {
		var entries []policy.Entry
		for _, l := range realList(t, file) {
			entries = append(entries, policy.Entry{Kind: policy.Suffix, Name: l.Name, Line: l.Number})
		}
		names, heap := heapOf(t, len(entries), slices.Values(entries))
		if per := float64(heap) / float64(names.Len()); per > 40 {
			t.Errorf("%s: %.1f octets per name, want at most 40", file, per)
		}
		for _, e := range entries {
			if got, ok := names.Match("x." + e.Name); !ok || got.By.List != "l" {
				t.Fatalf("%s:%d: x.%s is not found", file, e.Line, e.Name)
			}
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	names, _ := heapOf(t, 0, many(10_000))
	for _, name := range []dnsname.FQDN{"www.name9999.com.", "name1.com.", "a.b.c.d.e.f.g.h.i.j.k.name7.com.", "example.org.", "."} {
		if n := testing.AllocsPerRun(100, func() { names.Match(name) }); n != 0 {
			t.Errorf("matching %s allocates %v times", name, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	const n = 1_000_000
	names, err := policy.NewNames(rules(policy.NameRule{Lists: []policy.List{{Name: "l", Entries: many(n)}}}))
	if err != nil {
		b.Fatal(err)
	}
	ask := make([]dnsname.FQDN, 1<<16)
	for i := range ask {
		ask[i] = dnsname.FQDN(fmt.Sprintf("www.name%d.com.", i*7919%n))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		names.Match(ask[i%len(ask)])
	}
}

// BenchmarkNewNames reads the largest list that people have.
func BenchmarkNewNames(b *testing.B) {
	var entries []policy.Entry
	for _, l := range realList(b, "accelerated-domains.china.conf.gz") {
		entries = append(entries, policy.Entry{Name: l.Name, Line: l.Number})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.NewNames(rules(policy.NameRule{Lists: []policy.List{{Name: "l", Size: len(entries), Entries: slices.Values(entries)}}})); err != nil {
			b.Fatal(err)
		}
	}
}
