// Package wholefile replaces files so that a crash at any moment leaves the old
// content or the new one, whole.
package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Temporary returns where Replace writes before the file gets its name: one
// place for each path, so that a crash leaves at most one file behind, and that
// is found.
func Temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".smartdns")
}

// Replace gives path the content that fill writes; its mode is 0600 unless fill
// changes that. All is on disk when Replace returns nil; when it returns an
// error of before the last step, what was at path is still there. A path must
// not be replaced by two callers at a time.
func Replace(path string, fill func(*os.File) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	next := Temporary(path)
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// O_EXCL, so that a link that somebody puts there is not followed.
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = fill(file)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return dir.Sync() // the rename itself
}

// ReplaceBytes is Replace with content that is at hand.
func ReplaceBytes(path string, content []byte) error {
	return Replace(path, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}
