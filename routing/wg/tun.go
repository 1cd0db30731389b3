package wg

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// TUN returns what holds the link of a device of this process: the link is there
// for as long as somebody has it open. It is nil for a device of the kernel's, and
// belongs to t.
func (t *Tunnel) TUN() syscall.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u, ok := t.link.(*userspace); ok {
		return u.tun.File()
	}
	return nil
}

// tunName asks the kernel; tun.Device remembers the name it was made with.
func tunName(f *os.File) (string, error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return "", err
	}
	var errno error
	if err := raw.Control(func(fd uintptr) { errno = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr) }); err != nil {
		return "", err
	}
	return ifr.Name(), errno
}
