package geo_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/geo"
	"smartdns/geo/list"
)

// sharedData returns the path of a file of the collected test data, and skips
// the test where there is none.
func sharedData(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(moduleRoot(t), "..", "shared", "data", filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		t.Skipf("SKIPPED: no shared test data: %v", err)
	}
	return path
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test's directory")
		}
		dir = parent
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func embeddedTable(t testing.TB) *geo.Table {
	t.Helper()
	b := geo.NewBuilder("CN")
	if err := b.AddEmbedded(); err != nil {
		t.Fatal(err)
	}
	return b.Table()
}

// addText adds a list of prefixes given as text.
func addText(t testing.TB, b *geo.Builder, name, country, text string) {
	t.Helper()
	if err := b.AddPrefixes(name, country, list.Prefixes(strings.NewReader(text))); err != nil {
		t.Fatal(err)
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
