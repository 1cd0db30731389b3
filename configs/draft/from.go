package draft

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"smartdns/configs"
)

// Program is one whose configuration can be read.
type Program string

// The programs. The one of pymumu is called smartdns, too.
const (
	Dnsmasq  Program = "dnsmasq"
	Mosdns   Program = "mosdns"
	Pymumu   Program = "pymumu"
	ChinaDNS Program = "chinadns-ng"
)

// Programs returns all of them, as they are written before a file's name.
func Programs() []Program { return []Program{Dnsmasq, Mosdns, Pymumu, ChinaDNS} }

// Title returns what the program is called.
func (p Program) Title() string {
	if p == Pymumu {
		return "smartdns (pymumu)"
	}
	return string(p)
}

// From drafts a file from the configuration of another program. Each of specs is
// the whole path of a file or directory, with "dnsmasq:", "mosdns:", "pymumu:" or
// "chinadns-ng:" before it where its content does not say whose it is; or a
// whole command line of chinadns-ng. What cannot be read, or is no
// configuration, is an error; whatever else is wrong with it is a note.
func From(specs []string, o Options) (*Draft, error) {
	r := newReader(o)
	program, inputs, err := r.inputs(specs)
	if err != nil {
		return nil, err
	}
	r.source = inputs[0].name + " of " + program.Title()
	if inputs[0].args != nil {
		r.source = "a " + r.source
	}
	switch program {
	case Dnsmasq:
		readDnsmasq(r, inputs)
	case Mosdns:
		err = readMosdns(r, inputs)
	case Pymumu:
		readPymumu(r, inputs)
	case ChinaDNS:
		readChinaDNS(r, inputs)
	}
	if err != nil {
		return nil, err
	}
	r.shorten(string(program))
	r.missing()
	r.behind()
	d := &Draft{program: program, sources: r.sources, options: o, page: r.page(), notes: r.notes, files: r.files}
	if err := parses(justAnswers(o)); err != nil {
		_, err := New(o) // says it without the other program's lines
		return nil, err
	}
	return d, d.parse()
}

// justAnswers is the text of a draft of answers alone.
func justAnswers(o Options) string {
	p := newWriter(o).page()
	text, _ := p.render()
	return text
}

// input is one thing to read.
type input struct {
	name string // of a file
	data []byte
	args []string // of a command line
}

// inputs opens what is to be read and says whose it is.
func (r *reader) inputs(specs []string) (Program, []input, error) {
	var all []input
	var program Program
	for _, spec := range specs {
		said, name := splitSpec(spec)
		in, err := r.open(name)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, i := range in {
			p := said
			if p == "" {
				if p = Detect(i.data); i.args != nil {
					p = ChinaDNS
				}
			}
			switch {
			case p == "":
				return "", nil, fmt.Errorf("%s: cannot tell whose configuration this is: write --from PROGRAM:%s (%s)", i.name, i.name, programList())
			case program != "" && p != program:
				return "", nil, fmt.Errorf("%s is of %s, and what comes before it of %s: one program at a time", i.name, p.Title(), program.Title())
			}
			program = p
			all = append(all, i)
		}
	}
	if len(all) == 0 {
		return "", nil, errors.New("nothing to read")
	}
	return program, all, nil
}

func programList() string {
	var all []string
	for _, p := range Programs() {
		all = append(all, string(p))
	}
	return strings.Join(all, ", ")
}

// splitSpec cuts "dnsmasq:/etc/dnsmasq.conf".
func splitSpec(spec string) (Program, string) {
	if word, rest, ok := strings.Cut(spec, ":"); ok {
		if word == "smartdns" {
			word = string(Pymumu)
		}
		if slices.Contains(Programs(), Program(word)) {
			return Program(word), rest
		}
	}
	return "", spec
}

// AbsoluteSpec returns spec with the whole path of its file, which is relative
// to dir.
func AbsoluteSpec(spec, dir string) string {
	program, name := splitSpec(spec)
	if IsCommandLine(name) || path.IsAbs(name) {
		return spec
	}
	if program != "" {
		return string(program) + ":" + path.Join(dir, name)
	}
	return path.Join(dir, name)
}

// IsCommandLine reports whether spec is a whole command line instead of a file.
func IsCommandLine(spec string) bool {
	_, spec = splitSpec(spec)
	fields := strings.Fields(spec)
	return len(fields) > 1 && (path.Base(fields[0]) == string(ChinaDNS) || strings.HasPrefix(fields[0], "-"))
}

func (r *reader) open(name string) ([]input, error) {
	if IsCommandLine(name) {
		fields := strings.Fields(name)
		if !strings.HasPrefix(fields[0], "-") {
			fields = fields[1:]
		}
		r.sources = append(r.sources, commandLine)
		return []input{{name: commandLine, args: fields}}, nil
	}
	files := []string{name}
	if info, err := fs.Stat(r.host, strings.TrimPrefix(path.Clean(name), "/")); err == nil && info.IsDir() {
		if files = r.directory(name, func(f string) bool { return path.Ext(f) == ".conf" || path.Ext(f) == ".yaml" }); len(files) == 0 {
			return nil, errors.New("is a directory without a .conf file")
		}
	}
	var all []input
	for _, f := range files {
		data, err := r.read(f)
		if err != nil {
			return nil, err
		}
		r.sources = append(r.sources, f)
		all = append(all, input{name: f, data: data})
	}
	return all, nil
}

const commandLine = "command line"

// directory returns the files of a directory that are wanted, in order.
func (r *reader) directory(dir string, wanted func(name string) bool) []string {
	entries, err := fs.ReadDir(r.host, strings.TrimPrefix(path.Clean(dir), "/"))
	if err != nil {
		return nil
	}
	var all []string
	for _, e := range entries {
		if !e.IsDir() && wanted(e.Name()) {
			all = append(all, path.Join(dir, e.Name()))
		}
	}
	return all
}

// Detect returns whose configuration data is, by the words that its lines begin
// with; "" if that cannot be told.
func Detect(data []byte) Program {
	votes := map[Program]int{}
	yaml, said := false, 0
	table := dnsmasqTable()
	dnsmasqKey := func(word string) bool { return table[word] != nil || dnsmasqIdle(word) }
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		if said++; said > 500 {
			break // enough to tell
		}
		if strings.HasPrefix(text, "plugins:") || text == "plugin:" || strings.HasPrefix(text, "- tag:") {
			yaml = true
		}
		if word, _, ok := strings.Cut(text, "="); ok && dnsmasqKey(strings.TrimSpace(word)) {
			votes[Dnsmasq]++
			continue
		}
		fields := strings.Fields(text)
		word := fields[0]
		if len(fields) == 1 && dnsmasqKey(word) {
			votes[Dnsmasq]++
		}
		if _, ok := pymumuWord(word); ok {
			votes[Pymumu]++
		}
		if _, ok := findChinaDNS(word); ok && len(fields) <= 2 {
			votes[ChinaDNS]++
		}
	}
	if yaml {
		return Mosdns
	}
	best, tie := Program(""), false
	for _, p := range Programs() {
		switch {
		case votes[p] > votes[best]:
			best, tie = p, false
		case votes[p] == votes[best] && votes[p] > 0:
			tie = true
		}
	}
	if tie {
		return ""
	}
	return best
}

// behind notes that nothing listens where clients ask.
func (r *reader) behind() {
	if len(r.listen.dns) == 0 || len(r.options.Listen) > 0 || slices.ContainsFunc(r.listen.dns, func(e *entry) bool { return strings.Contains(e.text, `:53"`) }) {
		return
	}
	r.at, r.text = r.listen.dns[0].at, r.listen.dns[0].from
	if r.at.file == "" {
		r.at, r.text = place{r.sources[0], 0}, strings.Trim(r.listen.dns[0].text, `"`)
	}
	r.changed("it stands behind another DNS server, it seems: smartdns serves clients itself, at port 53 where dns is not said; see --listen and --lan")
}

// missing turns lists, and what uses them, into comments where their files are
// not there, so that the new file works, and says so.
func (r *reader) missing() {
	gone := map[string]bool{}
	for _, l := range r.lists {
		if slices.ContainsFunc(r.files, func(f File) bool { return f.Path == l.file }) {
			continue
		}
		if err := r.exists(l.file); err != nil {
			r.at, r.text = l.at, l.from
			r.unreadable(l.file, err, "the list and what uses it are comments in the new file")
			l.missing, gone["list:"+l.name] = true, true
		}
	}
	var rules []*rule
	for _, x := range r.rules {
		without := slices.DeleteFunc(slices.Clone(x.match), func(m string) bool { return gone[m] })
		if len(without) < len(x.match) {
			off := *x
			off.match, off.off = slices.DeleteFunc(slices.Clone(x.match), func(m string) bool { return !gone[m] }), true
			rules = append(rules, &off)
		}
		if x.match = without; len(without) > 0 {
			rules = append(rules, x)
		}
	}
	r.rules = rules
	for _, p := range slices.Concat(r.poison, r.geo) {
		p.off = gone[strings.Trim(p.text, `"`)]
	}
	r.lists = slices.DeleteFunc(r.lists, func(l *dataList) bool { return !r.uses("list:" + l.name) })
	for _, h := range r.records.hosts {
		if err := r.exists(strings.Trim(h.text, `"`)); err != nil {
			h.off = true
			r.at, r.text = h.at, h.from
			r.unreadable(strings.Trim(h.text, `"`), err, "it is a comment in the new file")
		}
	}
}

// uses reports whether a line of the new file has the list; why one has not is
// in the notes.
func (r *reader) uses(list string) bool {
	return slices.ContainsFunc(slices.Concat(r.poison, r.geo), func(e *entry) bool { return e.text == configs.Quote(list) }) ||
		slices.ContainsFunc(r.writer.rules, func(x *rule) bool { return slices.Contains(x.match, list) })
}
