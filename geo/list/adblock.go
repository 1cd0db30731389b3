package list

import (
	"bytes"
	"io"
	"iter"
)

// Adblock reads the rules of ad blockers that are about whole names:
//
//	||example.com^            the name and all below it
//	|www.example.com^, www.example.com, 0.0.0.0 www.example.com
//	                          the name alone
//	||ads*.example.com^       "*" stands for any text
//	/^ads?[0-9]+\./           an expression about names
//	@@||good.example.com^     an exception
//	||example.com^$important  the modifiers important, document (doc) and all change nothing here
//	||example.com^$badfilter  takes the rule back: an exception
//
// What is about a part of pages or of URLs, some requests or some clients, and
// what only a blocker can do, is Dropped, since a list of names would do more
// than the rule says. Comments start with ! or #.
func Adblock(r io.Reader) iter.Seq2[Line, error] { return scan(r, new(names).parseAdblock) }

func (n *names) parseAdblock(rule []byte, emit func(Line) bool) string {
	switch {
	case rule[0] == '[' && rule[len(rule)-1] == ']':
		return "" // the title of the format
	case isCosmetic(rule):
		return drop(rule, "about a part of pages, not about a name", emit)
	}
	text, except := bytes.CutPrefix(rule, []byte("@@"))
	text, options := cutOptions(text)
	switch why, back := optionsSay(options); {
	case why != "":
		return drop(rule, why, emit)
	case back:
		except = !except
	}
	if len(text) > 2 && text[0] == '/' && text[len(text)-1] == '/' {
		return n.adblockExpression(rule, text[1:len(text)-1], except, emit)
	}
	if bytes.ContainsAny(text, " \t") {
		if except {
			return "an exception is one name: write @@||example.com^"
		}
		return n.parseHosts(text, emit)
	}
	kind, host, why := hostOf(text)
	switch {
	case why != "":
		return drop(rule, why, emit)
	case except && kind == Suffix:
		kind = ExceptSuffix
	case except:
		kind = ExceptFull
	}
	return n.host(kind, host, emit)
}

func (n *names) adblockExpression(rule, expression []byte, except bool, emit func(Line) bool) string {
	if except {
		return drop(rule, "an exception that is an expression", emit)
	}
	text := string(expression)
	if about, ok := urlExpression(text); ok {
		text = about
	} else if bytes.IndexByte(expression, '/') >= 0 || bytes.Contains(expression, []byte("http")) {
		return drop(rule, "an expression that is not about names alone", emit)
	}
	return n.expression(text, emit)
}

// isCosmetic reports whether a rule hides or changes elements of pages: it has
// ##, #@#, #?#, #$# and the like between names and what they do there.
func isCosmetic(rule []byte) bool {
	for i := 0; ; i++ {
		next := bytes.IndexByte(rule[i:], '#')
		if next < 0 {
			return bytes.Contains(rule, []byte("$$")) || bytes.Contains(rule, []byte("$@$"))
		}
		i += next
		rest := bytes.TrimLeft(rule[i+1:], "@?$%")
		if len(rest) > 0 && rest[0] == '#' {
			return true
		}
	}
}

// cutOptions cuts a rule before the "$" that its modifiers follow. An
// expression may have one inside.
func cutOptions(rule []byte) (pattern, options []byte) {
	at := bytes.LastIndexByte(rule, '$')
	if at <= 0 || rule[0] == '/' && rule[len(rule)-1] == '/' {
		return rule, nil
	}
	return rule[:at], rule[at+1:]
}

// optionsSay returns why a rule with these modifiers is not about whole names,
// and whether they take another rule back.
func optionsSay(options []byte) (why string, back bool) {
	for o := range bytes.SplitSeq(options, []byte(",")) {
		switch string(o) {
		case "", "important", "document", "doc", "all":
		case "badfilter":
			back = true
		default:
			return "$" + clip(o) + ": not about everything of a name", false
		}
	}
	return "", back
}

// hostOf returns the host that a pattern is about, and whether with all names
// below it, or why it is about something else.
func hostOf(text []byte) (kind LineKind, host []byte, why string) {
	const part = "about a part of URLs, not about a name"
	kind = Full
	anchored := true
	switch {
	case bytes.HasPrefix(text, []byte("||")):
		kind, text = Suffix, text[2:]
	case bytes.HasPrefix(text, []byte("|")):
		text = text[1:]
	default:
		anchored = false
	}
	for _, scheme := range []string{"https://", "http://", "://"} {
		if after, ok := bytes.CutPrefix(text, []byte(scheme)); ok {
			text, anchored = after, true
			break
		}
	}
	end := bytes.IndexAny(text, "/^|?&=")
	if end >= 0 {
		if tail := string(text[end:]); tail != "^" && tail != "^|" && tail != "|" && tail != "/" && tail != "^*" && tail != "/*" {
			return Bad, nil, part
		}
		text = text[:end]
	}
	if !anchored && len(text) > 1 && text[0] == '.' {
		kind, text = Suffix, text[1:]
	}
	if !anchored && (bytes.IndexByte(text, '.') <= 0 || text[len(text)-1] == '.' || text[0] == '-' || text[0] == '_') {
		return Bad, nil, part
	}
	return kind, text, ""
}
