package hostdns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"smartdns/internal/wholefile"
)

// snapshot is a file's content, or where a link leads, and whose it is.
type snapshot struct {
	data     []byte
	link     string // the target; "" for a file
	mode     fs.FileMode
	uid, gid int
	label    []byte // SELinux; nil for none
}

const labelName = "security.selinux"

// plainMode is what a file gets that takes the place of a link.
const plainMode = 0o644

// readSnapshot returns nil when there is no such file.
func readSnapshot(path string) (*snapshot, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &snapshot{mode: info.Mode().Perm()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.uid, s.gid = int(st.Uid), int(st.Gid)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		s.mode = plainMode
		s.link, err = os.Readlink(path)
		return s, err
	}
	return s, s.read(path)
}

func (s *snapshot) read(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return fmt.Errorf("%s is not a small regular file", path)
	}
	var label [256]byte
	if n, err := unix.Fgetxattr(int(f.Fd()), labelName, label[:]); err == nil {
		s.label = label[:n]
	}
	s.data, err = io.ReadAll(f)
	return err
}

// write makes path the snapshot: what was there or the snapshot, at every
// moment, but for a mount point, which keeps its mode and owner.
func (s *snapshot) write(path string) error {
	if s.link != "" {
		return wholefile.ReplaceLink(path, s.link, s.uid, s.gid)
	}
	if isMount(path) {
		return s.writeInPlace(path)
	}
	err := wholefile.Replace(path, s.fill)
	if errors.Is(err, unix.EBUSY) { // a mount on a kernel that does not say so
		return s.writeInPlace(path)
	}
	return err
}

func mountedReadOnly() error {
	return notOurs("it is mounted read-only", "give the container or the service our address as its DNS server where it is started")
}

// writeInPlace never leaves the file empty: who reads it meanwhile finds the
// new beginning.
func (s *snapshot) writeInPlace(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.EROFS) {
		return mountedReadOnly()
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(s.data, 0)
	if err == nil {
		err = f.Truncate(int64(len(s.data)))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (s *snapshot) fill(f *os.File) error {
	if _, err := f.Write(s.data); err != nil {
		return err
	}
	if err := f.Chown(s.uid, s.gid); err != nil {
		return err
	}
	if err := f.Chmod(s.mode); err != nil { // after Chown, which drops bits of it
		return err
	}
	if s.label != nil {
		// Where we may not, the policy gives the directory's, which readers can live with.
		_ = unix.Fsetxattr(int(f.Fd()), labelName, s.label, 0)
	}
	return nil
}
