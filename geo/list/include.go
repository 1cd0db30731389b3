package list

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"smartdns/resolver/dnsname"
)

// maxIncludes is how many files a list may include in all. A file of v2fly has
// some hundred.
const maxIncludes = 1000

// includes are the files that lines of a list name.
type includes struct {
	open  func(name string) (io.ReadCloser, error) // nil: none can be read
	count *int
	chain []string // those that are read now
	want  []string // attributes that a rule must have, or must not, with a hyphen
}

// include reads another file of the same directory, as v2fly's sources do:
//
//	include:other @cn @-ads     of which only the rules with @cn and without @ads
//
// What it says has the number of this line.
func (n *names) include(text []byte, emit func(Line) bool) string {
	words := strings.Fields(string(text))
	if len(words) == 0 || !isFileName(words[0]) {
		return "write include:NAME, of a file in the same directory"
	}
	name := words[0]
	inner := names{tlds: n.tlds, includes: n.includes}
	for _, w := range words[1:] {
		if w[0] != '@' || len(w) == 1 {
			return "after include:NAME only attributes can stand"
		}
		inner.want = append(slices.Clip(inner.want), strings.ToLower(w[1:]))
	}
	switch {
	case n.open == nil:
		return drop(text, "includes another file, which only a list of format domains that is read from a file can", emit)
	case slices.Contains(n.chain, name):
		return "includes itself: " + strings.Join(append(n.chain, name), ", ")
	case *n.count >= maxIncludes:
		return fmt.Sprintf("the list includes more than %d files", maxIncludes)
	}
	*n.count++
	inner.chain = append(slices.Clip(n.chain), name)
	r, err := n.open(name)
	if err != nil {
		return fmt.Sprintf("including %s: %v", name, err)
	}
	defer r.Close()
	for l, err := range scan(r, inner.parse) {
		if err != nil {
			return fmt.Sprintf("including %s: %v", name, err)
		}
		if !emit(l) {
			break
		}
	}
	return ""
}

// wanted reports whether a rule has the attributes that its file was included
// for.
func (i *includes) wanted(rule []byte) bool {
	for _, want := range i.want {
		without, not := strings.CutPrefix(want, "-")
		if hasAttribute(rule, without) == not {
			return false
		}
	}
	return true
}

// hasAttribute reports whether a rule has " @name", or ":@name,@other".
func hasAttribute(rule []byte, name string) bool {
	_, rule, _ = bytes.Cut(rule, []byte("@"))
	for word := range bytes.FieldsFuncSeq(rule, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' || r == '@' }) {
		if strings.EqualFold(string(word), name) {
			return true
		}
	}
	return false
}

// isFileName reports whether s is a name that stays in its directory.
func isFileName(s string) bool {
	return s[0] != '.' && len(s) <= 100 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r|0x20 < 'a' || r|0x20 > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("!-_.", r)
	})
}

// topLevel returns the top-level domains of a country that lists can have whole.
func topLevel(country string) []dnsname.FQDN {
	switch country {
	case "", "CN":
		return nil // isHomeTLD knows them
	case "IR":
		return []dnsname.FQDN{"ir.", "xn--mgba3a4f16a."}
	case "RU":
		return []dnsname.FQDN{"ru.", "su.", "xn--p1ai."}
	}
	return []dnsname.FQDN{dnsname.FQDN(strings.ToLower(country) + ".")}
}
