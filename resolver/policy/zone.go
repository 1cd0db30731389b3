package policy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/miekg/dns"

	"smartdns/resolver/dnsname"
)

// RecordTTL is the TTL of a record that does not say any, in seconds: short,
// since the file it comes from can change at any time.
const RecordTTL = 60

// MaxRecordsFile is the largest zone or hosts file, in octets (SECURITY
// section 6.2, lists).
const MaxRecordsFile = 32 << 20

// AddZone adds the records of r, in the syntax of zone files (RFC 1035 section
// 5, with $ORIGIN, $TTL and $GENERATE; no $INCLUDE). Names without a last dot
// are whole names, unless $ORIGIN says otherwise. file is what errors and
// explanations call it, and its first line has the number first. The error
// names the line; what stands before it has been added.
func (r *Records) AddZone(in io.Reader, file string, first int) error {
	src := &lineReader{r: bufio.NewReader(io.LimitReader(in, MaxRecordsFile+1)), next: first}
	zp := dns.NewZoneParser(src, ".", "")
	zp.SetDefaultTTL(RecordTTL)
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		if err := r.addRR(rr, Place{file, src.line}); err != nil {
			return fmt.Errorf("%s:%d: %w", file, src.line, err)
		}
	}
	switch {
	case src.err != nil:
		return fmt.Errorf("%s: %w", file, src.err)
	case src.size > MaxRecordsFile:
		return fmt.Errorf("%s: it is larger than 32 MiB", file)
	case zp.Err() != nil:
		return fmt.Errorf("%s:%d: %s", file, max(src.line, first), zoneError(zp.Err()))
	}
	return nil
}

// zoneError is what the parser says without its own count of lines, which
// does not know where the text comes from.
func zoneError(err error) string {
	text := regexp.MustCompile(`^(?:dns: )?(.*?)(?: at line: \d+:\d+)?$`).ReplaceAllString(err.Error(), "$1")
	return text + ` (a record is written as in a zone file: "nas.home.arpa A 192.168.8.2")`
}

func (r *Records) addRR(rr dns.RR, at Place) error {
	h := rr.Header()
	switch {
	case h.Class != dns.ClassINET:
		return fmt.Errorf("its class is %s, and must be IN", dns.Class(h.Class))
	case h.Rrtype == dns.TypeDNAME:
		return errors.New(`DNAME is not served: write a wildcard or a line of [decide] names`)
	case h.Rrtype == dns.TypeOPT || h.Rrtype >= 128 && h.Rrtype <= 255:
		return fmt.Errorf("%s is no type that a name can have", dns.Type(h.Rrtype))
	}
	name, err := dnsname.Parse(h.Name)
	if err != nil {
		return err
	}
	room := make([]byte, dns.Len(rr)+1)
	end, err := dns.PackRR(rr, room, 0, nil, false)
	if err != nil {
		return fmt.Errorf("its data cannot be packed: %w", err)
	}
	head := len(name.AppendWire(nil)) + 10
	if end < head {
		return errors.New("it has no data")
	}
	rec := Record{Type: h.Rrtype, TTL: min(h.Ttl, 86400), Data: append([]byte(nil), room[head:end]...), Pos: at}
	if len(rec.Data) == 0 || rec.Type == dns.TypeA && len(rec.Data) != 4 || rec.Type == dns.TypeAAAA && len(rec.Data) != 16 {
		return errors.New("it has no data")
	}
	return r.add(name, rec)
}

// lineReader knows the line of the octet that was read last: the parser takes
// octets one by one, up to the end of the line of each record.
type lineReader struct {
	r          *bufio.Reader
	line, next int
	size       int
	err        error
}

func (l *lineReader) ReadByte() (byte, error) {
	b, err := l.r.ReadByte()
	if err != nil {
		if err != io.EOF {
			l.err = err
		}
		return 0, err
	}
	l.line = l.next
	if b == '\n' {
		l.next++
	}
	if l.size++; l.size > MaxRecordsFile {
		return 0, io.EOF
	}
	return b, nil
}

// Read is what the parser wants besides.
func (l *lineReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := l.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}
