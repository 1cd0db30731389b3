package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"smartdns/geo"
	"smartdns/resolver"
)

func TestVerdictsAreKept(t *testing.T) {
	dir := t.TempDir()
	s := openVerdicts(dir, slog.New(slog.DiscardHandler))
	s.learned.Learn("www.example.org.", geo.Home, "test")
	if err := s.learned.Pin("pinned.example.org.", geo.Abroad); err != nil {
		t.Fatal(err)
	}
	s.save(false)
	s.learned.Use("www.example.org.")
	s.save(true)
	for _, name := range []string{"verdicts", "pins"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	next := openVerdicts(dir, slog.New(slog.DiscardHandler))
	var got []string
	for _, v := range next.learned.All() {
		got = append(got, v.Name.String()+" "+v.Region.String())
		if v.Name == "www.example.org." && v.Hits != 1 {
			t.Errorf("%d hits, want 1", v.Hits)
		}
	}
	slices.Sort(got)
	if want := []string{"pinned.example.org abroad", "www.example.org home"}; !slices.Equal(got, want) || len(next.conditions()) != 0 {
		t.Errorf("%q, %+v", got, next.conditions())
	}
}

// A file that nobody understands is out of the way and known to status; the
// other one counts (SECURITY F-29).
func TestCorruptVerdictsAreSetAside(t *testing.T) {
	for what, damage := range map[string]func([]byte) []byte{
		"another version": func(b []byte) []byte { return bytes.Replace(b, []byte("verdicts 1"), []byte("verdicts 2"), 1) },
		"half of it":      func(b []byte) []byte { return b[:len(b)/2] },
		"nothing":         func([]byte) []byte { return nil },
		"other words":     func(b []byte) []byte { return bytes.Replace(b, []byte("home"), []byte("hone"), 1) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			s := openVerdicts(dir, slog.New(slog.DiscardHandler))
			s.learned.Learn("www.example.org.", geo.Home, "test")
			if err := s.learned.Pin("pinned.example.org.", geo.Abroad); err != nil {
				t.Fatal(err)
			}
			s.save(false)
			path := filepath.Join(dir, "verdicts")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			next := openVerdicts(dir, slog.New(slog.DiscardHandler))
			all := next.learned.All()
			if len(all) != 1 || !all[0].Pinned {
				t.Errorf("%+v", all)
			}
			if c := next.conditions(); len(c) != 1 || c[0].Severity != severityWarning || !strings.Contains(c[0].What, path+".corrupt") {
				t.Errorf("%+v", c)
			}
			if _, err := os.Stat(path + ".corrupt"); err != nil {
				t.Error(err)
			}
			next.save(true)
			if c := openVerdicts(dir, slog.New(slog.DiscardHandler)).conditions(); len(c) != 0 {
				t.Errorf("after another start: %+v", c)
			}
		})
	}
}

// A disk that takes nothing is a condition until it does (SECURITY F-27).
func TestVerdictsThatCannotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := &verdictStore{learned: resolver.NewLearned(1 << 20), dir: dir, log: slog.New(slog.DiscardHandler)}
		s.learned.Learn("www.example.org.", geo.Home, "test")
		s.save(false)
		if c := s.conditions(); len(c) != 1 || !strings.Contains(c[0].What, "no such file") {
			t.Errorf("%+v", c)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s.save(false)
		if c := s.conditions(); len(c) != 0 {
			t.Errorf("%+v", c)
		}
	})
}
