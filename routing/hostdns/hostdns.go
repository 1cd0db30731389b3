// Package hostdns makes this host ask us: it writes resolv.conf where that is a
// plain file of its own, keeps it so, and puts the former file back.
package hostdns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"smartdns/internal/wholefile"
)

// ErrNotPlain is matched by the errors of a resolv.conf that somebody else
// looks after: a symbolic link, a mount, an immutable file, or one with the
// header of a known program. They say what to do instead.
var ErrNotPlain = errors.New("not a plain file of its own")

// errContested is what Err says after giving up.
var errContested = errors.New("somebody keeps rewriting it")

// Options says which file to write, and what.
type Options struct {
	Path    string       // the resolv.conf
	Saved   string       // where the former file is kept; its directory must outlive a reboot
	Servers []netip.Addr // where we listen on port 53, at most three
	Search  []string     // in the place of the file's own search list; nil keeps that
	Logger  *slog.Logger
	// Changed is told the Err of each rewrite by others that Run dealt with.
	// nil: nobody. It must not block.
	Changed func(error)
}

// File is a resolv.conf that names us. Its methods may be called concurrently.
//
// It is replaced by rename, not written in place: nobody ever reads half of it,
// and a crash leaves one of the two files whole. The price is that it must not
// be a mount point, which is one of the refusals anyway.
type File struct {
	o Options

	mu     sync.Mutex // guards following
	recent []time.Time
	err    error
}

// New returns a File for o; nothing is written yet. Only Path and Saved are
// needed for Restore.
func New(o Options) *File { return &File{o: o} }

// Set saves the file and makes it name us and nobody else, with the search
// list and options it had. It is idempotent, and knows a file that a killed
// run of ours left. The error matches ErrNotPlain when the file is not ours to
// write; then nothing is changed.
func (f *File) Set() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recent = nil
	_, f.err = f.setLocked()
	return f.err
}

// Err says why the file does not name us, or nil.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// setLocked reports whether it had to write.
func (f *File) setLocked() (wrote bool, err error) {
	saved, err := readSnapshot(f.o.Saved)
	if err != nil {
		return false, fmt.Errorf("reading the saved resolv.conf: %w", err)
	}
	if err := checkPlain(f.o.Path); err != nil {
		return false, err
	}
	now, err := readSnapshot(f.o.Path)
	switch {
	case err != nil:
		return false, fmt.Errorf("reading resolv.conf: %w", err)
	case now == nil && saved == nil:
		return false, fmt.Errorf("%s does not exist, and nobody would know what to restore; create it first: touch %[1]s: %w", f.o.Path, fs.ErrNotExist)
	case now == nil: // somebody deleted ours
		now = &snapshot{mode: saved.mode, uid: saved.uid, gid: saved.gid}
	case !isOurs(now.data):
		if err := checkManaged(f.o.Path, now.data); err != nil {
			return false, err
		}
		if err := now.write(f.o.Saved); err != nil {
			return false, fmt.Errorf("saving resolv.conf: %w", err)
		}
		saved = now
	}
	base := now.data // when an earlier run's saved file was lost
	if saved != nil {
		base = saved.data
	}
	want := *now
	want.data = generate(base, f.o)
	if bytes.Equal(want.data, now.data) {
		return false, nil
	}
	if err := want.write(f.o.Path); err != nil {
		return false, fmt.Errorf("writing resolv.conf: %w", err)
	}
	return true, nil
}

// Restore puts the former file back, byte for byte and with its mode and owner,
// unless somebody has replaced ours since. It is idempotent; also cleanup and
// the next start after a crash call it.
func (f *File) Restore() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	saved, err := readSnapshot(f.o.Saved)
	if err != nil {
		return fmt.Errorf("reading the saved resolv.conf: %w", err)
	}
	if err := removeIfThere(wholefile.Temporary(f.o.Path)); err != nil {
		return fmt.Errorf("restoring resolv.conf: %w", err)
	}
	ours, err := f.oursOrGone()
	if err != nil {
		return fmt.Errorf("restoring resolv.conf: %w", err)
	}
	switch {
	case ours && saved != nil:
		if err := saved.write(f.o.Path); err != nil {
			return fmt.Errorf("restoring resolv.conf: %w", err)
		}
	case ours:
		if _, err := os.Lstat(f.o.Path); err == nil {
			return fmt.Errorf("%s names only us, and the file it was is lost (%s): write a nameserver into it", f.o.Path, f.o.Saved)
		}
	}
	if err := errors.Join(removeIfThere(f.o.Saved), removeIfThere(wholefile.Temporary(f.o.Saved))); err != nil {
		return fmt.Errorf("forgetting the saved resolv.conf: %w", err)
	}
	return nil
}

// oursOrGone reports whether the file is the one we wrote, or not there at all.
func (f *File) oursOrGone() (bool, error) {
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
