package list

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"smartdns/resolver/dnsname"
)

// Names reads domain rules. Each line is one of
//
//	example.com                     the name and all below it, also written .example.com or *.example.com
//	domain:example.com @cn          the same, as v2fly writes it; attributes (also :@cn) are ignored
//	full:www.example.com            the name alone
//	keyword:example                 names that contain the text
//	regexp:^ad[0-9]+\.              names that the RE2 expression matches
//	include:other @cn               another file, which Options say how to open
//	server=/example.com/a.b/1.2.3.4 what Dnsmasq reads
//
// and lines of all kinds may be mixed. International names are accepted in Unicode
// and in their xn-- form. Suffixes of a single label are Dropped, except for
// the top-level domains of China: lists carry whole zones such as "top" by
// mistake or by a policy that is not ours. Comments start with #, ; or !.
//
// The names of a list share memory: one that is kept should be copied.
func Names(r io.Reader) iter.Seq2[Line, error] { return scan(r, new(names).parse) }

// names parses the rules of one list.
type names struct {
	kept   strings.Builder
	states int            // of the expressions so far
	addr   []byte         // of the last line of a hosts file: most have one for all
	tlds   []dnsname.FQDN // that a list may have whole, besides those of China
	includes
}

const keptSize = 16 << 10

// keep returns text as a name. It takes memory for many names at once, as lists
// have a hundred thousand of them.
func (n *names) keep(text []byte) dnsname.FQDN {
	if n.kept.Cap()-n.kept.Len() <= len(text) {
		n.kept.Reset()
		n.kept.Grow(keptSize)
	}
	start := n.kept.Len()
	n.kept.Write(text)
	n.kept.WriteByte('.')
	return dnsname.FQDN(n.kept.String()[start:])
}

func (n *names) parse(rule []byte, emit func(Line) bool) string {
	rule = cutComment(rule)
	if key, value, ok := bytes.Cut(rule, []byte("=/")); ok && isDnsmasqKey(key) {
		return n.dnsmasq(value, emit)
	}
	if after, ok := bytes.CutPrefix(rule, []byte("include:")); ok {
		return n.include(after, emit)
	}
	if len(n.want) > 0 && !n.wanted(rule) {
		return ""
	}
	text, reason := cutAttributes(rule)
	if reason != "" {
		return reason
	}
	kind := Suffix
	if word, after, ok := bytes.Cut(text, []byte(":")); ok {
		if kind = ruleKind(word); kind == Bad {
			return `unknown kind of rule: write "domain:", "full:", "keyword:" or "regexp:" before the colon`
		}
		text = after
	}
	switch kind {
	case Keyword:
		return parseKeyword(text, emit)
	case Regexp:
		return n.parseRegexp(text, emit)
	}
	return n.emit(kind, text, emit)
}

// ruleKind returns the kind that v2fly's word stands for, or Bad.
func ruleKind(word []byte) LineKind {
	switch string(word) {
	case "domain":
		return Suffix
	case "full":
		return Full
	case "keyword":
		return Keyword
	case "regexp":
		return Regexp
	}
	return Bad
}

// cutAttributes returns text without attributes (" @cn", ":@cn,@ads") and
// affiliations (" &other").
func cutAttributes(text []byte) (_ []byte, reason string) {
	if i := bytes.Index(text, []byte(":@")); i >= 0 {
		text = text[:i]
	}
	i := bytes.IndexAny(text, " \t")
	if i < 0 {
		return text, ""
	}
	for word := range bytes.FieldsSeq(text[i:]) {
		if word[0] != '@' && word[0] != '&' {
			return nil, "more than one word: write one rule on each line"
		}
	}
	return text[:i], ""
}

func parseKeyword(text []byte, emit func(Line) bool) string {
	if len(text) == 0 {
		return "no text after keyword:, which would match every name"
	}
	for _, c := range text {
		if !isNameByte(c) && c != '.' {
			return "a keyword is a part of a name: letters, digits, hyphens, dots"
		}
	}
	emit(Line{Kind: Keyword, Text: string(bytes.ToLower(text))})
	return ""
}

func (n *names) parseRegexp(text []byte, emit func(Line) bool) string {
	if len(text) == 0 {
		return "no expression after regexp:, which would match every name"
	}
	if reason := n.compiles(string(text)); reason != "" {
		return reason
	}
	emit(Line{Kind: Regexp, Text: string(text)})
	return ""
}

func (n *names) emit(kind LineKind, text []byte, emit func(Line) bool) string {
	if kind == Suffix || kind == ExceptSuffix {
		text = cutWildcard(text)
	}
	name, labels, reason := n.fqdn(text)
	if reason != "" {
		return reason
	}
	if kind == Suffix && labels < 2 && !isHomeTLD(name) && !slices.Contains(n.tlds, name) {
		emit(Line{Kind: Dropped, Name: name, Err: &LineError{
			Text:   clip(text),
			Reason: "a whole top-level domain: name what is meant below it, or write the rule in smartdns.toml",
		}})
		return ""
	}
	emit(Line{Kind: kind, Name: name})
	return ""
}

// cutWildcard returns the name of a suffix without what only says that names
// below it are meant: a dot, "*." or "+.".
func cutWildcard(text []byte) []byte {
	rest := text
	if len(rest) > 0 && (rest[0] == '*' || rest[0] == '+') {
		rest = rest[1:]
	}
	if len(rest) > 1 && rest[0] == '.' && rest[1] != '.' {
		return rest[1:]
	}
	return text
}

// isHomeTLD reports whether name is one of the top-level domains that the
// Chinese registry, CNNIC, runs.
func isHomeTLD(name dnsname.FQDN) bool {
	switch name {
	case "cn.", "xn--fiqs8s.", "xn--fiqz9s.", "xn--55qx5d.", "xn--io0a7i.":
		return true
	}
	return false
}

// fqdn returns the name that text is, and how many labels it has.
func (n *names) fqdn(text []byte) (name dnsname.FQDN, labels int, reason string) {
	labels = dnsname.Canonical(text)
	if labels == 0 {
		return respelled(text)
	}
	if last := text[len(text)-1]; '0' <= last && last <= '9' && isNumber(lastLabel(text)) {
		return "", 0, aNumber
	}
	return n.keep(text), labels, ""
}

const aNumber = "an address or a number, not a name: lists of addresses are of their own"

// respelled is fqdn of a text that is no name in canonical form yet.
func respelled(text []byte) (name dnsname.FQDN, labels int, reason string) {
	for _, c := range text {
		if c >= utf8.RuneSelf {
			name, reason = internationalName(text)
			if isNumber(lastLabel([]byte(name))) { // fullwidth digits among them
				return "", 0, aNumber
			}
			return name, name.Labels(), reason
		}
		if c != '.' && !isNameByte(c) {
			return "", 0, fmt.Sprintf("%q in a name: write one name on each line, as example.com", c)
		}
	}
	if isNumber(lastLabel(text)) {
		return "", 0, aNumber
	}
	name, err := dnsname.Parse(string(text))
	if err != nil {
		return "", 0, err.Error()
	}
	return name, name.Labels(), ""
}

func lastLabel(name []byte) []byte {
	name = bytes.TrimSuffix(name, []byte("."))
	return name[bytes.LastIndexByte(name, '.')+1:]
}

func isNumber(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// isNameByte reports whether c is a letter, digit, hyphen or underscore.
// dnsname allows any octet, but in a list another one is a sign that the line
// is no name.
func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || 'A' <= c && c <= 'Z' || c == '_'
}
