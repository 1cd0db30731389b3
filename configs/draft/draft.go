// Package draft writes a smartdns.toml for somebody who has none: from a few
// answers, or from the configuration of another program.
//
// What it writes is always valid. What it cannot express, and what turns out to
// be impossible, it says, with the place and what to do instead.
package draft

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Answers are what a person says about the host.
type Answers struct {
	Tunnels  []string // whole paths of wg-quick files
	LAN      []string // interfaces whose clients are served and routed
	Listen   []string // addresses of DNS; none: the default ones
	Home     string   // the country that is home; "": the default one
	HomeFile string   // the whole path of its prefixes, or of an mmdb; needed for every other home
	Domestic []string // the servers of the domestic side; none: those of the program, which are in CN
	System   bool     // this host asks us
}

// Options say where a draft comes from and goes to.
type Options struct {
	Answers
	Path string // the whole path that the file will have; "": it is printed, and can name no file beside it
	Host fs.FS  // the files of the host, from its root
}

// Kind is what became of a line.
type Kind string

// The kinds of Note.
const (
	Lost    Kind = "lost"    // not carried over
	Changed Kind = "changed" // carried over, and works differently
	Idle    Kind = "idle"    // there is nothing to carry over
)

// Note says what became of a line of the other program's file.
type Note struct {
	File string // as it was named, or as another file includes it
	Line int    // from 1; 0 for what is in no line
	Text string // the line
	Kind Kind
	Why  string // the reason, and what to do instead
}

func (n Note) String() string {
	if n.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", n.File, n.Text, n.Why)
	}
	return fmt.Sprintf("%s:%d: %s: %s", n.File, n.Line, n.Text, n.Why)
}

// File is a file that has to stand beside the drafted one.
type File struct{ Path, Text string }

// Draft is a smartdns.toml in the making. It is for one goroutine.
type Draft struct {
	program Program
	sources []string
	options Options
	page    page
	notes   []Note
	files   []File
	gone    map[string]bool // tables that Settle has turned into comments
}

// Program returns whose configuration it comes from; "" for nobody's.
func (d *Draft) Program() Program { return d.program }

// Sources returns the files that were read, in the order of reading.
func (d *Draft) Sources() []string { return d.sources }

// Text returns the file.
func (d *Draft) Text() string { text, _ := d.page.render(); return text }

// Files returns the files that Text names and that have to be written first.
func (d *Draft) Files() []File { return d.files }

// Secret reports whether the file holds the password of a proxy.
func (d *Draft) Secret() bool {
	for _, t := range d.page.tables {
		for _, k := range t.keys {
			if k.name == "socks5" && strings.Contains(k.entries[0].text, "@") {
				return true
			}
		}
	}
	return false
}

// Notes returns what became of the lines that are not simply there, in the
// order of the files.
func (d *Draft) Notes() []Note { return slices.Clone(d.notes) }

// beside returns the path of a file in the directory of the drafted one, and
// reports whether there is such a directory.
func (o Options) beside(name string) (string, bool) {
	if o.Path == "" {
		return "", false
	}
	return path.Join(path.Dir(o.Path), name), true
}

// place is a line of a file that was read.
type place struct {
	file string
	line int
}

// FileName is what the errors of a draft begin with.
const FileName = "smartdns.toml"

// New drafts a file from answers alone. The error says which answer cannot be.
func New(o Options) (*Draft, error) {
	w := newWriter(o)
	d := &Draft{options: o, page: w.page()}
	d.page.tail = strings.Split(strings.TrimSpace(freshTail), "\n")
	return d, d.mustParse()
}

const freshTail = `
# Everything else has a default, which "smartdns config" prints. Often changed:
#
#[side.domestic]
#servers = ["223.5.5.5", "119.29.29.29"]
#
#[side.foreign]
#servers = ["tls://1.1.1.1", "tls://8.8.8.8"]
#
#[list.foreign-domains]
#file = "/etc/smartdns/foreign-domains.txt"
#
#[decide]
#names = [
#  { match = "ads.example.com",       answer = "block" },
#  { match = "list:foreign-domains",  ask = "foreign" },
#  { match = "list:cn-domains",       ask = "domestic" },
#  { match = "*",                     ask = "auto" },
#]
`
