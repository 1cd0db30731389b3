package list

import (
	"bytes"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"smartdns/resolver/dnsname"
)

// host passes on a host of a rule that is written for browsers: a name, in
// which "*" stands for any text, or an address, which is no name. kind is Suffix
// or Full, or an exception of that kind.
func (n *names) host(kind LineKind, host []byte, emit func(Line) bool) (reason string) {
	if bare, port, ok := bytes.Cut(host, []byte(":")); ok && isNumber(port) {
		host = bare
	}
	if (kind == Suffix || kind == ExceptSuffix) && bytes.HasPrefix(host, []byte("*.")) {
		host = host[2:]
	}
	switch {
	case bytes.IndexByte(host, '*') >= 0:
		return n.wildcard(kind, host, emit)
	case isAddress(host) || isNumber(lastLabel(host)) || bytes.HasPrefix(host, []byte("[")):
		return drop(host, "an address, which is no name", emit)
	}
	return n.emit(kind, host, emit)
}

// drop passes on that a rule is left out.
func drop(rule []byte, why string, emit func(Line) bool) (reason string) {
	emit(Line{Kind: Dropped, Err: &LineError{Text: clip(rule), Reason: why}})
	return ""
}

// dropAll passes on that a rule for every name is left out.
func dropAll(rule []byte, emit func(Line) bool) (reason string) {
	emit(Line{Kind: Dropped, Name: dnsname.Root, Err: &LineError{Text: clip(rule), Reason: "matches every name, which is no list"}})
	return ""
}

// wildcard passes on a name with "*" in it as an expression.
func (n *names) wildcard(kind LineKind, host []byte, emit func(Line) bool) string {
	start := `(^|\.)`
	switch kind {
	case ExceptSuffix, ExceptFull:
		return drop(host, "an exception for names with a wildcard", emit)
	case Full:
		start = "^"
	}
	for _, c := range host {
		if c != '.' && c != '*' && !isNameByte(c) {
			return "not a name: write ||example.com^"
		}
	}
	text := strings.ToLower(string(host))
	if !strings.ContainsFunc(strings.TrimLeft(text, "*."), func(r rune) bool { return r != '*' && r != '.' }) {
		return dropAll(host, emit)
	}
	expression := start + strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, ".*") + "$"
	return n.expression(expression, emit)
}

// schemes are how expressions about URLs begin.
var schemes = []string{`^https?:\/\/`, `^http:\/\/`, `^https:\/\/`, `^http(s)?:\/\/`, `^https?://`, `^http://`, `^https://`}

// urlExpression returns what an expression about URLs says about the host in
// them, as an expression about names, and whether it says that and no more.
func urlExpression(text string) (expression string, ok bool) {
	for _, s := range schemes {
		rest, found := strings.CutPrefix(text, s)
		if !found {
			continue
		}
		host, path, whole := cutPath(rest)
		if path != "" && path != ".*" && path != "(.*)" && path != ".*$" && path != "$" {
			return "", false
		}
		host, ends := strings.CutSuffix(host, "$")
		if whole || ends {
			return "^(?:" + host + ")$", true
		}
		return "^(?:" + host + ")", true // the rest of the host may be anything
	}
	return "", false
}

// cutPath cuts an expression about what follows the scheme of a URL where the
// path begins: at the first slash that is in no class of characters. whole
// reports whether there is one.
func cutPath(expression string) (host, path string, whole bool) {
	class := false
	for i := 0; i < len(expression); i++ {
		switch c := expression[i]; {
		case c == '\\' && !class && i+1 < len(expression) && expression[i+1] == '/':
			return expression[:i], expression[i+2:], true
		case c == '\\':
			i++
		case c == '[':
			class = true
		case c == ']':
			class = false
		case c == '/' && !class:
			return expression[:i], expression[i+1:], true
		}
	}
	return expression, "", false
}

// expression passes on an expression, which Go may not be able to compile: it
// has neither look-around nor references back.
func (n *names) expression(text string, emit func(Line) bool) string {
	if reason := n.compiles(text); reason != "" {
		return drop([]byte(text), reason, emit)
	}
	emit(Line{Kind: Regexp, Text: text})
	return ""
}

// Bounds of expressions. A name in no list is tried against each of them, and a
// few octets can stand for thousands of states: [a-z]{1000}.
const (
	maxExpression = 4096    // octets
	maxStates     = 2_000   // of one
	maxAllStates  = 250_000 // of those of one list
)

// compiles says why an expression cannot be used, if that is so.
func (n *names) compiles(text string) (reason string) {
	if len(text) > maxExpression {
		return "a very long expression"
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return "not an expression of RE2: " + err.Error()
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return "not an expression of RE2: " + err.Error()
	}
	states := len(program.Inst)
	if states > maxStates {
		return fmt.Sprintf("an expression of %d states, and %d are the most", states, maxStates)
	}
	if n.states+states > maxAllStates {
		return fmt.Sprintf("more expressions than %d states, which are the most of a list", maxAllStates)
	}
	n.states += states
	return ""
}
