package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Whoever looks at the control socket, however early, finds it closed to
// others (SECURITY W-03).
func TestControlSocketIsClosedFromTheFirstInstant(t *testing.T) {
	for range 100 {
		dir := filepath.Join(t.TempDir(), "run")
		path := filepath.Join(dir, SocketName)
		locked, err := lock(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock(dir, locked)
		seen := make(chan fs.FileMode)
		go func() {
			for {
				if s, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
					seen <- s.Mode()
					return
				}
			}
		}()
		l, err := listenControl(dir)
		if err != nil {
			t.Fatal(err)
		}
		if m := <-seen; m != fs.ModeSocket|0o660 {
			t.Errorf("the socket appeared with mode %s", m)
		}
		if s, err := os.Stat(dir); err != nil || s.Mode().Perm() != 0o750 {
			t.Errorf("its directory: %v, %v", s.Mode(), err)
		}
		l.Close()
	}
}

// A socket that a killed daemon left is replaced; what is no socket of ours, and
// cannot be removed, is an error.
func TestControlSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	l, err := listenControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	again, err := listenControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if err := os.MkdirAll(filepath.Join(dir, SocketName, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := listenControl(dir); err == nil {
		t.Error("a directory in the socket's place is no error")
	}
}
