package list_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"smartdns/geo/list"
)

// xzOfNames is what "printf 'a.com\nb.com\n' | xz -9" writes.
const xzOfNames = "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jMAQALYS5jb20KYi5jb20KABri6thK1BfTAAEkDKYY2NgftvN9AQAAAAAEWVo="

const twoNames = "a.com\nb.com\n"

func packed(t testing.TB, p list.Packing, text []byte) []byte {
	t.Helper()
	if p == list.XZ {
		b, err := base64.StdEncoding.DecodeString(xzOfNames)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if p == list.Zstd {
		var err error
		if w, err = zstd.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(data []byte, most int64) (string, list.Packing, error) {
	r, p, err := list.Unpack(bytes.NewReader(data), most)
	if err != nil {
		return "", p, err
	}
	plain, err := io.ReadAll(r)
	return string(plain), p, err
}

func TestUnpack(t *testing.T) {
	for _, p := range []list.Packing{list.Gzip, list.XZ, list.Zstd} {
		data := packed(t, p, []byte(twoNames))
		if got, as, err := unpack(data, list.MaxSize); err != nil || as != p || got != twoNames {
			t.Errorf("%s: got %q as %q, %v", p, got, as, err)
		}
		for cut := 6; cut < len(data); cut += 1 + len(data)/20 {
			if got, _, err := unpack(data[:cut], list.MaxSize); err == nil || !strings.HasPrefix(err.Error(), "unpacking "+string(p)+": ") {
				t.Errorf("%s cut after %d octets: %q, %v", p, cut, got, err)
			}
		}
		changed := bytes.Clone(data)
		changed[len(changed)/2] ^= 4
		if got, _, err := unpack(changed, list.MaxSize); err == nil {
			t.Errorf("%s changed: %q", p, got)
		}
	}
	for _, text := range []string{"", "a", twoNames} {
		if got, p, err := unpack([]byte(text), list.MaxSize); err != nil || p != list.NotPacked || got != text {
			t.Errorf("%q: got %q as %q, %v", text, got, p, err)
		}
	}
	if _, _, err := list.Unpack(brokenReader{strings.NewReader("")}, 1); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

// A file that unpacks to a thousand times its size is read up to the limit.
func TestUnpackEnds(t *testing.T) {
	for _, p := range []list.Packing{list.Gzip, list.Zstd, list.NotPacked} {
		data := []byte(strings.Repeat("a.com\n", 1<<20))
		if p != list.NotPacked {
			if data = packed(t, p, data); len(data) > 1<<16 {
				t.Fatalf("%s: %d octets", p, len(data))
			}
		}
		got, _, err := unpack(data, 1<<20)
		if _, ok := errors.AsType[*list.FileError](err); !ok || !strings.Contains(err.Error(), "larger than 1 MiB") || len(got) != 1<<20 {
			t.Errorf("%s: %d octets, %v", p, len(got), err)
		}
		r, _, err := list.Unpack(bytes.NewReader(data), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = collect(list.Names(r)); err == nil || err.Error() != strings.TrimPrefix(err.Error(), "line ") {
			t.Errorf("%s: %v, want that the file is too large", p, err)
		}
	}
}

// A decoder that a few octets ask for gigabytes refuses.
func TestUnpackTakesLittleMemory(t *testing.T) {
	dictionary := packed(t, list.XZ, nil)
	dictionary[16] = 40 // 4 GiB
	copy(dictionary[20:24], "\xe6\xa0\x11\xb3")
	for want, data := range map[string][]byte{
		"xz: LZMA2 dictionary size exceeds max": dictionary,
		"window size exceeded":                  []byte("\x28\xb5\x2f\xfd\x00\xa0\x01"), // 1 GiB
	} {
		if _, _, err := unpack(data, list.MaxSize); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for _, p := range []list.Packing{list.Gzip, list.XZ, list.Zstd} {
		f.Add(packed(f, p, []byte(twoNames)))
	}
	f.Add([]byte(twoNames))
	f.Fuzz(func(t *testing.T, data []byte) {
		const most = 1 << 16
		got, p, err := unpack(data, most)
		if len(got) > most || err == nil && p == list.NotPacked && got != string(data) {
			t.Fatalf("%d octets as %q, %v", len(got), p, err)
		}
	})
}
