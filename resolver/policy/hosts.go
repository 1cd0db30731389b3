package policy

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"smartdns/resolver/dnsname"
)

const (
	typeA    = 1
	typePTR  = 12
	typeAAAA = 28
)

// maxHostsLine is the longest line of a hosts file, in octets.
const maxHostsLine = 64 << 10

// Passed counts what AddHosts could not use.
type Passed struct {
	Lines int   // how many lines
	First error // why the first of them, with its place; nil when there is none
}

func (p *Passed) add(err error) {
	if p.Lines++; p.First == nil {
		p.First = err
	}
}

// AddHosts adds the names of a file like /etc/hosts: an A or AAAA record for
// each name of a line, and a PTR record from the address to the first name
// that the first of its lines has. Lines that cannot be used are passed over
// and counted; the error is of reading.
func (r *Records) AddHosts(in io.Reader, file string) (Passed, error) {
	var passed Passed
	s := bufio.NewScanner(io.LimitReader(in, MaxRecordsFile+1))
	s.Buffer(nil, maxHostsLine)
	number, size := 0, 0
	for s.Scan() {
		number++
		if size += len(s.Bytes()) + 1; size > MaxRecordsFile {
			return passed, fmt.Errorf("%s: it is larger than 32 MiB", file)
		}
		at := Place{file, number}
		text, _, _ := strings.Cut(s.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if err := r.addHost(words, at); err != nil {
			passed.add(fmt.Errorf("%s: %w", at, err))
		}
	}
	if err := s.Err(); err != nil {
		return passed, fmt.Errorf("%s:%d: %w", file, number+1, err)
	}
	return passed, nil
}

func (r *Records) addHost(words []string, at Place) error {
	addr, err := netip.ParseAddr(words[0])
	switch {
	case err != nil:
		return fmt.Errorf("%q is no address: a line is an address and its names", abbreviated(words[0]))
	case addr.Zone() != "":
		return fmt.Errorf("%q has an interface, which no answer can carry", abbreviated(words[0]))
	case len(words) == 1:
		return fmt.Errorf("%s has no name", addr)
	}
	addr = addr.Unmap()
	typ := uint16(typeAAAA)
	if addr.Is4() {
		typ = typeA
	}
	var failed error // the first
	var first dnsname.FQDN
	for _, word := range words[1:] {
		name, err := dnsname.Parse(word)
		if err == nil && (name == dnsname.Root || strings.HasPrefix(word, "*")) {
			err = fmt.Errorf("%q is no name of a host", abbreviated(word))
		}
		if err == nil {
			err = r.add(name, Record{typ, RecordTTL, addr.AsSlice(), at})
		}
		if err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		if first == "" {
			first = name
		}
	}
	if reverse := Reverse(addr); first != "" && !addr.IsUnspecified() && len(r.names[reverse]) == 0 {
		failed = cmp.Or(failed, r.add(reverse, Record{typePTR, RecordTTL, first.AppendWire(nil), at}))
	}
	return failed
}

// abbreviated keeps what is no text from filling a line.
func abbreviated(s string) string {
	if len(s) > 60 {
		return s[:57] + "..."
	}
	return s
}

// Reverse returns the name under which PTR records of an address stand.
func Reverse(a netip.Addr) dnsname.FQDN { return ReverseZones(netip.PrefixFrom(a, a.BitLen()))[0] }

// ReverseZones returns the zones that hold the PTR records of a prefix, and
// nothing else: one, or as many as it takes where the prefix ends within a
// label (RFC 1035 section 3.5, RFC 3596 section 2.5). Bits behind the prefix do
// not count.
func ReverseZones(p netip.Prefix) []dnsname.FQDN {
	p = p.Masked()
	width, zone := 8, "in-addr.arpa."
	if p.Addr().Is6() {
		width, zone = 4, "ip6.arpa."
	}
	labels := (p.Bits() + width - 1) / width
	count := 1 << (labels*width - p.Bits())
	b := p.Addr().AsSlice()
	label := func(i int) int {
		if width == 8 {
			return int(b[i])
		}
		return int(b[i/2]>>(4*(1-i%2))) & 15
	}
	written := func(n int) string {
		if width == 8 {
			return fmt.Sprintf("%d.", n)
		}
		return fmt.Sprintf("%x.", n)
	}
	rest := zone
	for i := range max(labels-1, 0) {
		rest = written(label(i)) + rest
	}
	if labels == 0 {
		return []dnsname.FQDN{dnsname.FQDN(rest)}
	}
	all := make([]dnsname.FQDN, count)
	for i := range all {
		all[i] = dnsname.FQDN(written(label(labels-1)+i) + rest)
	}
	return all
}
