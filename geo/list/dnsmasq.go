package list

import (
	"bytes"
	"io"
	"iter"
)

// Dnsmasq reads the options of dnsmasq that name domains,
//
//	server=/example.com/a.b/1.2.3.4
//
// and likewise local=, address=, ipset= and nftset=, with or without "--" in
// front. Each stands for the names between its slashes and all below them;
// what is after the last slash is ignored, unless it is "#", dnsmasq's word for
// what happens to other names: then they are exceptions. A name "*.example.com"
// is read as "example.com". Options that name no domain are Dropped. Names and
// comments are as for Names.
func Dnsmasq(r io.Reader) iter.Seq2[Line, error] { return scan(r, new(names).parseDnsmasq) }

func (n *names) parseDnsmasq(rule []byte, emit func(Line) bool) string {
	rule = bytes.TrimPrefix(cutComment(rule), []byte("--"))
	key, value, assigned := bytes.Cut(rule, []byte("="))
	switch {
	case assigned && isDnsmasqKey(key) && bytes.HasPrefix(value, []byte("/")):
		return n.dnsmasq(value[1:], emit)
	case !isOption(key, assigned):
		return "not an option of dnsmasq: write server=/example.com/1.2.3.4"
	}
	return drop(rule, "an option that names no domain", emit)
}

// isOption reports whether key looks like the name of an option: lower-case
// words, joined by hyphens; one without a value has at least two.
func isOption(key []byte, assigned bool) bool {
	for _, c := range key {
		if (c < 'a' || c > 'z') && c != '-' && (c < '0' || c > '9') {
			return false
		}
	}
	return len(key) > 1 && (assigned || bytes.IndexByte(key, '-') > 0)
}

func isDnsmasqKey(key []byte) bool {
	switch string(key) {
	case "server", "local", "address", "ipset", "nftset":
		return true
	}
	return false
}

// dnsmasq reads what follows the first slash of an option.
func (n *names) dnsmasq(value []byte, emit func(Line) bool) string {
	end := bytes.LastIndexByte(value, '/')
	if end < 0 {
		return "no slash after the name: write server=/example.com/1.2.3.4"
	}
	kind := Suffix
	if string(value[end+1:]) == "#" {
		kind = ExceptSuffix
	}
	for name := range bytes.SplitSeq(value[:end], []byte("/")) {
		if string(name) == "#" || len(name) == 0 {
			dropAll(value, emit)
			continue
		}
		if reason := n.emit(kind, name, emit); reason != "" {
			return reason
		}
	}
	return ""
}
