package configs

import (
	"errors"
	"net/netip"
	"slices"
)

func (c converter) records(raw rawRecords) Records {
	var r Records
	for _, item := range raw.Lines.items {
		if item.value == "" {
			c.addf(item.place, `is empty: write a record as in a zone file, e.g. "nas.home.arpa A 192.168.8.2"`)
			continue
		}
		r.Lines = append(r.Lines, RecordLine{item.value, c.pos(item.place)})
	}
	r.Zones = c.recordFiles(raw.Zones)
	r.Hosts = c.recordFiles(raw.Hosts)
	return r
}

func (c converter) recordFiles(raw rawStrings) []RecordFile {
	var all []RecordFile
	for _, item := range raw.items {
		path := c.path(item)
		if slices.ContainsFunc(all, func(f RecordFile) bool { return path != "" && f.Path == path }) {
			c.twice(item)
			continue
		}
		all = append(all, RecordFile{path, c.pos(item.place)})
	}
	return all
}

func (c converter) dns64(raw rawDNS64) DNS64 {
	d := DNS64{NAT64: word(c, raw.NAT64, NAT64Here, NAT64Path)}
	if raw.Prefix.given() && raw.Prefix.value != "" {
		var err error
		if d.Prefix, err = parseNAT64(raw.Prefix.value); err != nil {
			c.valuef(raw.Prefix, err)
		}
	} else if at := raw.Exclude.place; !raw.Prefix.bad && (len(raw.Exclude.items) > 0 || d.NAT64 != NAT64Here) {
		if d.NAT64 != NAT64Here {
			at = raw.NAT64.place
		}
		c.addf(at, `has no meaning without a prefix: write prefix = "64:ff9b::/96", or that of your NAT64`)
	}
	for _, item := range raw.Exclude.items {
		p, err := parsePrefix(item.value)
		switch {
		case err != nil:
			c.valuef(item, err)
		case slices.Contains(d.Exclude, p):
			c.twice(item)
		default:
			d.Exclude = append(d.Exclude, p)
		}
	}
	return d
}

// parseNAT64 reads a prefix that v4 addresses can stand behind (RFC 6052
// section 2.2).
func parseNAT64(s string) (netip.Prefix, error) {
	p, err := parsePrefix(s)
	switch {
	case err != nil:
		return p, err
	case !p.Addr().Is6() || !slices.Contains([]int{32, 40, 48, 56, 64, 96}, p.Bits()):
		return p, errors.New("a NAT64's prefix is one of IPv6, of /32, /40, /48, /56, /64 or /96: the usual one is 64:ff9b::/96")
	case p.Addr().As16()[8] != 0:
		return p, errors.New("bits 64 to 71 of a NAT64's prefix are zero (RFC 6052)")
	}
	return p, nil
}

func lineTexts(lines []RecordLine) []string {
	all := make([]string, len(lines))
	for i, l := range lines {
		all[i] = l.Text
	}
	return all
}

func filePaths(files []RecordFile) []string {
	all := make([]string, len(files))
	for i, f := range files {
		all[i] = f.Path
	}
	return all
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}
