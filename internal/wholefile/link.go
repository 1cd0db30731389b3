package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ReplaceLink makes path a symbolic link to target, owned by uid and gid, in one
// step: a crash leaves what was at path, or the link.
func ReplaceLink(path, target string, uid, gid int) error {
	next := Temporary(path)
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, next); err != nil {
		return err
	}
	err := os.Lchown(next, uid, gid)
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
