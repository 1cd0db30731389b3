package hostdns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"smartdns/internal/wholefile"
)

// file is resolv.conf itself, a file or a link to one.
//
// It is replaced by rename, not written in place: nobody ever reads half of it,
// a crash leaves one of the two whole, and what a link led to stays as it is,
// for its owner to go on writing. Only a mount point cannot be replaced.
type file struct{ o Options }

func (f file) String() string { return f.o.Path }

func (f file) set(context.Context) (bool, error) {
	saved, err := readSnapshot(f.o.Saved)
	if err != nil {
		return false, fmt.Errorf("reading the saved one: %w", err)
	}
	if err := checkWritable(f.o.Path); err != nil {
		return false, err
	}
	now, err := readSnapshot(f.o.Path)
	switch {
	case err != nil:
		return false, fmt.Errorf("reading: %w", err)
	case now == nil && saved == nil:
		return false, fmt.Errorf("it does not exist, and nobody would know what to restore; create it first: touch %s: %w", f.o.Path, fs.ErrNotExist)
	case now == nil: // somebody deleted ours
		now = &snapshot{mode: saved.mode, uid: saved.uid, gid: saved.gid}
	case !isOurs(now.data):
		if err := checkManaged(f.content(now)); err != nil {
			return false, err
		}
		if err := now.write(f.o.Saved); err != nil {
			return false, fmt.Errorf("saving: %w", err)
		}
		saved = now
	}
	base := now.data // when an earlier run's saved file was lost
	if saved != nil {
		base = f.content(saved)
	}
	want := snapshot{data: generate(base, f.o), mode: now.mode, uid: now.uid, gid: now.gid, label: now.label}
	if now.link == "" && bytes.Equal(want.data, now.data) {
		return false, nil
	}
	if err := want.write(f.o.Path); err != nil {
		return false, fmt.Errorf("writing: %w", err)
	}
	return true, nil
}

// content is what programs read, through a link where it is one.
func (f file) content(s *snapshot) []byte {
	if s.link == "" {
		return s.data
	}
	target := s.link
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(f.o.Path), target)
	}
	data, _ := os.ReadFile(target) // a dangling link says nothing
	return data
}

func (f file) restore(context.Context) error {
	saved, err := readSnapshot(f.o.Saved)
	if err != nil {
		return fmt.Errorf("reading the saved one: %w", err)
	}
	if err := removeIfThere(wholefile.Temporary(f.o.Path)); err != nil {
		return err
	}
	ours, err := f.oursOrGone()
	if err != nil {
		return err
	}
	switch {
	case ours && saved != nil:
		if err := saved.write(f.o.Path); err != nil {
			return err
		}
	case ours:
		if _, err := os.Lstat(f.o.Path); err == nil {
			return fmt.Errorf("it names only us, and the file it was is lost (%s): write a nameserver into it", f.o.Saved)
		}
	}
	if err := errors.Join(removeIfThere(f.o.Saved), removeIfThere(wholefile.Temporary(f.o.Saved))); err != nil {
		return fmt.Errorf("forgetting the saved one: %w", err)
	}
	return nil
}

// oursOrGone reports whether the file is the one we wrote, or not there at all.
func (f file) oursOrGone() (bool, error) {
	info, err := os.Lstat(f.o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	data, err := os.ReadFile(f.o.Path)
	return isOurs(data), err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
