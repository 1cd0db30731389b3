// Package dnsname provides FQDN, a domain name in one canonical spelling, so
// that names can be compared, used as map keys and walked label by label
// without each caller knowing about case, escapes or the last dot.
package dnsname

import (
	"errors"
	"fmt"
	"strings"
)

const (
	maxLabel = 63  // octets of one label, RFC 1035 section 2.3.4
	maxName  = 255 // octets of a name in wire form, length octets included
	maxText  = 4 * maxName
)

// FQDN is a domain name in canonical form: lower-case ASCII, every octet that
// is not printable escaped as \DDD, dots and backslashes inside a label
// escaped as \. and \\ (RFC 1035 section 5.1), and a dot at the end
// ("www.example.com."; the root is "."). Two FQDNs are the same name exactly
// when they are equal with ==. The zero value "" is no name at all.
type FQDN string

// Root is the name of the root of the DNS.
const Root FQDN = "."

// Parse reads a name as people write it. The last dot is optional, case does
// not matter, and \X and \DDD stand for single octets. Raw spaces, control
// characters and octets above 126 are errors: international names must be
// given in their xn-- form. The error says which label is wrong and why.
func Parse(s string) (FQDN, error) {
	if s == "" {
		return "", errors.New("empty name")
	}
	if s == "." {
		return Root, nil
	}
	var buf [maxText]byte
	out := buf[:0]
	wire, label, start := 1, 0, 0
	for i := 0; i < len(s); {
		if s[i] == '.' {
			if label == 0 {
				return "", labelError(s, start, i, "is empty")
			}
			wire += label + 1
			if wire > maxName {
				return "", fmt.Errorf("name %q is longer than 255 octets", abbreviate(s))
			}
			out = append(out, '.')
			label = 0
			i++
			start = i
			continue
		}
		c, n, err := octet(s[i:])
		if err != nil {
			return "", labelError(s, start, i+1, err.Error())
		}
		i += n
		if label++; label > maxLabel {
			return "", labelError(s, start, i, "is longer than 63 octets")
		}
		if wire+label+1 > maxName {
			return "", fmt.Errorf("name %q is longer than 255 octets", abbreviate(s))
		}
		out = appendOctet(out, c)
	}
	if label > 0 {
		out = append(out, '.')
	}
	return FQDN(out), nil
}

// Canonical reports whether text and a dot make an FQDN as they are: labels of
// lower-case letters, digits, hyphens and underscores. Parse accepts more, and
// turns it into one. The result is how many labels it has, 0 when it is none.
func Canonical(text []byte) (labels int) {
	if len(text) > maxName-2 {
		return 0
	}
	label := 0
	for _, c := range text {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_':
			label++
			continue
		case c != '.' || label == 0 || label > maxLabel:
			return 0
		}
		labels++
		label = 0
	}
	if label == 0 || label > maxLabel {
		return 0
	}
	return labels + 1
}

// octet reads the first octet of text, which may be escaped, and returns how
// many bytes of the text it took.
func octet(text string) (c byte, n int, err error) {
	switch c := text[0]; {
	case c <= ' ' || c == 0x7f:
		return 0, 0, fmt.Errorf("has a blank or control character %q", c)
	case c > 0x7f:
		return 0, 0, errors.New("is not ASCII; write it in its xn-- form")
	case c != '\\':
		return c, 1, nil
	case len(text) == 1:
		return 0, 0, errors.New(`ends in a lone backslash`)
	}
	d := text[1]
	if d < '0' || d > '9' {
		if d < ' ' || d > 0x7e {
			return 0, 0, errors.New(`has a backslash before a character that is not printable`)
		}
		return d, 2, nil
	}
	if len(text) < 4 || !isDigit(text[2]) || !isDigit(text[3]) {
		return 0, 0, errors.New(`has an escape that is not \DDD`)
	}
	v := int(d-'0')*100 + int(text[2]-'0')*10 + int(text[3]-'0')
	if v > 255 {
		return 0, 0, errors.New(`has an escape \DDD above 255`)
	}
	return byte(v), 4, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func labelError(s string, start, end int, why string) error {
	label := s[start:end]
	if rest := strings.IndexByte(s[start:], '.'); rest > end-start {
		label = s[start : start+rest]
	}
	return fmt.Errorf("label %q of %q %s", abbreviate(label), abbreviate(s), why)
}

// abbreviate keeps hostile input from filling a log line.
func abbreviate(s string) string {
	if len(s) <= 80 {
		return s
	}
	return s[:77] + "..."
}

// appendOctet appends c in canonical form.
func appendOctet(dst []byte, c byte) []byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return append(dst, c|0x20)
	case c == '.' || c == '\\':
		return append(dst, '\\', c)
	case c <= ' ' || c >= 0x7f:
		return append(dst, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
	}
	return append(dst, c)
}

// FromWire reads the name in wire form (RFC 1035 section 3.1) at the start of
// b and returns it with the number of octets it took. Compression pointers are
// errors: they have a meaning only inside a message.
func FromWire(b []byte) (name FQDN, n int, err error) {
	var buf [maxText]byte
	out := buf[:0]
	for {
		if n >= len(b) {
			return "", 0, errors.New("name ends early")
		}
		size := int(b[n])
		n++
		switch {
		case size > maxLabel:
			return "", 0, errors.New("name is compressed or has a label of an unknown kind")
		case size == 0 && len(out) == 0:
			return Root, n, nil
		case size == 0:
			return FQDN(out), n, nil
		case n+size >= maxName:
			return "", 0, errors.New("name is longer than 255 octets")
		case n+size > len(b):
			return "", 0, errors.New("name ends early")
		}
		for _, c := range b[n : n+size] {
			out = appendOctet(out, c)
		}
		out = append(out, '.')
		n += size
	}
}

// AppendWire appends f in wire form, uncompressed. The zero FQDN appends the
// root.
func (f FQDN) AppendWire(dst []byte) []byte {
	if f == "" || f == Root {
		return append(dst, 0)
	}
	at := len(dst)
	dst = append(dst, 0)
	for i := 0; i < len(f); i++ {
		c := f[i]
		switch {
		case c == '.':
			dst[at] = byte(len(dst) - at - 1)
			at = len(dst)
			c = 0
		case c == '\\' && isDigit(f[i+1]):
			c = (f[i+1]-'0')*100 + (f[i+2]-'0')*10 + (f[i+3] - '0')
			i += 3
		case c == '\\':
			i++
			c = f[i]
		}
		dst = append(dst, c)
	}
	return dst
}

// String returns the name as people write it: without the last dot, and "."
// for the root.
func (f FQDN) String() string {
	if f == Root {
		return "."
	}
	return strings.TrimSuffix(string(f), ".")
}

// Contains reports whether sub is f itself or a name below it. Whole labels
// count: "baidu.com." contains neither "notbaidu.com." nor `x\.baidu.com.`.
func (f FQDN) Contains(sub FQDN) bool {
	if f == Root {
		return sub != ""
	}
	cut := len(sub) - len(f)
	switch {
	case f == "" || cut < 0 || sub[cut:] != f:
		return false
	case cut == 0:
		return true
	}
	return sub[cut-1] == '.' && !sub.escaped(cut-1)
}

// escaped reports whether the octet at i stands behind an odd number of
// backslashes and so belongs to a label.
func (f FQDN) escaped(i int) bool {
	n := 0
	for i > 0 && f[i-1] == '\\' {
		n++
		i--
	}
	return n%2 == 1
}

// Parent returns the name without its first label; ok is false for the root,
// which has none.
func (f FQDN) Parent() (parent FQDN, ok bool) {
	if f == "" || f == Root {
		return "", false
	}
	for i := 0; i < len(f)-1; i++ {
		switch f[i] {
		case '\\':
			i++
		case '.':
			return f[i+1:], true
		}
	}
	return Root, true
}

// Labels returns the number of labels; the root has none.
func (f FQDN) Labels() int {
	n := 0
	for parent, ok := f.Parent(); ok; parent, ok = parent.Parent() {
		n++
	}
	return n
}
