package failpoint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smartdns/internal/wholefile"
)

// envPath makes this test binary replace a file.
const envPath = "SMARTDNS_TEST_REPLACE"

func TestMain(m *testing.M) {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if path := os.Getenv(envPath); path != "" {
		if err := wholefile.ReplaceBytes(path, []byte("new content")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A file that is replaced is the old one or the new one, whole, whatever the
// change before which the program was killed, and the next program replaces it
// (SECURITY C-10).
func TestReplacedFileIsOldOrNewAtEveryPoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	seen := map[string]bool{}
	for n := 0; ; n++ {
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		made, killed := replace(t, path, n)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		renamed := slices.ContainsFunc(made, func(s string) bool { return strings.HasPrefix(s, "rename ") })
		if want := map[bool]string{false: "old", true: "new content"}[renamed]; string(b) != want {
			t.Errorf("killed before %q: %q, want %q", killed, b, want)
		}
		seen[strings.Fields(killed + " -")[0]] = true
		if killed == "" {
			break
		}
		if len(made) != n {
			t.Errorf("killed before %q after %q, want %d changes", killed, made, n)
		}
		replace(t, path, -1)
		if b, err := os.ReadFile(path); err != nil || string(b) != "new content" {
			t.Errorf("killed before %q, and replaced again: %q, %v", killed, b, err)
		}
	}
	for _, what := range []string{"create", "write", "sync", "rename", "end"} {
		if !seen[what] {
			t.Errorf("never killed before %q, only before %v", what, seen)
		}
	}
}

// replace runs a program that replaces a file and may make so many changes.
func replace(t *testing.T, path string, changes int) (made []string, killed string) {
	t.Helper()
	gate := filepath.Join(t.TempDir(), "gate")
	g, err := Listen(gate)
	if err != nil {
		t.Fatal(err)
	}
	g.Limit(changes)
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), envPath+"="+path, Env+"="+gate)
	out, err := c.CombinedOutput()
	if cerr := g.Close(); cerr != nil {
		t.Fatalf("%v\n%s", cerr, out)
	}
	made, killed = g.Passed(), g.Killed()
	if (err == nil) != (killed == "") {
		t.Fatalf("%v, killed before %q\n%s", err, killed, out)
	}
	return made, killed
}
