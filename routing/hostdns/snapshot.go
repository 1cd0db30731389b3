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

// snapshot is a file's content and whose it is.
type snapshot struct {
	data     []byte
	mode     fs.FileMode
	uid, gid int
	label    []byte // SELinux; nil for none
}

const labelName = "security.selinux"

// readSnapshot returns nil when there is no such file.
func readSnapshot(path string) (*snapshot, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return nil, fmt.Errorf("%s is not a small regular file", path)
	}
	s := &snapshot{mode: info.Mode().Perm()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.uid, s.gid = int(st.Uid), int(st.Gid)
	}
	var label [256]byte
	if n, err := unix.Fgetxattr(int(f.Fd()), labelName, label[:]); err == nil {
		s.label = label[:n]
	}
	s.data, err = io.ReadAll(f)
	return s, err
}

// write makes path the snapshot: the old file or the new one, at every moment.
func (s *snapshot) write(path string) error { return wholefile.Replace(path, s.fill) }

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
