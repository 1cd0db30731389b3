package list

import (
	"bytes"
	"io"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// RPZ reads a response policy zone (draft-vixie-dnsop-dns-rpz), a zone file
// whose names are what it is about:
//
//	www.example.com     CNAME .              the name alone; what is answered does not matter
//	*.example.com       A     192.0.2.1      the name and all below it
//	good.example.com    CNAME rpz-passthru.  an exception
//	24.0.2.0.192.rpz-ip CNAME .              the addresses of 192.0.2.0/24
//
// Names or prefixes are yielded, as kind says; the others are Dropped, as are
// triggers by client or name server. A zone is read line by line: one record on
// each, parentheses for what is not needed, no $INCLUDE and $GENERATE.
func RPZ(r io.Reader, kind Kind) iter.Seq2[Line, error] { return new(names).rpz(r, kind) }

func (n *names) rpz(r io.Reader, kind Kind) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		z := zone{names: n, kind: kind}
		scanIndented(r, z.parse, true)(yield)
	}
}

// zone is what the lines before say about the next one. Names are in lower
// case, without last dot; "" is not known.
type zone struct {
	*names
	kind         Kind
	apex, origin string
	owner        string // as written
	open         int    // parentheses
	last         string // trigger that was passed on
}

func (z *zone) parse(line []byte, emit func(Line) bool) string {
	inside := z.open > 0
	text, open, reason := cutZoneComment(line)
	if z.open += open; z.open < 0 || reason != "" {
		z.open = 0
		return "quotes or parentheses that do not match"
	}
	if inside {
		return ""
	}
	if text == "" {
		return ""
	}
	if text[0] == '$' {
		return z.directive(strings.Fields(text), emit)
	}
	fields := strings.Fields(text)
	if text[0] != ' ' && text[0] != '\t' && len(fields) > 0 {
		z.owner, fields = fields[0], fields[1:]
	}
	fields = slices.DeleteFunc(fields, func(f string) bool { return f == "(" || f == ")" })
	for range 2 { // a TTL and a class, in either order
		if len(fields) > 0 && (isClass(fields[0]) || isTTL(fields[0])) {
			fields = fields[1:]
		}
	}
	if len(fields) < 2 || z.owner == "" {
		return "not a record of a zone: write www.example.com CNAME ."
	}
	return z.record(strings.ToUpper(fields[0]), fields[1], line, emit)
}

func (z *zone) directive(fields []string, emit func(Line) bool) string {
	switch strings.ToUpper(fields[0]) {
	case "$TTL":
		return ""
	case "$ORIGIN":
		if len(fields) != 2 {
			return "write $ORIGIN rpz.example."
		}
		if z.origin = z.absolute(fields[1]); z.apex == "" {
			z.apex = z.origin
		}
		return ""
	}
	return drop([]byte(strings.Join(fields, " ")), "not read: only $ORIGIN and $TTL are", emit)
}

// absolute returns a name as it is from the root.
func (z *zone) absolute(name string) string {
	name = strings.ToLower(name)
	whole, ok := strings.CutSuffix(name, ".")
	switch {
	case name == "@":
		return z.origin
	case ok || z.origin == "":
		return whole
	}
	return name + "." + z.origin
}

func (z *zone) record(kind, data string, line []byte, emit func(Line) bool) string {
	name := z.absolute(z.owner)
	if kind == "SOA" {
		z.apex = name
		if z.origin == "" {
			z.origin = name
		}
		return ""
	}
	switch kind {
	case "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DNSKEY", "CDS", "CDNSKEY", "ZONEMD":
		return ""
	}
	if !isRecordType(kind) {
		return "an unknown type of record: write www.example.com CNAME ."
	}
	if name == z.apex {
		return ""
	}
	trigger := name
	if z.apex != "" {
		inside, ok := strings.CutSuffix(name, "."+z.apex)
		if !ok {
			return "a name outside of the zone " + z.apex
		}
		trigger = inside
	}
	except := kind == "CNAME" && (strings.EqualFold(strings.TrimSuffix(data, "."), "rpz-passthru") || strings.EqualFold(data, trigger+"."))
	if kind == "CNAME" && strings.EqualFold(data, "rpz-tcp-only.") {
		return drop(line, "asks for TCP, which a list cannot", emit)
	}
	if trigger == z.last {
		return "" // one more record of the name
	}
	z.last = trigger
	return z.trigger(trigger, except, line, emit)
}

// trigger passes on what a policy is about.
func (z *zone) trigger(trigger string, except bool, line []byte, emit func(Line) bool) string {
	if i := strings.LastIndexByte(trigger, '.'); strings.HasPrefix(trigger[i+1:], "rpz-") {
		if trigger[i+1:] != "rpz-ip" || i < 0 {
			return drop(line, "about who asks, or who answers, not about a name or an address", emit)
		}
		return z.addresses(trigger[:i], except, line, emit)
	}
	if z.kind != KindNames {
		return drop(line, "a name, in a list that is used for addresses", emit)
	}
	kind := Full
	name, below := strings.CutPrefix(trigger, "*.")
	switch {
	case below && except:
		kind = ExceptSuffix
	case below:
		kind = Suffix
	case except:
		kind = ExceptFull
	}
	return z.emit(kind, []byte(name), emit)
}

// addresses passes on the prefix that a name below rpz-ip stands for: its
// length, then the numbers of the address from the last to the first, "zz" for
// the "::" of IPv6.
func (z *zone) addresses(text string, except bool, line []byte, emit func(Line) bool) string {
	const wrong = "not a prefix: write 24.0.2.0.192.rpz-ip, or 32.zz.db8.2001.rpz-ip"
	if z.kind != KindPrefixes {
		return drop(line, "addresses, in a list that is used for names", emit)
	}
	labels := strings.Split(text, ".")
	bits, err := strconv.Atoi(labels[0])
	if err != nil {
		return wrong
	}
	numbers := labels[1:]
	slices.Reverse(numbers)
	var addr netip.Addr
	switch short := slices.Contains(numbers, "zz"); {
	case len(numbers) == 4 && !short:
		addr, err = netip.ParseAddr(strings.Join(numbers, "."))
	case !short && len(numbers) != 8:
		return wrong
	default:
		s := strings.Replace(":"+strings.Join(numbers, ":")+":", ":zz:", "::", 1)
		if !strings.HasPrefix(s, "::") {
			s = s[1:]
		}
		if !strings.HasSuffix(s, "::") {
			s = s[:len(s)-1]
		}
		addr, err = netip.ParseAddr(s)
	}
	p := netip.PrefixFrom(addr, bits)
	switch {
	case err != nil || !p.IsValid() || p != p.Masked() || addr.Is4In6():
		return wrong
	case except && bits > 0:
		emit(Line{Kind: ExceptPrefix, Prefix: p})
	default:
		emitPrefix(p, emit)
	}
	return ""
}

// cutZoneComment returns a line without its comment, what is in quotes as "x",
// and how many more parentheses it opens than it closes.
func cutZoneComment(line []byte) (text string, open int, reason string) {
	if !bytes.ContainsAny(line, `;()"\`) {
		return string(line), 0, ""
	}
	var b strings.Builder
	quoted := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && i+1 < len(line):
			i++
			if !quoted {
				b.WriteByte(c)
				b.WriteByte(line[i])
			}
		case c == '"':
			if quoted = !quoted; quoted {
				b.WriteByte('x')
			}
		case quoted:
		case c == ';':
			return b.String(), open, ""
		case c == '(' || c == ')':
			open += 1 - 2*int(c-'(')
			b.WriteByte(' ')
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", 0, "unfinished quotes"
	}
	return b.String(), open, ""
}

func isClass(s string) bool {
	return strings.EqualFold(s, "IN") || strings.EqualFold(s, "CH") || strings.EqualFold(s, "HS")
}

// isTTL reports whether s is a number, also with units: 300, 1h30m.
func isTTL(s string) bool {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (i == 0 || strings.IndexByte("smhdwSMHDW", s[i]) < 0) {
			return false
		}
	}
	return s != ""
}

// isRecordType reports whether s is a type that a policy may answer with.
func isRecordType(s string) bool {
	switch s {
	case "A", "AAAA", "CNAME", "DNAME", "TXT", "MX", "NS", "PTR", "SRV", "NAPTR", "CAA", "HTTPS", "SVCB", "SPF", "LOC", "HINFO", "TLSA", "SSHFP", "URI":
		return true
	}
	return strings.HasPrefix(s, "TYPE") && isNumber([]byte(s[4:]))
}

// isZoneLine reports whether a line can only be one of a zone file.
func isZoneLine(line []byte) bool {
	if line[0] == '$' {
		return bytes.HasPrefix(line, []byte("$TTL")) || bytes.HasPrefix(line, []byte("$ORIGIN"))
	}
	n := 0
	for f := range bytes.FieldsSeq(line) {
		switch s := string(f); {
		case n > 0 && (s == "SOA" || s == "CNAME" || s == "soa" || s == "cname"):
			return true
		case n > 0 && !isClass(s) && !isTTL(s) || n > 3:
			return false
		}
		n++
	}
	return false
}
