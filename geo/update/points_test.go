package update_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"smartdns/geo/update"
	"smartdns/lab/failpoint"
)

// envDir makes TestAnUpdateForAnotherTest update the list that is stored there.
const envDir = "SMARTDNS_TEST_LISTS"

func TestMain(m *testing.M) {
	if err := failpoint.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// The program of TestUpdateKilledAtEveryPoint: it has ten names, and gets
// eleven.
func TestAnUpdateForAnotherTest(t *testing.T) {
	dir := os.Getenv(envDir)
	if dir == "" {
		return // nobody asks for it
	}
	m := newMirror(t)
	m.serves("/list", names(11))
	k := keep(t, m, "https://example.com/list")
	k.dir = dir
	k.open(m.roots())
	if r := k.update(true); r.Err != nil || !r.Changed {
		t.Fatalf("%+v", r)
	}
}

// Killed before any change that an update makes to files, the list is the one of
// before or the new one, whole, at the next start; and the next update has the
// new one (SECURITY C-11).
func TestUpdateKilledAtEveryPoint(t *testing.T) {
	for n := 0; ; n++ {
		m := newMirror(t)
		m.serves("/list", names(10))
		k := keep(t, m, "https://example.com/list")
		if r := k.update(false); r.Err != nil || !r.Changed {
			t.Fatalf("%+v", r)
		}
		killed := updateIn(t, k.dir, n)

		k.open(m.roots())
		if c := update.Stored(k.dir, "a"); c.Path == "" || c.Problem != "" || c.Version.Summary.Entries != 10 && c.Version.Summary.Entries != 11 {
			t.Errorf("killed before %q, %d changes: in use is %+v", killed, n, c)
		} else {
			k.has(names(c.Version.Summary.Entries))
		}
		m.serves("/list", names(11))
		if r := k.update(true); r.Err != nil {
			t.Errorf("killed before %q: the next update: %v", killed, r.Err)
		}
		k.has(names(11))
		k.left()
		if killed == "" {
			if n < 15 {
				t.Errorf("there were only %d changes to be killed before", n)
			}
			return
		}
	}
}

// updateIn runs a program that updates the list in dir and may make so many
// changes; it returns the one before which it was killed.
func updateIn(t *testing.T, dir string, changes int) (killed string) {
	t.Helper()
	gate := filepath.Join(t.TempDir(), "gate")
	g, err := failpoint.Listen(gate)
	if err != nil {
		t.Fatal(err)
	}
	g.Limit(changes)
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestAnUpdateForAnotherTest$", "-test.timeout="+time.Minute.String())
	c.Env = append(os.Environ(), envDir+"="+dir, failpoint.Env+"="+gate)
	out, err := c.CombinedOutput()
	if cerr := g.Close(); cerr != nil {
		t.Fatalf("%v\n%s", cerr, out)
	}
	if killed = g.Killed(); (err == nil) != (killed == "") {
		t.Fatalf("%v, killed before %q\n%s", err, killed, out)
	}
	return killed
}
