package draft

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"smartdns/internal/wholefile"
)

// ErrThere is the error of a file that is there already and may not be
// replaced.
var ErrThere = errors.New("is there already")

// Write puts the draft and the files beside it where they belong. check judges
// the text when the other files are there, as Settle has it. With replace, what
// is there already becomes a file of that name and ".old"; without it, that is
// ErrThere, and nothing is written.
//
// It returns the paths of what it wrote, the draft last.
func (d *Draft) Write(check func(text string) error, replace bool) ([]string, error) {
	path := d.options.Path
	var before []string // what was there
	for _, p := range append(d.paths(), path) {
		_, err := os.Lstat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("looking for a file: %w", err)
		case !replace:
			return nil, fmt.Errorf("%s %w", p, ErrThere)
		default:
			before = append(before, p)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the directory: %w", err)
	}
	for _, p := range before {
		old, err := os.ReadFile(p)
		if err == nil {
			err = wholefile.ReplaceBytes(p+".old", old)
		}
		if err != nil {
			return nil, fmt.Errorf("keeping %s: %w", p, err)
		}
	}
	var written []string
	for _, f := range d.files {
		if err := put(f.Path, f.Text, 0o644); err != nil {
			return written, err
		}
		written = append(written, f.Path)
	}
	if err := d.Settle(check); err != nil {
		return written, err
	}
	mode := os.FileMode(0o644)
	if d.Secret() {
		mode = 0o600
	}
	if err := put(path, d.Text(), mode); err != nil {
		return written, err
	}
	return append(written, path), nil
}

func (d *Draft) paths() []string {
	var all []string
	for _, f := range d.files {
		all = append(all, f.Path)
	}
	return all
}

func put(path, text string, mode os.FileMode) error {
	err := wholefile.Replace(path, func(f *os.File) error {
		if _, err := f.WriteString(text); err != nil {
			return err
		}
		return f.Chmod(mode)
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
