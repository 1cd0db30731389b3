package daemon

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smartdns/internal/wholefile"
)

func stateOf(t *testing.T) stateFile {
	return stateFile{path: filepath.Join(t.TempDir(), "things"), kind: "smartdns things 1", limit: 1 << 20}
}

func put(t *testing.T, f stateFile, content string) {
	t.Helper()
	if err := f.save(func(w io.Writer) error { _, err := io.WriteString(w, content); return err }); err != nil {
		t.Fatal(err)
	}
}

// get returns the content, or "" with the error.
func get(f stateFile) (string, error) {
	var content string
	err := f.load(func(r io.Reader) error {
		b, err := io.ReadAll(r)
		content = string(b)
		return err
	})
	return content, err
}

func TestStateFileKeepsContent(t *testing.T) {
	f := stateOf(t)
	if got, err := get(f); got != "" || err != nil {
		t.Errorf("without a file: %q, %v", got, err)
	}
	for _, content := range []string{"first", "", strings.Repeat("long", 50_000)} {
		put(t, f, content)
		if got, err := get(f); got != content || err != nil {
			t.Errorf("got %d octets, %v; want %d", len(got), err, len(content))
		}
	}
	if info, _ := os.Stat(f.path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

// A write that ends at any octet leaves the file as it was, and so does what a
// crash left of one (SECURITY C-10).
func TestStateFileSurvivesUnfinishedWrites(t *testing.T) {
	f := stateOf(t)
	put(t, f, "the old content")
	whole, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("disk full")
	for n := range 40 {
		err := f.save(func(w io.Writer) error {
			_, err := w.Write(bytes.Repeat([]byte("x"), n))
			return errors.Join(err, broken)
		})
		if !errors.Is(err, broken) {
			t.Fatalf("saving: %v", err)
		}
		if _, err := os.Stat(wholefile.Temporary(f.path)); err == nil {
			t.Error("an unfinished file was left behind")
		}
		if got, err := get(f); got != "the old content" || err != nil {
			t.Fatalf("after %d octets: %q, %v", n, got, err)
		}
	}
	for n := range whole {
		if err := os.WriteFile(wholefile.Temporary(f.path), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := get(f); got != "the old content" || err != nil {
			t.Fatalf("with %d octets of a crash's: %q, %v", n, got, err)
		}
	}
	put(t, f, "the new content")
	if got, err := get(f); got != "the new content" || err != nil {
		t.Errorf("over a crash's leavings: %q, %v", got, err)
	}
}

// (SECURITY C-09, F-29)
func TestStateFileSetsAsideWhatItCannotRead(t *testing.T) {
	f := stateOf(t)
	put(t, f, "content")
	whole, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(about string, b []byte) {
		t.Helper()
		if err := os.WriteFile(f.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := get(f)
		if _, ok := errors.AsType[*asideError](err); !ok || got != "" {
			t.Errorf("%s: %q, %v", about, got, err)
			return
		}
		if kept, _ := os.ReadFile(f.path + ".corrupt"); !bytes.Equal(kept, b) {
			t.Errorf("%s: it was not set aside", about)
		}
		if got, err := get(f); got != "" || err != nil {
			t.Errorf("%s: then %q, %v", about, got, err)
		}
	}
	for n := range whole {
		refused("truncated", whole[:n])
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[n] ^= 1 << bit
			refused("a flipped bit", b)
		}
	}
	refused("longer", append(bytes.Clone(whole), 0))
	refused("another version", bytes.Replace(whole, []byte("things 1"), []byte("things 2"), 1))
	refused("too large", make([]byte, f.limit+1))
}

func TestStateFileSetsAsideWhatItsReaderRefuses(t *testing.T) {
	f := stateOf(t)
	put(t, f, "content")
	err := f.load(func(io.Reader) error { return errors.New("no sense in it") })
	if err == nil || !strings.Contains(err.Error(), "no sense in it") || !strings.Contains(err.Error(), ".corrupt") {
		t.Errorf("load: %v", err)
	}
	if _, err := os.Stat(f.path); err == nil {
		t.Error("it is still there")
	}
}
