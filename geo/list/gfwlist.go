package list

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"iter"
)

// GFWList reads rules of AutoProxy, as gfwlist has them, in base64 or plain:
//
//	||example.com              the name and all below it
//	|https://www.example.com/x the same of the host: DNS does not see the rest of a URL
//	.example.com/x, example.com/x
//	@@||www.example.com        an exception
//	/^https?:\/\/[^\/]+example/  an expression about URLs, if it is one about hosts
//
// Expressions that are about more than the host, or have look-around, and rules
// about addresses are Dropped. Numbers of lines count those of the plain text.
// Comments start with !.
func GFWList(r io.Reader) iter.Seq2[Line, error] { return new(names).gfwlist(r) }

func (n *names) gfwlist(r io.Reader) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		in := bufio.NewReaderSize(r, headSize)
		head, err := in.Peek(headSize)
		if err != nil && !errors.Is(err, io.EOF) {
			yield(Line{}, readError(1, err))
			return
		}
		var plain io.Reader = in
		if isBase64(head) {
			plain = base64.NewDecoder(base64.StdEncoding, in)
		}
		scan(plain, n.parseAutoProxy)(yield)
	}
}

var autoProxy = []byte("[AutoProxy")

// isBase64 reports whether head is the start of rules of AutoProxy in base64.
func isBase64(head []byte) bool {
	head = bytes.TrimLeft(bytes.TrimPrefix(head, bom), "\r\n\t ")
	var b [12]byte
	if len(head) < 16 {
		return false
	}
	n, err := base64.StdEncoding.Decode(b[:], head[:16])
	return err == nil && bytes.HasPrefix(b[:n], autoProxy)
}

func (n *names) parseAutoProxy(rule []byte, emit func(Line) bool) string {
	if bytes.HasPrefix(rule, autoProxy) {
		return ""
	}
	kind := Suffix
	text, except := bytes.CutPrefix(rule, []byte("@@"))
	if except {
		kind = ExceptSuffix
	}
	if len(text) > 0 && text[0] == '/' {
		if except {
			return drop(rule, "an exception that is an expression", emit)
		}
		expression, ok := urlExpression(string(bytes.TrimSuffix(text[1:], []byte("/"))))
		if !ok {
			return drop(rule, "an expression that is not about names alone", emit)
		}
		return n.expression(expression, emit)
	}
	text, whole := bytes.CutPrefix(text, []byte("||"))
	text = bytes.TrimPrefix(text, []byte("|"))
	if _, after, ok := bytes.Cut(text, []byte("://")); ok {
		text = after
	}
	if i := bytes.IndexAny(text, "/?^|"); i >= 0 {
		text = text[:i]
	}
	if !whole && bytes.IndexByte(text, '.') < 0 || bytes.IndexByte(text, '%') >= 0 {
		return drop(rule, "a part of URLs, not a name", emit)
	}
	return n.host(kind, bytes.TrimPrefix(text, []byte(".")), emit)
}
