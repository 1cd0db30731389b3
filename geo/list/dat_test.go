package list_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"net/netip"
	"strings"
	"testing"

	"smartdns/geo/list"
)

// message is one in the encoding of protocol buffers.
type message []byte

func (m message) bytes(field uint64, value []byte) message {
	m = binary.AppendUvarint(m, field<<3|2)
	m = binary.AppendUvarint(m, uint64(len(value)))
	return append(m, value...)
}

func (m message) number(field, value uint64) message {
	return binary.AppendUvarint(binary.AppendUvarint(m, field<<3), value)
}

// domain is one of a geosite.dat; a type of 0 is not written.
func domain(kind uint64, name string, attributes ...string) message {
	var m message
	if kind != 0 {
		m = m.number(1, kind)
	}
	m = m.bytes(2, []byte(name))
	for _, a := range attributes {
		m = m.bytes(3, message{}.bytes(1, []byte(a)).number(2, 1))
	}
	return m
}

func cidr(s string) message {
	p := netip.MustParsePrefix(s)
	return message{}.bytes(1, p.Addr().AsSlice()).number(2, uint64(p.Bits()))
}

func category(code string, elements ...message) message {
	m := message{}.bytes(1, []byte(code))
	for _, e := range elements {
		m = m.bytes(2, e)
	}
	return m
}

func datFile(categories ...message) []byte {
	var m message
	for _, c := range categories {
		m = m.bytes(1, c)
	}
	return m
}

func geositeFile() []byte {
	return datFile(
		category("CN", domain(2, "a.cn"), domain(3, "www.b.com"), domain(0, "Baidu"), domain(1, `^c[0-9]+\.`), domain(2, "alibaba")),
		category("GOOGLE", domain(2, "google.com"), domain(2, "google.cn", "cn"), domain(2, "doubleclick.cn", "ads", "CN"), domain(2, "ads.google.com", "ads")),
		category("GEOLOCATION-!CN", domain(2, "example.org")),
	)
}

func TestGeosite(t *testing.T) {
	for code, want := range map[string]string{
		"cn":              `1 suffix a.cn.|2 full www.b.com.|3 keyword baidu|4 regexp ^c[0-9]+\.|5 dropped`,
		"GeoLocation-!CN": "1 suffix example.org.",
		"google":          "1 suffix google.com.|2 suffix google.cn.|3 suffix doubleclick.cn.|4 suffix ads.google.com.",
		"google@cn":       "2 suffix google.cn.|3 suffix doubleclick.cn.",
		"google@CN@-ads":  "2 suffix google.cn.",
		"google@-cn":      "1 suffix google.com.|4 suffix ads.google.com.",
	} {
		got, err := collect(list.Geosite(bytes.NewReader(geositeFile()), code))
		if text := strings.Join(got, "|"); err != nil || text != want {
			t.Errorf("%s: got %s, %v, want %s", code, text, err, want)
		}
	}
	for code, want := range map[string]string{
		"":         `holds 3 categories: write code = "NAME" beside file, such as cn, geolocation-!cn`,
		"gogle":    `has no category "gogle" of its 3 categories; near it: google`,
		"!cn":      `has no category "!cn" of its 3 categories; near it: cn, geolocation-!cn`,
		"zzz":      `has no category "zzz" of its 3 categories`,
		"google@x": `nothing in category "google" is @x; there are @ads, @cn`,
		"cn@ads":   `nothing in category "cn" is @ads; there are no attributes in it`,
	} {
		_, err := collect(list.Geosite(bytes.NewReader(geositeFile()), code))
		if _, ok := errors.AsType[*list.FileError](err); !ok || err.Error() != want {
			t.Errorf("%s: got %v, want %s", code, err, want)
		}
	}
}

func TestGeoIP(t *testing.T) {
	inverse := category("!CN", cidr("0.0.0.0/1"), cidr("::/0")).number(3, 1)
	file := datFile(category("CN", cidr("1.0.1.0/24"), cidr("1.0.2.9/23"), cidr("2001:250::/35"), cidr("::ffff:1.2.3.0/120"), cidr("0.0.0.0/0")), inverse)
	for code, want := range map[string]string{
		"cn":  "1 1.0.1.0/24|2 1.0.2.0/23|3 2001:250::/35|4 1.2.3.0/24|5 dropped",
		"!cn": "1 128.0.0.0/1",
	} {
		got, err := collect(list.GeoIP(bytes.NewReader(file), code))
		if text := strings.Join(got, "|"); err != nil || text != want {
			t.Errorf("%s: got %s, %v, want %s", code, text, err, want)
		}
	}
	bad := datFile(category("CN", cidr("1.0.1.0/24"), message{}.bytes(1, []byte("123")), message{}.bytes(1, []byte("1234")).number(2, 33)))
	if _, err := collect(list.GeoIP(bytes.NewReader(bad), "cn")); err == nil || !strings.HasPrefix(err.Error(), "2 of 3 lines are bad") {
		t.Errorf("bad prefixes: %v", err)
	}
}

func TestDatFilesAreDetected(t *testing.T) {
	geoip := datFile(category("PRIVATE", cidr("10.0.0.0/8")))
	for want, data := range map[list.Format][]byte{list.FormatGeosite: geositeFile(), list.FormatGeoIP: geoip} {
		f, r, err := list.Detect(bytes.NewReader(data))
		if err != nil || f != want {
			t.Fatalf("got %s, %v, want %s", f, err, want)
		}
		if all, err := io.ReadAll(r); err != nil || !bytes.Equal(all, data) {
			t.Errorf("%s: the reader lost something: %v", want, err)
		}
	}
}

// A file that was cut off, or changed, is an error or fewer lines, and never
// takes more memory than it has octets.
func TestDamagedDatFiles(t *testing.T) {
	file := geositeFile()
	for cut := range file {
		if got, err := collect(list.Geosite(bytes.NewReader(file[:cut]), "geolocation-!cn")); err == nil {
			t.Errorf("cut after %d octets: %q", cut, got)
		}
	}
	huge := binary.AppendUvarint([]byte{1<<3 | 2}, 1<<40)
	for name, data := range map[string][]byte{
		"a category of a terabyte": huge,
		"another number of field":  message{}.bytes(2, []byte("CN")),
		"a group":                  {1<<3 | 3},
		"a length without end":     bytes.Repeat([]byte{0xff}, 20),
		"an empty file":            nil,
	} {
		if _, err := collect(list.Geosite(bytes.NewReader(data), "cn")); err == nil || !strings.Contains(err.Error(), "not written as v2ray writes") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := collect(list.Geosite(brokenReader{bytes.NewReader(file)}, "none")); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

// The text that the same project publishes says what has to come out.
func TestRealGeosite(t *testing.T) {
	data := sharedData(t, "domains/dlc.dat")
	for code, file := range map[string]string{"cn": "domains/v2fly-cn.txt", "geolocation-!cn": "domains/v2fly-geolocation-notcn.txt"} {
		bare := func(lines iter.Seq2[list.Line, error]) map[string]int {
			all := map[string]int{}
			for l, err := range lines {
				if err != nil {
					t.Fatal(err)
				}
				l.Number = 0
				all[show(l)]++
			}
			return all
		}
		got := bare(list.Geosite(bytes.NewReader(data), code))
		want := bare(list.Names(bytes.NewReader(sharedData(t, file))))
		if len(got) < 6000 || len(got) != len(want) {
			t.Errorf("%s: %d rules, want %d", code, len(got), len(want))
		}
		for l, n := range want {
			if got[l] != n {
				t.Errorf("%s: %s is there %d times, want %d", code, l, got[l], n)
			}
		}
	}
	if f, _, err := list.Detect(bytes.NewReader(data)); f != list.FormatGeosite {
		t.Errorf("is of format %q, %v", f, err)
	}
}

func FuzzGeosite(f *testing.F) {
	f.Add(geositeFile(), "cn")
	f.Add(geositeFile(), "google@cn@-ads")
	f.Fuzz(func(t *testing.T, data []byte, code string) {
		checkRecords(t, list.Geosite(bytes.NewReader(data), code))
	})
}

func FuzzGeoIP(f *testing.F) {
	f.Add(datFile(category("CN", cidr("1.0.1.0/24")), category("!CN", cidr("2001:250::/35")).number(3, 1)), "!cn")
	f.Fuzz(func(t *testing.T, data []byte, code string) { checkRecords(t, list.GeoIP(bytes.NewReader(data), code)) })
}

// checkRecords is checkLines for a file that has no lines.
func checkRecords(t *testing.T, lines iter.Seq2[list.Line, error]) {
	t.Helper()
	last := 1
	for l, err := range lines {
		if err != nil {
			return
		}
		if l.Number < last {
			t.Fatalf("record %d after %d", l.Number, last)
		}
		last = l.Number
		checkLine(t, l)
	}
}

func BenchmarkGeosite(b *testing.B) {
	data := sharedData(b, "domains/dlc.dat")
	for _, code := range []string{"cn", "geolocation-!cn"} {
		b.Run(code, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range list.Geosite(bytes.NewReader(data), code) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
