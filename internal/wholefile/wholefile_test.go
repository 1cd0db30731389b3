package wholefile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"smartdns/internal/wholefile"
)

// (SECURITY C-10)
func TestReplaceLeavesTheOldFileOrTheNewOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := wholefile.ReplaceBytes(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err := wholefile.Replace(path, func(f *os.File) error {
		if _, err := f.WriteString("half of the n"); err != nil {
			return err
		}
		if got, err := os.ReadFile(path); string(got) != "old" || err != nil {
			t.Errorf("while the new one is written, the file has %q, %v", got, err)
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("Replace = %v, want what fill says", err)
	}
	if got, err := os.ReadFile(path); string(got) != "old" || err != nil {
		t.Errorf("after a failure the file has %q, %v", got, err)
	}
	if all, err := os.ReadDir(dir); len(all) != 1 || err != nil {
		t.Errorf("a failure left %v, %v", all, err)
	}
	if err := wholefile.ReplaceBytes(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); string(got) != "new" || err != nil {
		t.Errorf("the file has %q, %v", got, err)
	}
}

// What a crash left behind, or somebody put there, is neither read nor followed.
func TestReplaceRemovesWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	path, elsewhere := filepath.Join(dir, "file"), filepath.Join(dir, "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("theirs"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, wholefile.Temporary(path)); err != nil {
		t.Fatal(err)
	}
	if err := wholefile.ReplaceBytes(path, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(elsewhere); string(got) != "theirs" || err != nil {
		t.Errorf("a link at the temporary name was followed: %q, %v", got, err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v; want a regular one that only its owner reads", info, err)
	}
	if _, err := os.Lstat(wholefile.Temporary(path)); !os.IsNotExist(err) {
		t.Errorf("the temporary file is still there: %v", err)
	}
}
