package draft

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"smartdns/configs"
)

// reader is what the readers of all programs share: the line that is being read
// and what becomes of it.
type reader struct {
	*writer
	host    fs.FS
	at      place
	text    string
	settled map[place]bool // lines of which something is known to have become
	notes   []Note
	files   []File
	sources []string
	aside   map[string]int // companion files by their first names
}

func newReader(o Options) *reader {
	host := o.Host
	if host == nil {
		host = none{}
	}
	return &reader{writer: newWriter(o), host: host, settled: map[place]bool{}, aside: map[string]int{}}
}

// none is a host without files.
type none struct{}

func (none) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// maxFile is the largest file of another program that is read as a whole.
const maxFile = 8 << 20

// read returns a file of the host.
func (r *reader) read(file string) ([]byte, error) {
	name := strings.TrimPrefix(path.Clean(file), "/")
	if !fs.ValidPath(name) {
		return nil, fs.ErrNotExist
	}
	info, err := fs.Stat(r.host, name)
	switch {
	case err != nil:
		return nil, plainError(err)
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("is larger than %d MiB", maxFile>>20)
	}
	data, err := fs.ReadFile(r.host, name)
	return data, plainError(err)
}

// plainError is err without the path, which the sentence has already.
func plainError(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// line begins a line of a file.
func (r *reader) line(at place, text string) {
	r.at, r.text = at, clip(password.ReplaceAllString(text, "://…@"))
}

// password is that of a proxy in a URL, with its user.
var password = regexp.MustCompile(`://[^/@\s]+@`)

// unreadable says what is wrong with a file that the line names.
func (r *reader) unreadable(file string, err error, format string, args ...any) {
	why := err.Error()
	if !strings.Contains(r.text, file) {
		why = file + ": " + why
	}
	r.lost("%s: %s", why, fmt.Sprintf(format, args...))
}

// clip keeps what a note quotes on one line of a terminal.
func clip(text string) string {
	const most = 70
	text = strings.Join(strings.Fields(text), " ")
	if n := []rune(text); len(n) > most {
		return string(n[:most-1]) + "…"
	}
	return text
}

func (r *reader) note(kind Kind, format string, args ...any) {
	r.settled[r.at] = true
	r.notes = append(r.notes, Note{r.at.file, r.at.line, r.text, kind, fmt.Sprintf(format, args...)})
}

func (r *reader) lost(format string, args ...any)    { r.note(Lost, format, args...) }
func (r *reader) changed(format string, args ...any) { r.note(Changed, format, args...) }
func (r *reader) idle(format string, args ...any)    { r.note(Idle, format, args...) }

// carried says that the line is in the new file, or is the same without being
// there.
func (r *reader) carried() { r.settled[r.at] = true }

// value is a string of the line that is being read.
func (r *reader) value(s string) *entry { return r.raw(configs.Quote(s)) }

func (r *reader) raw(toml string) *entry {
	r.carried()
	return &entry{text: toml, at: r.at, from: r.text}
}

// rule appends a line of names.
func (r *reader) rule(x rule) {
	r.carried()
	x.at, x.from = r.at, r.text
	r.rules = append(r.rules, &x)
}

// unsettled notes the line if nothing became of it.
func (r *reader) unsettled() {
	if !r.settled[r.at] {
		r.lost("is not understood: see smartdns config for the keys there are")
	}
}

// absolute returns a path that a file names relative to its own place, or to
// dir where that is given.
func (r *reader) absolute(p, dir string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	if dir == "" {
		dir = path.Dir(r.at.file)
	}
	return path.Join("/", dir, p)
}

// list returns the name of a list of the file at p, whose format its content
// shows.
func (r *reader) list(p, comment string) string { return r.listOf(p, comment, "") }

// listOf returns the name of a list of the file at p, in a format.
func (r *reader) listOf(p, comment string, format configs.ListFormat) string {
	r.carried()
	for _, l := range r.lists {
		if l.file == p {
			return l.name
		}
	}
	name := r.newListName(path.Base(p))
	r.lists = append(r.lists, &dataList{name: name, file: p, format: string(format), comment: comment, at: r.at, from: r.text})
	return name
}

// homePrefixes makes a source of who is at home of the file at p.
func (r *reader) homePrefixes(p string) {
	name := r.listOf(p, "Prefixes at home.", "")
	i := slices.IndexFunc(r.lists, func(l *dataList) bool { return l.name == name })
	r.lists[i].region = strings.ToUpper(firstOf(r.options.Home, "CN"))
	r.geo = appendNew(r.geo, r.value("list:"+name))
}

// newListName makes a word of ours of a file's name.
func (r *reader) newListName(base string) string {
	for _, ext := range []string{".conf", ".txt", ".list", ".dat", ".hosts", ".rules"} {
		base = strings.TrimSuffix(base, ext)
	}
	return unused(asWord(base, "list"), func(s string) bool {
		return s == configs.ListCNDomains || slices.Contains(r.options.tunnels(), s) ||
			slices.ContainsFunc(r.lists, func(l *dataList) bool { return l.name == s })
	})
}

// asWord turns s into a name that a side or a list can have.
func asWord(s, fallback string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			return c
		}
		return '-'
	}, s)
	s = strings.Trim(s, "-_")
	if len(s) > 40 {
		s = strings.TrimRight(s[:40], "-_")
	}
	if s != "" && '0' <= s[0] && s[0] <= '9' {
		s = fallback + "-" + s
	}
	if s == "" {
		return fallback
	}
	if configs.CheckWord(s) != nil {
		return s + "-" + fallback
	}
	return s
}

// unused returns name, or name with a number that nobody has.
func unused(name string, taken func(string) bool) string {
	for n, s := 2, name; ; n++ {
		if !taken(s) {
			return s
		}
		s = name + "-" + strconv.Itoa(n)
	}
}

// besides writes lines into a file beside the new one and returns its list. It
// reports false where there is no place for one.
func (r *reader) besides(base, comment string, format configs.ListFormat, lines []string) (list string, ok bool) {
	p, ok := r.options.beside(base + ".txt")
	if !ok {
		return "", false
	}
	if r.aside[base]++; r.aside[base] > 1 {
		p, _ = r.options.beside(fmt.Sprintf("%s-%d.txt", base, r.aside[base]))
	}
	head := "# Written by smartdns init from " + r.at.file + "\n"
	r.files = append(r.files, File{p, head + strings.Join(lines, "\n") + "\n"})
	return r.listOf(p, comment, format), true
}

// hasLine reports whether the file at p is there and can be read.
func (r *reader) exists(p string) error {
	_, err := fs.Stat(r.host, strings.TrimPrefix(path.Clean(p), "/"))
	return plainError(err)
}

// lines calls each with the lines of data that say something, without comments.
// It understands # at the begin of a line or after a blank.
func (r *reader) lines(file string, data []byte, each func(text string)) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	n := 0
	for line := range bytes.Lines(data) {
		n++
		text := strings.TrimSpace(strings.ToValidUTF8(string(line), "?"))
		if i := commentAt(text); i >= 0 {
			text = strings.TrimSpace(text[:i])
		}
		if text == "" {
			continue
		}
		r.line(place{file, n}, text)
		each(text)
		r.unsettled()
	}
}

func commentAt(s string) int {
	for i := range len(s) {
		if s[i] == '#' && (i == 0 || s[i-1] == ' ' || s[i-1] == '\t') {
			return i
		}
	}
	return -1
}

// seconds returns a number of seconds between two bounds as a duration of the
// file, and reports whether it had to be moved.
func seconds(text string, low, high time.Duration) (d string, moved bool, err error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return "", false, fmt.Errorf("%q is no number of seconds", text)
	}
	was := time.Duration(n) * time.Second
	got := min(max(was, low), high)
	return short(got), got != was, nil
}

func short(d time.Duration) string {
	switch {
	case d%time.Hour == 0 && d > 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0 && d > 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// Bounds of [cache] min_ttl, max_ttl and stale.
const (
	mostMinTTL = time.Hour
	mostTTL    = 24 * time.Hour
)

// ttl sets a key of [cache] that is a number of seconds.
func (r *reader) ttl(key, text string, low, high time.Duration) {
	d, moved, err := seconds(text, low, high)
	if err != nil {
		r.lost("%v", err)
		return
	}
	r.cacheKey(key, r.value(d))
	if moved {
		r.changed("%s is %s here: from %s to %s", key, d, short(low), short(high))
	}
}

func (r *reader) cacheKey(key string, e *entry) {
	r.cache = slices.DeleteFunc(r.cache, func(x *entryOf) bool { return x.key == key })
	r.cache = append(r.cache, &entryOf{key, e})
}

// cacheSize takes a number of answers. Ours is memory, and the usual size has
// place for more than these programs keep.
func (r *reader) cacheSize(text string) {
	const answer = 512 // bytes that one takes, about
	n, err := strconv.ParseInt(text, 10, 64)
	switch mib := max(n, 0) * answer >> 20; {
	case err != nil:
		r.lost("%q is no number of answers", clip(text))
	case n == 0:
		r.changed("there is always a cache here: it is what keeps marks and answers in step")
	case mib <= 16:
		r.idle("the cache is measured in memory and takes what the host can spare: [cache] size")
	default:
		r.cacheKey("size", r.value(fmt.Sprintf("%dMiB", min(mib, 1024))))
	}
}

// address is one of DNS to listen on.
func (r *reader) address(host string, port uint16) (string, error) {
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return "", fmt.Errorf("%q is no address", clip(host))
	}
	return netip.AddrPortFrom(a.Unmap(), port).String(), nil
}

// bogusAddress adds a prefix whose addresses stand for "no such name". They
// stand in a file of their own.
func (r *reader) bogusAddress(p netip.Prefix) {
	const base = "bogus-addresses"
	r.carried()
	file, ok := r.options.beside(base + ".txt")
	if !ok {
		r.lost("addresses that stand for \"no such name\" are a list in a file: write %s into one, and its name into [poison] bogus", p)
		return
	}
	text := p.String()
	if p.IsSingleIP() {
		text = p.Addr().String()
	}
	if i := slices.IndexFunc(r.files, func(f File) bool { return f.Path == file }); i >= 0 {
		if !slices.Contains(strings.Split(r.files[i].Text, "\n"), text) {
			r.files[i].Text += text + "\n"
		}
		return
	}
	list, _ := r.besides(base, "Addresses that stand for \"no such name\".", configs.ListCIDR, []string{text})
	r.poison = appendNew(r.poison, r.value("list:"+list))
}
