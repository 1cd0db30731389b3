package list

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// What the files of v2ray hold, in the encoding of protocol buffers:
//
//	geosite.dat: repeated GeoSite { code = 1, repeated Domain = 2 { type = 1, value = 2, repeated attribute = 3 { key = 1 } } } = 1
//	geoip.dat:   repeated GeoIP { code = 1, repeated CIDR = 2 { ip = 1, bits = 2 }, inverse = 3 } = 1
//
// Fields come in the order of their numbers, as every encoder writes them.
const (
	tagEntry   = 1<<3 | wireBytes
	tagCode    = 1<<3 | wireBytes
	tagElement = 2<<3 | wireBytes
	tagInverse = 3<<3 | wireVarint
)

// The types of encoding.
const (
	wireVarint = 0
	wireFixed8 = 1
	wireBytes  = 2
	wireFixed4 = 5
)

// maxCode is the longest code of a category that is read, and maxCodes how many
// there may be: there are some 1,500 of at most 40 octets.
const (
	maxCode  = 128
	maxCodes = 1 << 16
)

var errDat = errors.New("not written as v2ray writes geosite.dat and geoip.dat, or cut off")

// dat reads a file of categories.
type dat struct {
	in   *bufio.Reader
	left uint64 // octets of the category that is read
}

// field reads what stands before the value of a field: its tag, and how long
// the value is, or what it is, if it is a number.
func (d *dat) field() (tag, value uint64, err error) {
	if tag, err = d.varint(); err != nil {
		return 0, 0, err
	}
	switch tag & 7 {
	case wireVarint, wireBytes:
		value, err = d.varint()
	case wireFixed8:
		value = 8
	case wireFixed4:
		value = 4
	default:
		err = errDat
	}
	if err == nil && tag&7 != wireVarint && value > d.left {
		err = errDat
	}
	return tag, value, err
}

func (d *dat) varint() (uint64, error) {
	b, err := d.in.Peek(binary.MaxVarintLen64)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	v, n := binary.Uvarint(b)
	if n <= 0 || uint64(n) > d.left {
		return 0, errDat
	}
	d.left -= uint64(n)
	_, err = d.in.Discard(n)
	return v, err
}

// skip passes over n octets, of which there are that many left.
func (d *dat) skip(n uint64) error {
	d.left -= n
	for n > 0 {
		step := min(n, 1<<30)
		if _, err := d.in.Discard(int(step)); err != nil {
			return datError(err)
		}
		n -= step
	}
	return nil
}

// take returns the next n octets, which are valid until the next call.
func (d *dat) take(n uint64) ([]byte, error) {
	if n > maxLine {
		return nil, errDat
	}
	b, err := d.in.Peek(int(n))
	if err != nil {
		return nil, datError(err)
	}
	d.left -= n
	_, err = d.in.Discard(int(n))
	return b, err
}

func datError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errDat
	}
	return err
}

// find goes to the elements of the category with this code, in any case. If
// there is none the error names those that could be meant.
func (d *dat) find(code string) error {
	var codes []string
	for {
		if _, err := d.in.Peek(1); errors.Is(err, io.EOF) && len(codes) > 0 {
			return &FileError{Reason: noCode(code, codes)}
		}
		d.left = MaxSize
		tag, size, err := d.field()
		if err != nil {
			return err
		}
		if tag != tagEntry || len(codes) == maxCodes {
			return errDat
		}
		d.left = size
		if tag, size, err = d.field(); err != nil {
			return err
		}
		if tag != tagCode || size > maxCode {
			return errDat
		}
		name, err := d.take(size)
		if err != nil {
			return err
		}
		if code != "" && strings.EqualFold(string(name), code) {
			return nil
		}
		codes = append(codes, strings.ToLower(string(name)))
		if err := d.skip(d.left); err != nil {
			return err
		}
	}
}

// elements yields the elements of the category that find found, and whether it
// stands for what is not in it. An element is valid until the next one.
func (d *dat) elements(each func(element []byte) bool) (inverse bool, err error) {
	for d.left > 0 {
		tag, value, err := d.field()
		if err != nil {
			return false, err
		}
		switch tag {
		case tagElement:
			b, err := d.take(value)
			if err != nil {
				return false, err
			}
			if !each(b) {
				return false, nil
			}
		case tagInverse:
			inverse = value != 0
		default:
			if tag&7 == wireVarint {
				continue
			}
			if err := d.skip(value); err != nil {
				return false, err
			}
		}
	}
	return inverse, nil
}

// cutMessage reads a field at the start of b, for the messages inside of an
// element. Of a number, data is nil.
func cutMessage(b []byte) (tag, value uint64, data, rest []byte, ok bool) {
	tag, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, 0, nil, nil, false
	}
	b = b[n:]
	switch tag & 7 {
	case wireVarint, wireBytes:
		if value, n = binary.Uvarint(b); n <= 0 {
			return 0, 0, nil, nil, false
		}
		b = b[n:]
	case wireFixed8:
		value = 8
	case wireFixed4:
		value = 4
	default:
		return 0, 0, nil, nil, false
	}
	if tag&7 == wireVarint {
		return tag, value, nil, b, true
	}
	if value > uint64(len(b)) {
		return 0, 0, nil, nil, false
	}
	return tag, value, b[:value], b[value:], true
}

// datFormat returns the format of a file of v2ray's, or "" if it is none.
func datFormat(head []byte) Format {
	d := dat{in: bufio.NewReaderSize(bytes.NewReader(head), len(head)+binary.MaxVarintLen64), left: MaxSize}
	tag, size, err := d.field()
	if err != nil || tag != tagEntry {
		return ""
	}
	d.left = size
	tag, size, err = d.field()
	if err != nil || tag != tagCode || size == 0 || size > maxCode {
		return ""
	}
	if _, err = d.take(size); err != nil {
		return ""
	}
	format := Format("")
	_, err = d.elements(func(b []byte) bool {
		tag, value, _, _, ok := cutMessage(b)
		switch {
		case ok && tag == 1<<3|wireBytes && (value == 4 || value == 16):
			format = FormatGeoIP
		case ok && (tag == 1<<3|wireVarint && value <= 3 || tag == 2<<3|wireBytes):
			format = FormatGeosite
		}
		return false
	})
	if err != nil {
		return ""
	}
	return format
}

// noCode says that there is no category of this code, and which could be meant.
func noCode(code string, codes []string) string {
	slices.Sort(codes)
	codes = slices.Compact(codes)
	const some = 6
	all := fmt.Sprintf("%d categories", len(codes))
	if len(codes) == 1 {
		all = "1 category"
	}
	if code == "" {
		var usual []string
		for _, c := range []string{"cn", "geolocation-!cn", "gfw", "category-ads-all", "private"} {
			if _, ok := slices.BinarySearch(codes, c); ok {
				usual = append(usual, c)
			}
		}
		if len(usual) == 0 {
			usual = codes
		}
		return fmt.Sprintf(`holds %s: write code = "NAME" beside file, such as %s`, all, someOf(usual, some))
	}
	near := nearest(strings.ToLower(code), codes)
	if len(near) == 0 {
		return fmt.Sprintf("has no category %q of its %s", code, all)
	}
	return fmt.Sprintf("has no category %q of its %s; near it: %s", code, all, someOf(near, some))
}

// someOf lists at most n of all.
func someOf(all []string, n int) string {
	if len(all) > n {
		return strings.Join(all[:n], ", ") + ", …"
	}
	return strings.Join(all, ", ")
}

// nearest returns the codes that are most like one that there is not.
func nearest(code string, codes []string) []string {
	type near struct {
		code string
		far  int
	}
	var all []near
	for _, c := range codes {
		far := distance(code, c)
		if strings.Contains(c, code) || len(c) > 2 && strings.Contains(code, c) {
			far = min(far, 1)
		}
		if far <= max(1, len(code)/3) {
			all = append(all, near{c, far})
		}
	}
	slices.SortStableFunc(all, func(a, b near) int { return cmp.Compare(a.far, b.far) })
	words := make([]string, len(all))
	for i, n := range all {
		words[i] = n.code
	}
	return words
}

// distance is the number of insertions, deletions and substitutions between a
// and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
