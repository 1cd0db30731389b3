package configs

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"smartdns/resolver/dnsname"
)

// Text returns the effective configuration as TOML. It parses back to a Config
// that differs in the places of things alone, unless there is a password in it:
// Text does not tell those, and Parse says of each that it is missing.
func (c *Config) Text() string {
	w := new(textWriter)
	if c.File == "" {
		w.line("# no file: the defaults")
	} else {
		w.line("# " + printable(c.File) + ", with every default")
	}
	w.table("listen", append([]row{
		{"dns", c.Listen.listenerTexts(c.Listen.DNS)},
		{"dot", c.Listen.listenerTexts(c.Listen.DoT)},
		{"doh", c.Listen.listenerTexts(c.Listen.DoH)},
		{"cert", tomlString(c.Listen.Cert)},
		{"key", tomlString(c.Listen.Key)},
		{"lan", tomlStrings(c.Listen.LAN)},
		{"clients", tomlStrings(texts(c.Listen.Clients))},
		{"redirect", strconv.FormatBool(c.Listen.Redirect)},
		{"system", strconv.FormatBool(c.Listen.System)},
	}, c.Listen.Bypass.rows()...)...)
	for _, t := range c.Tunnels {
		w.table("tunnel."+tomlKey(string(t.Path)),
			row{"config", tomlString(t.Config)},
			row{"device", tomlString(string(t.Device))},
			row{"when_down", tomlString(string(t.WhenDown))},
			row{"inbound", tomlString(string(t.Inbound))},
			row{"translate", tomlString(string(t.Translate))},
			row{"hooks", strconv.FormatBool(t.Hooks)})
	}
	for _, s := range c.Sides {
		w.table("side."+tomlKey(s.Name),
			row{"servers", serverTexts(s.Servers)},
			row{"via", tomlString(string(s.Via))},
			row{"choose", tomlString(string(s.Choose))},
			row{"bootstrap", serverTexts(s.Bootstrap)},
			row{"socks5", tomlString(s.SOCKS5.String())},
			row{"ecs", tomlString(s.ECS.String())},
			row{"private", strconv.FormatBool(s.Private)})
	}
	for _, l := range c.Lists {
		rows := []row{{"file", tomlString(l.File)}}
		if len(l.Fetch.URLs) > 0 {
			rows = l.Fetch.rows()
		}
		w.table("list."+tomlKey(l.Name), append(rows,
			row{"format", tomlString(string(l.Format))},
			row{"code", tomlString(l.Code)},
			row{"region", tomlString(l.Region)})...)
	}
	w.table("decide",
		row{"home", tomlString(c.Decide.Home)},
		row{"auto", tomlString(string(c.Decide.Auto))},
		row{"mixed", tomlString(string(c.Decide.Mixed))},
		row{"private_ok", tomlStrings(texts(c.Decide.PrivateOK))})
	w.rules("names", nameRows(c.Decide.Names))
	w.rules("addresses", addressRows(c.Decide.Addresses))
	w.rules("clients", clientRows(c.Decide.Clients))
	w.table("records",
		row{"lines", tomlStrings(lineTexts(c.Records.Lines))},
		row{"zones", tomlStrings(filePaths(c.Records.Zones))},
		row{"hosts", tomlStrings(filePaths(c.Records.Hosts))})
	w.table("dns64",
		row{"prefix", tomlString(prefixText(c.DNS64.Prefix))},
		row{"exclude", tomlStrings(texts(c.DNS64.Exclude))},
		row{"nat64", tomlString(string(c.DNS64.NAT64))})
	w.table("geo",
		row{"sources", tomlStrings(sourceTexts(c.Geo.Sources))},
		row{"home", tomlStrings(geoTexts(c.Geo.Home))},
		row{"abroad", tomlStrings(geoTexts(c.Geo.Abroad))})
	w.table("poison",
		row{"hold", tomlString(c.Poison.Hold.String())},
		row{"bogus", tomlStrings(listTexts(c.Poison.Bogus))},
		row{"probe", strconv.FormatBool(c.Poison.Probe)})
	w.table("cache", cacheRows(c.Cache)...)
	w.table("marks",
		row{"on_error", tomlString(string(c.Marks.OnError))},
		row{"size", strconv.FormatUint(uint64(c.Marks.Size), 10)})
	w.table("routing",
		row{"mode", tomlString(string(c.Routing.Mode))},
		row{"skip", tomlStrings(c.Routing.Skip)},
		row{"table", tomlString(string(c.Routing.Table))},
		row{"strict", strconv.FormatBool(c.Routing.Strict)},
		row{"masquerade", tomlString(string(c.Routing.Masquerade))},
		row{"flowtable", strconv.FormatBool(c.Routing.Flowtable)})
	return w.String()
}

// row is two columns of text: a key and its value, or a line's match and what
// it says.
type row struct{ left, right string }

// widest returns the width that aligns the right columns. Very long left ones
// stand out.
func widest(rows []row) int {
	const longest = 40
	width := 0
	for _, r := range rows {
		if n := utf8.RuneCountInString(r.left); n <= longest {
			width = max(width, n)
		}
	}
	return width
}

type textWriter struct{ strings.Builder }

func (w *textWriter) line(s string) { w.WriteString(s + "\n") }

func (w *textWriter) table(name string, rows ...row) {
	w.line("\n[" + name + "]")
	width := widest(rows)
	for _, r := range rows {
		w.line(fmt.Sprintf("%-*s = %s", width, r.left, r.right))
	}
}

func (w *textWriter) rules(name string, rows []row) {
	if len(rows) == 0 {
		w.line(name + " = []")
		return
	}
	w.line(name + " = [")
	width := widest(rows)
	for _, r := range rows {
		w.line(fmt.Sprintf("  { match = %-*s %s },", width, r.left, r.right))
	}
	w.line("]")
}

func nameRows(rules []NameRule) []row {
	rows := make([]row, len(rules))
	for i, r := range rules {
		var says []string
		if r.Ask != "" {
			says = append(says, "ask = "+tomlString(r.Ask))
		}
		if r.Answer.Kind != AnswerNone {
			says = append(says, "answer = "+r.Answer.text())
		}
		if r.Via != "" {
			says = append(says, "via = "+tomlString(string(r.Via)))
		}
		if r.AAAA != AAAAAuto {
			says = append(says, "aaaa = "+tomlString(string(r.AAAA)))
		}
		if r.HTTPS != HTTPSAuto {
			says = append(says, "https = "+tomlString(string(r.HTTPS)))
		}
		if !r.Clients.Everybody() {
			says = append(says, "clients = "+tomlStrings(r.Clients.texts()))
		}
		rows[i] = row{r.Text + ",", strings.Join(says, ", ")}
	}
	return rows
}

func addressRows(rules []AddressRule) []row {
	rows := make([]row, len(rules))
	for i, r := range rules {
		rows[i] = row{r.Text + ",", "via = " + tomlString(string(r.Via))}
	}
	return rows
}

func (a Answer) text() string {
	switch {
	case a.Kind == AnswerCNAME:
		return tomlString("cname:" + a.Target.String())
	case a.Kind != AnswerAddress:
		return tomlString(string(a.Kind))
	case len(a.Addrs) == 1:
		return tomlString(a.Addrs[0].String())
	}
	return tomlStrings(texts(a.Addrs))
}

func texts[T netip.Addr | netip.AddrPort | netip.Prefix | dnsname.FQDN](values []T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = fmt.Sprint(v)
	}
	return all
}

func listTexts(names []string) []string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = "list:" + n
	}
	return all
}

func sourceTexts(names []string) []string {
	all := listTexts(names)
	for i, n := range names {
		if n == GeoEmbedded {
			all[i] = n
		}
	}
	return all
}

// tomlKey returns name as a TOML key, quoted where it must be.
func tomlKey(name string) string {
	if name != "" && isMadeOf(name, "_-") {
		return name
	}
	return tomlString(name)
}

// tomlString returns s as a TOML basic string: Go's quoting has escapes that
// TOML does not know.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case printable(string(r)) != string(r):
			if r > 0xffff {
				fmt.Fprintf(&b, `\U%08x`, r)
			} else {
				fmt.Fprintf(&b, `\u%04x`, r)
			}
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// tomlStrings returns a TOML array of strings on one line.
func tomlStrings(values []string) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = tomlString(v)
	}
	return "[" + strings.Join(all, ", ") + "]"
}
