package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDelegatedFileBecomesData(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join("..", "..", "..", "testdata", "lists", "delegated.txt")
	if err := run([]string{"-o", dir, "-delegated", in}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "cn.txt"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `# Prefixes of China (CN): 4 IPv4, 1 IPv6.
# Source: delegated statistics of the regional internet registries
# (NRO, nro.net, CC BY 4.0).
# Written by go generate: do not edit.
1.0.1.0/24
1.0.2.0/23
1.0.8.0/22
1.0.12.0/24
2001:250::/34
`
	if string(text) != want {
		t.Errorf("got\n%swant\n%s", text, want)
	}
	packed, err := os.ReadFile(filepath.Join(dir, "cn.bin"))
	if err != nil {
		t.Fatal(err)
	}
	wantPacked := "\x00\x00\x00\x05" + "\x00\x00\x00\x04" +
		"\x01\x00\x01\x00\x18" + "\x01\x00\x02\x00\x17" + "\x01\x00\x08\x00\x16" + "\x01\x00\x0c\x00\x18" +
		"\x20\x01\x02\x50\x00\x00\x00\x00\x22"
	if string(packed) != wantPacked {
		t.Errorf("packed: %q", packed)
	}
}

func TestTarballHasToBeThePinnedOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.tgz")
	if err := os.WriteFile(path, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := run([]string{"-o", t.TempDir(), "-asn", path, "-iptoasn", path})
	if err == nil || !strings.Contains(err.Error(), "is not @ip-location-db/asn-country@") {
		t.Errorf("error %v, want that it is not the pinned version", err)
	}
	err = run([]string{"-o", t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "npm pack @ip-location-db/asn-country@") {
		t.Errorf("error %v, want how to get it", err)
	}
}

func TestRangesOfTheCSVFile(t *testing.T) {
	got, err := appendCSV(nil, strings.NewReader("1.0.0.0,1.0.0.255,AU\n1.0.1.0,1.0.3.255,CN\n2001:250::,2001:253:ffff:ffff:ffff:ffff:ffff:ffff,CN\n"))
	want := []netip.Prefix{netip.MustParsePrefix("1.0.1.0/24"), netip.MustParsePrefix("1.0.2.0/23"), netip.MustParsePrefix("2001:250::/30")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"1.0.0.0,1.0.0.255\n", "1.0.3.0,1.0.1.0,CN\n", "x,y,CN\n"} {
		if _, err := appendCSV(nil, strings.NewReader(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
