package draft

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
)

// record adds a line of a zone file. Only names and plain words get there: what
// has a blank or a quote of its own is text.
func (r *reader) record(name, kind, data string) {
	if !plainWord(name) {
		r.lost("%q is no name", clip(name))
		return
	}
	r.records.lines = appendNew(r.records.lines, r.value(name+" "+kind+" "+data))
}

func plainWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c > 0x7e || c <= ' ' || strings.ContainsRune(`"();@$\`, c)
	})
}

func fields(value string) []string {
	all := strings.Split(value, ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

// ttlOf returns a TTL as a zone file has it before the type.
func ttlOf(s string) (string, bool) {
	ok := s != "" && strings.IndexFunc(s, func(c rune) bool { return !unicode.IsDigit(c) }) < 0 && len(s) < 8
	return s + " ", ok
}

// hostRecord takes NAME[,NAME…],[ADDRESS],[ADDRESS][,TTL].
func (d *dnsmasq) hostRecord(value string) {
	var names, addrs []string
	ttl := ""
	for _, f := range fields(value) {
		if a, err := netip.ParseAddr(f); err == nil && a.Zone() == "" {
			addrs = append(addrs, a.Unmap().String())
		} else if t, ok := ttlOf(f); ok {
			ttl = t
		} else if f != "" {
			names = append(names, f)
		}
	}
	if len(addrs) == 0 || len(names) == 0 {
		d.lost("a record has a name and an address")
		return
	}
	for _, n := range names {
		for _, a := range addrs {
			d.record(n, ttl+addressType(a), a)
		}
	}
}

func addressType(a string) string {
	if strings.Contains(a, ":") {
		return "AAAA"
	}
	return "A"
}

// cname takes NAME[,NAME…],TARGET[,TTL].
func (d *dnsmasq) cname(value string) {
	all, ttl := fields(value), ""
	if t, ok := ttlOf(all[len(all)-1]); ok && len(all) > 2 {
		all, ttl = all[:len(all)-1], t
	}
	if len(all) < 2 || !plainWord(all[len(all)-1]) {
		d.lost("an alias has a name and a target")
		return
	}
	for _, n := range all[:len(all)-1] {
		d.record(n, ttl+"CNAME", all[len(all)-1])
	}
}

func (d *dnsmasq) txt(value string) {
	all := fields(value)
	var texts []string
	for _, t := range all[1:] {
		t = strings.Trim(t, `"`)
		if strings.ContainsAny(t, "\"\\\x00") || len(t) > 255 {
			d.lost("its text has quotes or is long: write it into [records] lines as a zone file does")
			return
		}
		texts = append(texts, `"`+t+`"`)
	}
	if len(texts) == 0 {
		texts = []string{`""`}
	}
	d.record(all[0], "TXT", strings.Join(texts, " "))
}

func (d *dnsmasq) ptr(value string) {
	all := fields(value)
	if len(all) != 2 || !plainWord(all[1]) {
		d.lost("a PTR record has a name and a target")
		return
	}
	d.record(all[0], "PTR", all[1])
}

// numbers returns fields from at on, with 0 for those that are missing.
func numbers(all []string, at, n int) ([]string, bool) {
	out := make([]string, n)
	for i := range out {
		out[i] = "0"
		if at+i < len(all) && all[at+i] != "" {
			if _, ok := ttlOf(all[at+i]); !ok {
				return nil, false
			}
			out[i] = all[at+i]
		}
	}
	return out, true
}

// srv takes NAME,TARGET,PORT,PRIORITY,WEIGHT.
func (d *dnsmasq) srv(value string) {
	all := fields(value)
	n, ok := numbers(all, 2, 3)
	if len(all) < 3 || !ok || !plainWord(all[1]) {
		d.lost("a service is written NAME,TARGET,PORT,PRIORITY,WEIGHT")
		return
	}
	d.record(all[0], "SRV", fmt.Sprintf("%s %s %s %s", n[1], n[2], n[0], all[1]))
}

// mx takes NAME,TARGET,PREFERENCE.
func (d *dnsmasq) mx(value string) {
	all := fields(value)
	n, ok := numbers(all, 2, 1)
	if len(all) < 2 || !ok || !plainWord(all[1]) {
		d.lost("a mail host is written NAME,TARGET,PREFERENCE")
		return
	}
	if len(all) < 3 {
		n[0] = "1"
	}
	d.record(all[0], "MX", n[0]+" "+all[1])
}

// caa takes NAME,FLAGS,TAG,VALUE.
func (d *dnsmasq) caa(value string) {
	all := fields(value)
	n, ok := numbers(all, 1, 1)
	if len(all) != 4 || !ok || !plainWord(all[2]) || !plainWord(all[3]) {
		d.lost("a CAA record is written NAME,FLAGS,TAG,VALUE")
		return
	}
	d.record(all[0], "CAA", fmt.Sprintf(`%s %s "%s"`, n[0], all[2], all[3]))
}

func (d *dnsmasq) noRecord(string) {
	d.lost("write the record into [records] lines as a zone file has it")
}
