package wg_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smartdns/routing/wg"
)

func TestStore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "endpoints.json")
	quiet := slog.New(slog.DiscardHandler)
	s, err := wg.OpenStore(path, quiet)
	must(t, err)
	var want []netip.Addr
	for a := netip.MustParseAddr("192.0.2.1"); len(want) < 12; a = a.Next() {
		must(t, s.Add("vpn.example.com", a))
		want = slices.Insert(want, 0, a)
	}
	moved := want[3]
	must(t, s.Add("vpn.example.com", moved))
	want = slices.Insert(slices.Delete(want[:8:8], 3, 4), 0, moved)
	again, err := wg.OpenStore(path, quiet)
	must(t, err)
	for name, s := range map[string]*wg.Store{"in memory": s, "from disk": again} {
		if got := s.Known("vpn.example.com"); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		if got := s.Known("other.example.com"); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 || len(files) != 1 {
		t.Errorf("mode %v (%v), files %v", info.Mode(), err, files)
	}
}

// (SECURITY F-29)
func TestCorruptStoreIsSetAside(t *testing.T) {
	for _, text := range []string{"", "null", "{", `{"a":"b"}`, `{"a":["300.0.0.1"]}`, "\x00\x00\x00"} {
		path := filepath.Join(t.TempDir(), "endpoints.json")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		var log bytes.Buffer
		s, err := wg.OpenStore(path, slog.New(slog.NewTextHandler(&log, nil)))
		must(t, err)
		if len(s.Known("a")) != 0 || !strings.Contains(log.String(), "corrupt") {
			t.Errorf("%q: known %v, log %s", text, s.Known("a"), &log)
		}
		if aside, err := os.ReadFile(path + ".corrupt"); err != nil || string(aside) != text {
			t.Errorf("%q: set aside %q (%v)", text, aside, err)
		}
		must(t, s.Add("a", netip.MustParseAddr("192.0.2.1")))
	}
}

func TestStoreThatCannotBeWritten(t *testing.T) {
	s, err := wg.OpenStore(filepath.Join(t.TempDir(), "none", "endpoints.json"), slog.New(slog.DiscardHandler))
	must(t, err)
	if err := s.Add("a", netip.MustParseAddr("192.0.2.1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if got := s.Known("a"); len(got) != 1 {
		t.Errorf("it is forgotten in memory too: %v", got)
	}
}
