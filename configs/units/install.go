package units

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"smartdns/internal/wholefile"
)

// Done says what became of a file.
type Done string

// What can become of a file.
const (
	Wrote   Done = "wrote"
	Same    Done = "as it was"
	Kept    Done = "kept" // for the user to edit, or edited
	Removed Done = "removed"
)

// Outcome is what became of the file at Path.
type Outcome struct {
	Path string
	Done Done
}

// ErrForeign is about files that are not ours, or were edited: nothing was
// written.
var ErrForeign = errors.New("is in the way")

// Install does what Add does. What Files gave before, and is not in files, goes.
func Install(root string, files []File) ([]Outcome, error) {
	all, err := Add(root, files)
	if err != nil {
		return all, err
	}
	root = rooted(root)
	for _, p := range paths() {
		if slices.ContainsFunc(files, func(f File) bool { return f.Path == p }) {
			continue
		}
		o, err := remove(root, p)
		if err != nil {
			return all, err
		}
		if o.Done == Removed { // one that was edited has become the user's
			all = append(all, o)
		}
	}
	return all, nil
}

// Add writes files below root, "" for /. Where a file is not ours or was edited
// since, nothing is written, and the error, an ErrForeign, names all such.
func Add(root string, files []File) ([]Outcome, error) {
	root = rooted(root)
	var foreign []error
	for _, f := range files {
		switch now, err := look(root + f.Path); {
		case err != nil:
			foreign = append(foreign, err)
		case now.there && !now.ours && !f.Settings:
			foreign = append(foreign, fmt.Errorf("%s %w: it is not of smartdns install", root+f.Path, ErrForeign))
		case now.there && !now.untouched && !f.Settings:
			foreign = append(foreign, fmt.Errorf("%s %w: it was edited since smartdns install wrote it; move it aside", root+f.Path, ErrForeign))
		}
	}
	if len(foreign) > 0 {
		return nil, errors.Join(foreign...)
	}
	var all []Outcome
	for _, f := range files {
		done, err := put(root+f.Path, f)
		if err != nil {
			return all, err
		}
		all = append(all, Outcome{root + f.Path, done})
	}
	return all, nil
}

// put gives a path its file.
func put(to string, f File) (Done, error) {
	now, err := look(to)
	if err != nil {
		return "", err
	}
	text := seal(f.Text)
	switch {
	case f.Settings && now.there && !now.untouched:
		return Kept, nil
	case now.text == text && now.mode == f.Mode:
		return Same, nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return "", fmt.Errorf("making a directory: %w", err)
	}
	err = wholefile.Replace(to, func(file *os.File) error {
		if _, err := file.WriteString(text); err != nil {
			return err
		}
		return file.Chmod(f.Mode)
	})
	if err != nil {
		return "", fmt.Errorf("writing %s: %w", to, err)
	}
	return Wrote, nil
}

// Uninstall removes what Install and Add wrote below root, of every init, or with
// peers that of far ends alone. A file that was edited is kept.
func Uninstall(root string, peers bool) ([]Outcome, error) {
	root = rooted(root)
	var all []Outcome
	which := append(paths(), peerPath)
	if peers {
		which = []string{peerPath}
	}
	for _, p := range which {
		o, err := remove(root, p)
		if err != nil {
			return all, err
		}
		if o.Done != "" {
			all = append(all, o)
		}
	}
	return all, nil
}

// remove removes a file of ours, and the directory of drop-ins when it was the
// last.
func remove(root, p string) (Outcome, error) {
	now, err := look(root + p)
	switch {
	case err != nil || !now.ours:
		return Outcome{}, err
	case !now.untouched:
		return Outcome{root + p, Kept}, nil
	}
	if err := os.Remove(root + p); err != nil {
		return Outcome{}, fmt.Errorf("removing a file: %w", err)
	}
	if dir := filepath.Dir(root + p); strings.HasSuffix(dir, ".service.d") {
		if left, err := os.ReadDir(dir); err == nil && len(left) == 0 {
			if err := os.Remove(dir); err != nil {
				return Outcome{}, fmt.Errorf("removing a directory: %w", err)
			}
		}
	}
	return Outcome{root + p, Removed}, nil
}

// seen is what is at a path.
type seen struct {
	there, ours, untouched bool
	text                   string
	mode                   fs.FileMode
}

func look(path string) (seen, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return seen{}, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		return seen{there: true}, nil // a link, as systemctl mask makes one
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return seen{}, fmt.Errorf("looking at what is there: %w", err)
	}
	s := seen{there: true, text: string(text), mode: info.Mode().Perm()}
	s.ours, s.untouched = sealed(s.text)
	return s, nil
}

// Other returns the file by which another program called smartdns starts below
// root, as pymumu's in Debian's package of that name; "" for none.
func Other(root string) string {
	root = rooted(root)
	for _, f := range []string{"/etc/systemd/system/smartdns.service", "/usr/lib/systemd/system/smartdns.service", "/lib/systemd/system/smartdns.service", "/etc/init.d/smartdns"} {
		text, err := os.ReadFile(root + f)
		if ours, _ := sealed(string(text)); err != nil || ours {
			continue
		}
		if s := string(text); strings.Contains(s, "smartdns.conf") || strings.Contains(s, "SMART_DNS_OPTS") || strings.Contains(s, "smartdns.pid") {
			return root + f
		}
	}
	return ""
}

// Enabled returns the links by which what Install and Add wrote below root, or
// with peers what Add did, is started at boot. They are the init's own, and for it
// to remove.
func Enabled(root string, peers bool) ([]string, error) {
	root = rooted(root)
	var all []string
	for _, start := range []struct{ file, links string }{
		{peerPath, "/etc/systemd/system/*.wants/smartdns-peer@*.service"},
		{"/etc/systemd/system/smartdns.service", "/etc/systemd/system/*.wants/smartdns.service"},
		{"/etc/systemd/system/smartdns-early.service", "/etc/systemd/system/*.wants/smartdns-early.service"},
		{"/etc/init.d/smartdns", "/etc/runlevels/*/smartdns"},
		{"/etc/init.d/smartdns", "/etc/rc.d/[SK][0-9][0-9]smartdns"},
	} {
		if peers && start.file != peerPath {
			continue
		}
		now, err := look(root + start.file)
		if err != nil {
			return nil, err
		}
		if now.ours {
			links, _ := filepath.Glob(root + start.links) // the patterns are right
			all = append(all, links...)
		}
	}
	return all, nil
}

func rooted(root string) string { return strings.TrimSuffix(root, "/") }
