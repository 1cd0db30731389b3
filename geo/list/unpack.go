package list

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// Packing is how a file is compressed.
type Packing string

// The packings.
const (
	NotPacked Packing = ""
	Gzip      Packing = "gzip"
	XZ        Packing = "xz"
	Zstd      Packing = "zstd"
)

// The most memory that decoders take for what they have to look back at. What
// "xz -9" writes asks for 64 MiB, of which no more is touched than the file has.
const (
	xzWindow   = 64 << 20
	zstdWindow = 32 << 20
)

// Unpack returns what r holds, decompressed if it begins like a file of gzip,
// xz or zstd, and how it is compressed. Reading more than most octets of it is
// a *FileError, so that a small file cannot stand for an endless one.
func Unpack(r io.Reader, most int64) (plain io.Reader, p Packing, err error) {
	in := bufio.NewReaderSize(r, headSize)
	head, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, NotPacked, fmt.Errorf("reading the first octets: %w", err)
	}
	plain, p = in, packingOf(head)
	switch p {
	case Gzip:
		plain, err = gzip.NewReader(in)
	case XZ:
		plain, err = xz.NewReader(in, xzWindow)
	case Zstd:
		plain, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	default:
		err = nil
	}
	if err != nil {
		return nil, p, unpackError(p, err)
	}
	return &unpacked{r: plain, packing: p, most: most}, p, nil
}

func packingOf(head []byte) Packing {
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return Gzip
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return XZ
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		return Zstd
	}
	return NotPacked
}

func unpackError(p Packing, err error) error { return fmt.Errorf("unpacking %s: %w", p, err) }

// unpacked reads at most so many octets.
type unpacked struct {
	r          io.Reader
	packing    Packing
	size, most int64
}

func (u *unpacked) Read(b []byte) (int, error) {
	if u.size > u.most {
		return 0, u.tooLarge()
	}
	n, err := u.r.Read(b)
	if u.size += int64(n); u.size > u.most {
		return n - int(u.size-u.most), u.tooLarge()
	}
	if err != nil && err != io.EOF && u.packing != NotPacked {
		err = unpackError(u.packing, err)
	}
	return n, err
}

func (u *unpacked) tooLarge() error {
	what := "the file is larger than"
	if u.packing != NotPacked {
		what = "the file, unpacked, is larger than"
	}
	return &FileError{Reason: fmt.Sprintf("%s %d MiB", what, u.most>>20)}
}
