package draft

import (
	"bytes"
	"fmt"
	"strings"

	"smartdns/configs"
)

// fewest is how many lines make a file a list.
const fewest = 20

// asList takes a file whose lines all say the same about different names, as
// published lists do. It stays where it is, as a list of ours, which reads
// dnsmasq's form. It reports whether the file is one.
func (d *dnsmasq) asList(name string, data []byte) bool {
	said := map[string]string{} // what the lines of each kind say
	first := place{name, 0}
	text, lines, n := "", 0, 0
	for line := range bytes.Lines(data) {
		n++
		s := strings.TrimSpace(string(line))
		if s == "" || s[0] == '#' {
			continue
		}
		kind, value, ok := strings.Cut(s, "=")
		if !ok || !strings.HasPrefix(value, "/") || strings.Count(value, "/") < 2 {
			return false
		}
		end := strings.LastIndexByte(value, '/')
		names, rest := value[:end], value[end+1:]
		if strings.ContainsAny(names, "*#@ ") || strings.Contains(names, "//") {
			return false
		}
		switch kind {
		case "local":
			kind = "server"
		case "server", "address", "ipset", "nftset":
		default:
			return false
		}
		if was, seen := said[kind]; seen && was != rest {
			return false
		}
		said[kind] = rest
		if lines++; lines == 1 {
			first.line, text = n, s
		}
	}
	_, asks := said["server"]
	_, answers := said["address"]
	if lines < fewest || asks && answers {
		return false
	}
	d.line(first, fmt.Sprintf("%s (and %d lines more)", text, lines-1))
	if !asks && !answers {
		d.lost("%s", d.setWhy())
		return true
	}
	m := "list:" + d.listOf(name, "", configs.ListDnsmasq)
	switch {
	case answers && said["address"] == "":
		d.decide(m, rule{answer: []string{"nxdomain"}})
	case answers && (said["address"] == "0.0.0.0" || said["address"] == "::"):
		d.decide(m, rule{answer: []string{"null"}})
	case answers:
		d.decide(m, rule{})
		d.answers[m] = []string{said["address"]}
	case said["server"] == "":
		d.decide(m, rule{answer: []string{"nxdomain"}})
	default:
		if e, ok := d.upstream(said["server"]); ok {
			d.serve(m, e)
		}
	}
	if len(said) > 1 {
		d.lost("%s", d.setWhy())
	}
	return true
}
