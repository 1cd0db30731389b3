package update

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"smartdns/internal/wholefile"
)

// Names in the directory of a list.
const (
	currentName  = "list"
	previousName = "list.previous"
	recordName   = "record.json"
	corruptName  = "list.corrupt"
)

// MaxSize is how long a list may be, in bytes, as it comes and after the
// transport's own compression.
const MaxSize = 32 << 20

// recordSchema is the version of record. Another one is not read.
const recordSchema = 1

// Version is a content that a list had, or has.
type Version struct {
	SHA256  string    `json:"sha256"` // of the content, in hex
	URL     string    `json:"url"`    // where it came from
	Fetched time.Time `json:"fetched"`
	Size    int64     `json:"size"` // bytes
	Summary Summary   `json:"summary"`
	Dated   time.Time `json:"dated"` // what its signature or itself says; zero: nothing does
	Ends    bool      `json:"ends"`  // it is text, and ends in a whole line
	Proof   string    `json:"proof"` // what it had to show, as Proof.text
}

// record is what is kept of a list beside its content.
type record struct {
	Schema   int       `json:"schema"`
	Versions []Version `json:"versions"` // the newest first. That of a file is the one with its hash

	// What the mirror said with the last answer that was taken.
	URL          string `json:"url,omitempty"`
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`

	Checked  time.Time `json:"checked"` // when a mirror last had nothing better
	Tried    time.Time `json:"tried"`
	Failures int       `json:"failures"` // since it last worked
	Error    string    `json:"error,omitempty"`
	Gated    bool      `json:"gated,omitempty"` // Error is what force overrules
	Newest   time.Time `json:"newest"`          // the latest date of any version that was good
	Left     string    `json:"left,omitempty"`  // the hash of a version that a person went back from
}

// Copy is a stored content.
type Copy struct {
	Path    string
	Version Version
	Known   bool   // its record is there; without, nobody knows whether the content is whole
	Problem string // what is wrong with what is stored, "" for nothing
}

// store is the directory of one list. It has no state: what it says is what is
// on disk.
type store struct{ dir string }

func storeOf(dir, list string) store { return store{filepath.Join(dir, list)} }

func (s store) path(name string) string { return filepath.Join(s.dir, name) }

// Stored returns the content of a list in dir, of its last good version: not
// that of a damaged file. It changes nothing. A zero Copy without a Problem
// means that there is nothing.
func Stored(dir, list string) Copy {
	s := storeOf(dir, list)
	r, err := s.read()
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	for _, name := range []string{currentName, previousName} {
		v, known, err := s.identify(name, r)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			problem = joined(problem, err.Error())
		case known || name == currentName && len(r.Versions) == 0:
			return Copy{Path: s.path(name), Version: v, Known: known, Problem: problem}
		default:
			problem = joined(problem, fmt.Sprintf("%s is damaged or not whole", s.path(name)))
		}
	}
	return Copy{Problem: problem}
}

// Previous returns the content of a list in dir before its last update; a zero
// Copy when there is none.
func Previous(dir, list string) Copy {
	s := storeOf(dir, list)
	r, err := s.read()
	if err != nil {
		return Copy{}
	}
	v, known, err := s.identify(previousName, r)
	if err != nil || !known {
		return Copy{}
	}
	return Copy{Path: s.path(previousName), Version: v, Known: true}
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// identify returns the version that a file of the list is, and reports whether
// the record knows it.
func (s store) identify(name string, r record) (Version, bool, error) {
	size, sum, err := hashFile(s.path(name))
	if err != nil {
		return Version{}, false, err
	}
	for _, v := range r.Versions {
		if v.SHA256 == sum {
			return v, true, nil
		}
	}
	return Version{SHA256: sum, Size: size}, false, nil
}

func hashFile(path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, "", err
	}
	if !info.Mode().IsRegular() || info.Size() > MaxSize {
		return 0, "", fmt.Errorf("%s: not a file of ours", path)
	}
	h := sha256.New()
	size, err = io.Copy(h, f)
	if err != nil {
		return 0, "", err
	}
	return size, hex.EncodeToString(h.Sum(nil)), nil
}

// maxRecord is how long a record can be, with room for long URLs.
const maxRecord = 64 << 10

// read returns the record; an empty one where there is none.
func (s store) read() (record, error) {
	f, err := os.Open(s.path(recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("reading what is known of the stored list: %w", err)
	}
	defer f.Close()
	var r record
	b, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && r.Schema != recordSchema {
		err = fmt.Errorf("it is of schema %d, and this program knows %d", r.Schema, recordSchema)
	}
	if err != nil {
		return record{}, fmt.Errorf("%s is damaged: %w", s.path(recordName), err)
	}
	return r, nil
}

func (s store) write(r record) error {
	r.Schema = recordSchema
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.MkdirAll(s.dir, 0o700)
	}
	if err == nil {
		err = wholefile.ReplaceBytes(s.path(recordName), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing what is known of the stored list: %w", err)
	}
	return nil
}

// replace makes what fill writes the content of the list, and its content of
// now the previous one. Fill returns the record with the new version in it; an
// error of fill leaves all as it was. Killed at any moment, the list has the
// old content or the new one, and the record knows both.
func (s store) replace(fill func(*os.File) (record, error)) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("making the list's directory: %w", err)
	}
	return wholefile.Replace(s.path(currentName), func(f *os.File) error {
		r, err := fill(f)
		if err != nil {
			return err
		}
		if err := s.write(r); err != nil {
			return err
		}
		return s.keepPrevious()
	})
}

// keepPrevious gives the current content a second name.
func (s store) keepPrevious() error {
	next := wholefile.Temporary(s.path(previousName))
	remove := func() error {
		if err := os.Remove(next); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := remove(); err != nil {
		return err
	}
	err := os.Link(s.path(currentName), next)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is none yet
	}
	if err == nil {
		err = os.Rename(next, s.path(previousName))
	}
	if err == nil {
		err = remove() // a rename onto another name of the same file does nothing
	}
	if err != nil {
		return fmt.Errorf("keeping the previous version: %w", err)
	}
	return nil
}

// with returns r with v as its newest version, and those before that a file may
// still be.
func (r record) with(v Version) record {
	versions := []Version{v}
	for _, old := range r.Versions {
		if old.SHA256 != v.SHA256 && len(versions) < 3 {
			versions = append(versions, old)
		}
	}
	r.Versions = versions
	return r
}

// of returns r as it was before an update that ended between writing it and the
// content: what the mirror said was about that content, and c is what is there.
func (r record) of(c Copy) record {
	if !c.Known || r.Versions[0].SHA256 == c.Version.SHA256 {
		return r
	}
	r = r.with(c.Version)
	r.ETag, r.LastModified, r.Checked = "", "", time.Time{}
	return r
}

// errNoPrevious means that there is nothing to go back to.
var errNoPrevious = errors.New("there is no previous version to go back to")

// rollback makes the previous version the current one, and the other way round.
func (s store) rollback() (Version, error) {
	r, err := s.read()
	if err != nil {
		return Version{}, err
	}
	v, known, err := s.identify(previousName, r)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !known {
		return Version{}, errNoPrevious
	}
	if err != nil {
		return Version{}, err
	}
	left, _, err := s.identify(currentName, r)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Version{}, err
	}
	if left.SHA256 == v.SHA256 {
		return Version{}, errNoPrevious
	}
	err = s.replace(func(f *os.File) (record, error) {
		old, err := os.Open(s.path(previousName))
		if err != nil {
			return record{}, err
		}
		defer old.Close()
		if _, err := io.Copy(f, old); err != nil {
			return record{}, err
		}
		r.Left, r.Error, r.Gated = left.SHA256, "", false
		return r.with(v), nil
	})
	if err != nil {
		return Version{}, fmt.Errorf("going back to the previous version: %w", err)
	}
	return v, nil
}

// mend sets a damaged current file aside, and puts the previous version in its
// place where that is whole. It returns what was wrong, "" for nothing.
func (s store) mend() string {
	r, err := s.read()
	if err != nil {
		aside := s.path(recordName) + ".corrupt"
		if e := os.Rename(s.path(recordName), aside); e != nil {
			return fmt.Sprintf("%v; setting it aside: %v", err, e)
		}
		return fmt.Sprintf("%v; it lies at %s now", err, aside)
	}
	v, known, err := s.identify(currentName, r)
	switch {
	case err == nil && known && r.Versions[0].SHA256 != v.SHA256:
		if err := s.write(r.of(Copy{Version: v, Known: true})); err != nil {
			return err.Error()
		}
		return ""
	case err == nil && (known || len(r.Versions) == 0):
		return ""
	case errors.Is(err, fs.ErrNotExist):
		if len(r.Versions) == 0 {
			return ""
		}
		err = errors.New("it is not there any more")
	case errors.Is(err, fs.ErrPermission):
		return err.Error()
	default:
		if err == nil {
			err = errors.New("its checksum is wrong: it is damaged or not whole")
		}
		if e := os.Rename(s.path(currentName), s.path(corruptName)); e != nil {
			return fmt.Sprintf("%s: %v; setting it aside: %v", s.path(currentName), err, e)
		}
	}
	problem := fmt.Sprintf("%s: %v", s.path(currentName), err)
	r.ETag, r.LastModified, r.Checked = "", "", time.Time{} // what the mirror has is wanted whole, and now
	then := "there is no copy of it now"
	if _, known, err := s.identify(previousName, r); err == nil && known {
		if err := os.Rename(s.path(previousName), s.path(currentName)); err != nil {
			return fmt.Sprintf("%s; taking the previous version: %v", problem, err)
		}
		then = "the previous version took its place"
	}
	if err := s.write(r); err != nil {
		return fmt.Sprintf("%s; %s; %v", problem, then, err)
	}
	return problem + "; " + then
}
