package hostdns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func notOurs(what, instead string) error {
	return fmt.Errorf("%s: %s (%w)", what, instead, ErrNotOurs)
}

// checkWritable refuses what can be neither replaced nor written. No file at
// all is fine.
func checkWritable(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink == 0 && !info.Mode().IsRegular():
		return notOurs("it is not a regular file", "make it one")
	}
	st, err := statx(path)
	if err != nil {
		return err
	}
	if st.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0 {
		return notOurs("it is immutable", "chattr -i -a "+path+", or write our address into it yourself")
	}
	return nil
}

func statx(path string) (unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	return st, err
}

// isMount reports whether something is mounted at path itself.
func isMount(path string) bool {
	st, err := statx(path)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// refused says why the file cannot be made to name us, nil when it can, as far as
// that shows without trying.
func (f file) refused() error {
	if err := checkWritable(f.o.Path); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if isMount(f.o.Path) && unix.Statfs(f.o.Path, &fs) == nil && fs.Flags&unix.ST_RDONLY != 0 {
		return mountedReadOnly()
	}
	now, err := readSnapshot(f.o.Path)
	if err != nil || now == nil || isOurs(now.data) {
		return err
	}
	return checkManaged(f.content(now))
}

// checkManaged refuses the file of a program that answers every change with
// its own, as we do.
func checkManaged(data []byte) error {
	if writer(data) == byTailscale {
		return notOurs("tailscale writes it, again and again", "tailscale set --accept-dns=false; a side with servers = [\"100.100.100.100\"] then has the names of ts.net")
	}
	return nil
}
