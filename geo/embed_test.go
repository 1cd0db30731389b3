package geo_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"smartdns/geo"
	"smartdns/geo/list"
)

func TestPackedPrefixesAreTheReadableOnes(t *testing.T) {
	read := geo.NewBuilder("CN")
	if err := read.AddPrefixes(geo.Embedded, "CN", list.Prefixes(bytes.NewReader(readFile(t, "data/cn.txt")))); err != nil {
		t.Fatal(err)
	}
	want, got := read.Table(), embeddedTable(t)
	for _, p := range readPrefixes(t, readFile(t, "data/cn.txt")) {
		if w, g := want.Lookup(p.Addr()), got.Lookup(p.Addr()); w != g {
			t.Fatalf("%s: %+v, want %+v: run go generate ./geo", p.Addr(), g, w)
		}
	}
	want4, want6 := want.Home()
	got4, got6 := got.Home()
	if !slices.Equal(got4, want4) || !slices.Equal(got6, want6) {
		t.Error("data/cn.bin is not data/cn.txt: run go generate ./geo")
	}
}

func readPrefixes(t *testing.T, text []byte) []netip.Prefix {
	t.Helper()
	var out []netip.Prefix
	for l, err := range list.Prefixes(bytes.NewReader(text)) {
		if err != nil || l.Kind != list.Prefix {
			t.Fatal(err, l.Err)
		}
		out = append(out, l.Prefix)
	}
	return out
}

func TestReadablePrefixesAreSortedMergedAndPublic(t *testing.T) {
	got := readPrefixes(t, readFile(t, "data/cn.txt"))
	if !slices.Equal(got, geo.Merge(got)) {
		t.Error("data/cn.txt is not sorted and merged")
	}
	for _, p := range got {
		if kind, special := geo.Special(p.Addr()); kind != geo.NotSpecial {
			t.Errorf("%s is in %s (%v)", p, special, kind)
		}
	}
}

func TestReadablePrefixesAreThoseOfTheReference(t *testing.T) {
	want := append(readPrefixes(t, readFile(t, sharedData(t, "own/cn4.txt"))), readPrefixes(t, readFile(t, sharedData(t, "own/cn6.txt")))...)
	if got := readPrefixes(t, readFile(t, "data/cn.txt")); !slices.Equal(got, want) {
		t.Errorf("%d prefixes, the reference has %d", len(got), len(want))
	}
}

func TestCNDomains(t *testing.T) {
	var tally list.Tally
	seen := make(map[string]bool)
	for l, err := range tally.Watch(list.Names(geo.OpenCNDomains())) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Kind != list.Suffix || seen[string(l.Name)] {
			t.Errorf("line %d: %v %q", l.Number, l.Kind, l.Name)
		}
		seen[string(l.Name)] = true
	}
	if tally.Used != 551 || tally.First != nil {
		t.Errorf("%+v, want 551 suffixes", tally)
	}
}
