package daemon

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"smartdns/internal/wholefile"
)

// stateFile is a file of ours in the state directory: a line that says what it
// is and in which version, the content, and a checksum of both. Whenever a
// write ends early, what was there before stays there whole.
type stateFile struct {
	path  string
	kind  string // the first line, without its end: "smartdns cache 1"
	limit int64  // bytes; a longer file cannot be ours
}

// asideError says that a file could not be understood, and where it lies now.
type asideError struct {
	path, aside string
	err         error
}

func (e *asideError) Error() string {
	return fmt.Sprintf("%s: %v; it lies at %s now, and we start without", e.path, e.err, e.aside)
}

func (e *asideError) Unwrap() error { return e.err }

const sumSize = crc32.Size

func newSum() *summer { return &summer{table: crc32.MakeTable(crc32.Castagnoli)} }

// summer sums up what is written to it.
type summer struct {
	table *crc32.Table
	sum   uint32
}

func (s *summer) Write(b []byte) (int, error) {
	s.sum = crc32.Update(s.sum, s.table, b)
	return len(b), nil
}

// save replaces the file by one with the content that write writes. It is on
// disk when save returns.
func (f stateFile) save(write func(io.Writer) error) error {
	err := wholefile.Replace(f.path, func(file *os.File) error { return f.write(file, write) })
	if err != nil {
		return fmt.Errorf("writing %s: %w", f.path, err)
	}
	return nil
}

func (f stateFile) write(file io.Writer, write func(io.Writer) error) error {
	buffered, sum := bufio.NewWriterSize(file, 64<<10), newSum()
	both := io.MultiWriter(buffered, sum)
	if _, err := io.WriteString(both, f.kind+"\n"); err != nil {
		return err
	}
	if err := write(both); err != nil {
		return err
	}
	if _, err := buffered.Write(binary.BigEndian.AppendUint32(nil, sum.sum)); err != nil {
		return err
	}
	return buffered.Flush()
}

// load gives the content to read, after it was checked. No file is no error. A
// file that is not ours, not whole, of another version, or that read refuses is
// renamed to path.corrupt, and an asideError says so: it was only a memory.
func (f stateFile) load(read func(io.Reader) error) error {
	err := f.peek(read)
	damage, ok := errors.AsType[damagedError](err)
	if !ok {
		return err
	}
	aside := &asideError{path: f.path, aside: f.path + ".corrupt", err: damage.error}
	if err := os.Rename(f.path, aside.aside); err != nil {
		return fmt.Errorf("%s: %w; setting it aside: %w", f.path, aside.err, err)
	}
	return aside
}

// damagedError is why a file cannot be understood.
type damagedError struct{ error }

func (e damagedError) Unwrap() error { return e.error }

// peek is load that leaves the file where it is, whatever it holds.
func (f stateFile) peek(read func(io.Reader) error) error {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening what was kept: %w", err)
	}
	defer file.Close()
	content, err := f.check(file)
	if err == nil {
		err = read(content)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, damagedError{err})
	}
	return nil
}

var (
	errOtherKind = errors.New("it is of another program, or of another version of this one")
	errNotWhole  = errors.New("its checksum is wrong: it is damaged or not whole")
)

// check returns the content of file when all of it is there.
func (f stateFile) check(file *os.File) (io.Reader, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	head := int64(len(f.kind) + 1)
	switch size := info.Size(); {
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	case size > f.limit:
		return nil, fmt.Errorf("it has %d bytes, and never more than %d are written", size, f.limit)
	}
	first := make([]byte, min(head, info.Size()))
	if _, err := file.ReadAt(first, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if string(first) != f.kind+"\n" {
		return nil, errOtherKind
	}
	end := info.Size() - sumSize
	if end < head {
		return nil, errNotWhole
	}
	sum, last := newSum(), make([]byte, sumSize)
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, end)); err != nil {
		return nil, err
	}
	if _, err := file.ReadAt(last, end); err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(last) != sum.sum {
		return nil, errNotWhole
	}
	return bufio.NewReader(io.NewSectionReader(file, head, end-head)), nil
}
