package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"smartdns/configs"
	"smartdns/resolver/policy"
	"smartdns/web/api"
)

// recordSet is the records of the user's, and what was read for them.
type recordSet struct {
	records *policy.Records
	files   map[string]fileState
	lists   []api.List // the status of each file
}

// fileState tells one content of a file from another without reading it. The
// zero fileState is that of a file that is not there.
type fileState struct {
	size     int64
	modified time.Time
	inode    uint64
}

func statOf(info fs.FileInfo) fileState {
	s := fileState{size: info.Size(), modified: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}

// stateNow returns the state of the file at path.
func stateNow(path string) fileState {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}
	}
	return statOf(info)
}

// changed reports whether a file is not the one that was read.
func (s *recordSet) changed() bool {
	for path, was := range s.files {
		if stateNow(path) != was {
			return true
		}
	}
	return false
}

// compileRecords reads c and the files it names. The states of these are there
// also when there is an error, which joins those of all of them.
func compileRecords(c configs.Records) (recordSet, error) {
	s := recordSet{records: new(policy.Records), files: map[string]fileState{}}
	var errs []error
	for _, l := range c.Lines {
		if err := s.records.AddZone(strings.NewReader(l.Text+"\n"), l.Pos.File, l.Pos.Line); err != nil {
			errs = append(errs, fmt.Errorf("%s: [records] lines: %s", l.Pos, strings.TrimPrefix(err.Error(), l.Pos.String()+": ")))
		}
	}
	for _, f := range c.Zones {
		errs = append(errs, s.read(f, "zones", func(r io.Reader, name string) (policy.Passed, error) {
			return policy.Passed{}, s.records.AddZone(r, name, 1)
		}))
	}
	for _, f := range c.Hosts {
		errs = append(errs, s.read(f, "hosts", s.records.AddHosts))
	}
	s.records.Close()
	return s, errors.Join(errs...)
}

// read adds the records of one file.
func (s *recordSet) read(f configs.RecordFile, key string, add func(io.Reader, string) (policy.Passed, error)) error {
	s.files[f.Path] = fileState{}
	located := func(err error) error {
		if e, ok := errors.AsType[*fs.PathError](err); ok && e.Path == f.Path {
			err = e.Err
		}
		return fmt.Errorf("%s: [records] %s %s: %w", f.Pos, key, f.Path, err)
	}
	in, err := openRegular(f.Path)
	if err != nil {
		return located(err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return located(err)
	}
	s.files[f.Path] = statOf(info) // of before: what changes while it is read is read again
	before := s.records.Len()
	passed, err := add(in, filepath.Base(f.Path))
	if err != nil {
		return located(err)
	}
	l := api.List{
		Name: filepath.Base(f.Path), Source: f.Path, Kind: key,
		Entries: s.records.Len() - before, Dropped: passed.Lines, Loaded: time.Now(),
	}
	if passed.First != nil {
		l.FirstDropped = passed.First.Error()
	}
	s.lists = append(s.lists, l)
	return nil
}

// errRecordsKept begins what is wrong with files that changed while we run.
var errRecordsKept = errors.New("the records stay as they were")

// followRecords takes over files of records that changed on disk, and reports
// whether there were any. As long as something is wrong in them, the records
// stay as they were.
func (e *engine) followRecords(ctx context.Context) bool {
	if !e.parts.Records.changed() {
		return false
	}
	next, err := compileRecords(e.parts.Config.Records)
	parts := *e.parts
	if err != nil {
		err = fmt.Errorf("%w: %w", errRecordsKept, err)
		parts.Records.files = maps.Clone(next.files)
	} else {
		parts.Records = next
		pol := *e.policy
		pol.Local.Records = next.records
		e.policy = &pol
		e.resolver.Swap(&pol)
		e.log.Info("read the records again", "names", next.records.Len())
	}
	e.parts = &parts
	e.note(ctx, "records", err)
	return true
}

// allLists returns the status of everything that was read.
func (p *Parts) allLists() []api.List { return slices.Concat(p.Lists, p.Records.lists) }
