package daemon

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/gaissmai/bart"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/geo/list"
	"smartdns/resolver/policy"
	"smartdns/web/api"
)

// lists reads the data lists that a Config names. Each is read when somebody
// asks for what it holds, and its status is kept.
type lists struct {
	config *configs.Config
	copies copies    // of those that are fetched
	guard  lineGuard // for the same

	mu     sync.Mutex // guards what status points to: lists are read side by side
	status map[string]*api.List
}

func newLists(c *configs.Config, stored copies, guard lineGuard) *lists {
	l := &lists{config: c, copies: stored, guard: guard, status: map[string]*api.List{}}
	for _, x := range c.Lists {
		source := l.path(x)
		switch {
		case source != "":
		case x.Name == configs.ListCNDomains:
			source = configs.GeoEmbedded
		default:
			source = "not fetched yet"
		}
		l.status[x.Name] = &api.List{Name: x.Name, Source: source, Error: stored[x.Name].problem}
	}
	return l
}

// path returns the file that a list is read from, "" when it has none.
func (l *lists) path(x configs.List) string {
	if len(x.Fetch.URLs) > 0 {
		return l.copies[x.Name].path
	}
	return x.File
}

// guarded returns the lines of a list, those of a fetched one that nobody can
// mean as Dropped.
func (l *lists) guarded(x configs.List, lines iter.Seq2[list.Line, error]) iter.Seq2[list.Line, error] {
	if len(x.Fetch.URLs) == 0 || l.path(x) == "" {
		return lines
	}
	return l.guard.watch(lines, ofHome(l.config, x.Name))
}

// report returns the status of every list that was read, in the order of the
// file.
func (l *lists) report() []api.List {
	var all []api.List
	for _, x := range l.config.Lists {
		if s := l.status[x.Name]; !s.Loaded.IsZero() || s.Error != "" {
			all = append(all, *s)
		}
	}
	return all
}

func (l *lists) find(name string) configs.List {
	i := slices.IndexFunc(l.config.Lists, func(x configs.List) bool { return x.Name == name })
	return l.config.Lists[i] // configs has checked that the list is there
}

// at is err with the place in the config file that named the list, unless the
// file that is wrong was fetched.
func at(x configs.List, err error) error {
	if len(x.Fetch.URLs) > 0 {
		return &copyError{x.Name, err}
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok && e.Path == x.File {
		err = e.Err // the path is in the sentence already
	}
	return fmt.Errorf("%s: [list.%s] %s: %w", x.Pos, x.Name, x.File, err)
}

// openRegular opens a regular file: a pipe would keep a reload waiting for ever.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// source is a list that was opened, from its start.
type source struct {
	date    string // of the file, or of the data in the program: "2026-08-02"
	format  list.Format
	packing list.Packing
	r       io.Reader
	close   func()
}

// open opens the file of a list, of which at most so many octets are read, and
// finds out how it is written.
func (l *lists) open(x configs.List, most int64) (source, error) {
	f, err := openRegular(l.path(x))
	if err != nil {
		return source{}, err
	}
	src := source{date: dateOf(f), close: func() { f.Close() }}
	if src.r, src.packing, err = list.Unpack(f, most); err == nil {
		src.format, src.r, err = list.Detect(src.r)
	}
	if x.Format != configs.ListAuto {
		src.format = list.Format(x.Format)
	}
	if err == nil && x.Code != "" && src.format != list.FormatGeosite && src.format != list.FormatGeoIP {
		err = fmt.Errorf("it has no categories (format %s), so code means nothing: leave it out", src.format)
	}
	if err != nil {
		f.Close()
		return source{}, err
	}
	return src, nil
}

// lines yields what is in a list, if it is of the wanted kind. An error has the
// place of the list.
func (l *lists) lines(name string, want list.Kind) iter.Seq2[list.Line, error] {
	return func(yield func(list.Line, error) bool) {
		x := l.find(name)
		src := source{date: geo.CNDomainsDate, format: list.FormatDomains, r: geo.OpenCNDomains(), close: func() {}}
		switch {
		case l.path(x) == "" && x.Name != configs.ListCNDomains:
			return // not fetched yet
		case l.path(x) != "":
			var err error
			if src, err = l.open(x, list.MaxSize); err != nil {
				yield(list.Line{}, at(x, err))
				return
			}
		}
		defer src.close()
		l.loaded(name, src, want)
		if !src.format.Holds(want) {
			yield(list.Line{}, at(x, fmt.Errorf("it holds %s, and is used where a list of %s belongs", formatText(src.format), want)))
			return
		}
		var tally list.Tally
		defer func() { l.tallied(name, tally) }()
		for line, err := range tally.Watch(l.guarded(x, list.Parse(src.r, src.format, l.options(x, want)))) {
			if err != nil {
				err = at(x, err)
			}
			if !yield(line, err) {
				return
			}
		}
	}
}

// options says what is taken of a file that holds more than one list, and where
// the rest of one is: what was fetched cannot name files of this host.
func (l *lists) options(x configs.List, want list.Kind) list.Options {
	home := l.config.Decide.Home
	o := list.Options{Kind: want, Code: x.Code, Country: cmp.Or(x.Region, home), Home: home}
	if len(x.Fetch.URLs) == 0 && x.File != "" {
		o.Include = func(name string) (io.ReadCloser, error) { return openBeside(x.File, name) }
	}
	return o
}

// openBeside opens a file in the directory of another one, with or without
// ".txt" after its name.
func openBeside(path, name string) (io.ReadCloser, error) {
	beside := filepath.Join(filepath.Dir(path), name)
	f, err := openRegular(beside)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = openRegular(beside + ".txt")
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// size returns about how many entries a list has: its lines. Whatever is wrong
// with it shows when it is read.
func (l *lists) size(name string) int {
	path := l.path(l.find(name))
	if path == "" {
		return 0
	}
	f, err := openRegular(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	lines, buf := 0, make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		lines += bytes.Count(buf[:n], []byte("\n"))
		if err != nil {
			return min(lines, list.MaxLines)
		}
	}
}

// names returns the entries of a list of names for the policy to read once.
// What goes wrong in reading is in *failed afterwards.
func (l *lists) names(name string, failed *error) iter.Seq[policy.Entry] {
	return func(yield func(policy.Entry) bool) {
		for line, err := range l.lines(name, list.KindNames) {
			if err != nil {
				*failed = errors.Join(*failed, err)
				return
			}
			if e, ok := entry(line); ok && !yield(e) {
				return
			}
		}
	}
}

// loaded writes into a list's status that it was read.
func (l *lists) loaded(name string, src source, kind list.Kind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status[name]
	s.Format, s.Packing, s.Kind, s.Date = string(src.format), string(src.packing), string(kind), src.date
	s.Loaded = time.Now()
}

// tallied writes what was counted into a list's status.
func (l *lists) tallied(name string, t list.Tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status[name]
	s.Entries, s.Exceptions, s.Dropped = t.Used, t.Excepts, t.Dropped+t.Bad
	if t.First != nil {
		s.FirstDropped = t.First.Error()
	}
}

// formatText is what a list holds, in words.
func formatText(f list.Format) string {
	if f == list.FormatMMDB {
		return "a MaxMind database, or no text at all"
	}
	return fmt.Sprintf("%s (format %s)", f.Kind(), f)
}

func entry(line list.Line) (policy.Entry, bool) {
	e := policy.Entry{Name: line.Name, Text: line.Text, Line: line.Number}
	switch line.Kind {
	case list.ExceptSuffix:
		e.Kind, e.Except = policy.Suffix, true
	case list.ExceptFull:
		e.Kind, e.Except = policy.Full, true
	case list.Suffix:
		e.Kind = policy.Suffix
	case list.Full:
		e.Kind = policy.Full
	case list.Keyword:
		e.Kind = policy.Keyword
	case list.Regexp:
		re, err := regexp.Compile(line.Text)
		if err != nil {
			return e, false // list.Names has compiled it
		}
		e.Kind, e.Regexp = policy.Regexp, re
	default:
		return e, false
	}
	return e, true
}

// prefixes returns the entries of a list of prefixes.
func (l *lists) prefixes(name string) ([]policy.PrefixEntry, error) {
	var all []policy.PrefixEntry
	var excepts []netip.Prefix
	for line, err := range l.lines(name, list.KindPrefixes) {
		switch {
		case err != nil:
			return nil, err
		case line.Kind == list.Prefix:
			all = append(all, policy.PrefixEntry{Prefix: line.Prefix, List: name, Line: line.Number})
		case line.Kind == list.ExceptPrefix:
			excepts = append(excepts, line.Prefix)
		}
	}
	return without(all, excepts)
}

// without returns entries without the addresses of excepts, unless an entry is
// longer than the exception.
func without(entries []policy.PrefixEntry, excepts []netip.Prefix) ([]policy.PrefixEntry, error) {
	if len(excepts) == 0 {
		return entries, nil
	}
	var all []policy.PrefixEntry
	for _, e := range entries {
		if !slices.ContainsFunc(excepts, e.Prefix.Overlaps) {
			all = append(all, e)
			continue
		}
		var left netipx.IPSetBuilder
		left.AddPrefix(e.Prefix)
		for _, x := range excepts {
			if e.Prefix.Bits() <= x.Bits() {
				left.RemovePrefix(x)
			}
		}
		set, err := left.IPSet()
		if err != nil {
			return nil, fmt.Errorf("taking exceptions from %s: %w", e.Prefix, err)
		}
		for _, p := range set.Prefixes() {
			e.Prefix = p
			all = append(all, e)
		}
	}
	return all, nil
}

// table builds the verdicts from the sources of [geo].
func (l *lists) table() (*geo.Table, error) {
	b := geo.NewBuilder(l.config.Decide.Home)
	if err := l.addClaims(b); err != nil {
		return nil, err
	}
	for _, name := range l.config.Geo.Sources {
		if err := l.addSource(b, name); err != nil {
			return nil, err
		}
	}
	t := b.Table()
	return t, l.checkHome(t)
}

func (l *lists) addSource(b *geo.Builder, name string) error {
	if name == configs.GeoEmbedded {
		return b.AddEmbedded()
	}
	x := l.find(name)
	if l.path(x) == "" {
		return nil // another source knows, or none does
	}
	src, err := l.open(x, geo.MaxMMDB)
	if err != nil {
		return at(x, err)
	}
	defer src.close()
	l.loaded(name, src, src.format.Kind())
	options := l.options(x, list.KindPrefixes)
	country := x.Region
	switch src.format {
	case list.FormatAPNIC:
		country = options.Country
	case list.FormatGeoIP:
		options.Code = cmp.Or(x.Code, options.Country)
		if country == "" && len(options.Code) == 2 {
			country = options.Code
		}
	}
	var tally list.Tally
	switch {
	case src.format == list.FormatMMDB:
		tally.Used, err = b.AddMMDB(name, src.r)
	case src.format.Kind() != list.KindPrefixes:
		err = fmt.Errorf("it holds %s, and [geo] sources takes prefixes or a MaxMind database", formatText(src.format))
	case country == "":
		err = errors.New(`its prefixes have no country: write region = "CN" (or another) beside file`)
	default:
		err = b.AddPrefixes(name, country, tally.Watch(l.guarded(x, list.Parse(src.r, src.format, options))))
	}
	l.tallied(name, tally)
	if err != nil {
		return at(x, err)
	}
	return nil
}

// addrSet is a set of addresses, immutable once built.
type addrSet struct{ prefixes bart.Lite }

// Contains reports whether a is in the set.
func (s *addrSet) Contains(a netip.Addr) bool {
	return s != nil && s.prefixes.Contains(a.Unmap().WithZone(""))
}

func newAddrSet(entries []policy.PrefixEntry) *addrSet {
	s := &addrSet{}
	for _, e := range entries {
		s.prefixes.Insert(e.Prefix)
	}
	return s
}
