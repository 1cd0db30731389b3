package failpoint

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Requests of ioctl(2) that change an interface.
const (
	setInterface = unix.TUNSETIFF
	setMTU       = unix.SIOCSIFMTU
)

// suspects are the calls that may change something.
func suspects() []int {
	return []int{
		unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_SENDTO, unix.SYS_SENDMSG,
		unix.SYS_OPENAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT,
		unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_FSYNC, unix.SYS_FTRUNCATE, unix.SYS_FCHMOD,
		unix.SYS_FCHMODAT, unix.SYS_FCHOWN, unix.SYS_BIND, unix.SYS_IOCTL, unix.SYS_EXIT_GROUP,
	}
}

// program is the one that is watched.
type program struct {
	pid int
	fd  int // its pidfd
}

// change says what a call changes, in words for people; "" for nothing.
func (p program) change(d data) string {
	a := d.args
	switch int(d.nr) {
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		return p.write(int(int32(a[0])), uintptr(a[1]), a[2])
	case unix.SYS_SENDTO:
		return p.write(int(int32(a[0])), uintptr(a[1]), a[2])
	case unix.SYS_WRITEV:
		return p.write(int(int32(a[0])), 0, 0)
	case unix.SYS_SENDMSG:
		return p.sendmsg(int(int32(a[0])), uintptr(a[1]))
	case unix.SYS_OPENAT:
		if a[2]&(unix.O_CREAT|unix.O_TRUNC) != 0 {
			return "create " + p.text(a[1])
		}
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return "rename " + p.text(a[1]) + " to " + p.text(a[3])
	case unix.SYS_LINKAT, unix.SYS_SYMLINKAT:
		return "link to " + p.text(a[1])
	case unix.SYS_UNLINKAT:
		return "remove " + p.text(a[1])
	case unix.SYS_MKDIRAT:
		return "make directory " + p.text(a[1])
	case unix.SYS_FCHMODAT:
		return "change the mode of " + p.text(a[1])
	case unix.SYS_FSYNC:
		return "sync " + p.file(int(int32(a[0])))
	case unix.SYS_FTRUNCATE, unix.SYS_FCHMOD, unix.SYS_FCHOWN:
		return "change " + p.file(int(int32(a[0])))
	case unix.SYS_BIND:
		return p.bind(int(int32(a[0])), uintptr(a[1]), a[2])
	case unix.SYS_IOCTL:
		switch uint32(a[1]) {
		case setInterface:
			return "make a TUN interface"
		case setMTU:
			return "set an MTU"
		}
	case unix.SYS_EXIT_GROUP:
		return "end"
	}
	return ""
}

// file returns what a descriptor of the program is.
func (p program) file(fd int) string {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.pid, fd))
	if err != nil {
		return "?"
	}
	return name
}

func (p program) write(fd int, buf uintptr, n uint64) string {
	name := p.file(fd)
	if strings.HasPrefix(name, "socket:") {
		return p.send(fd, p.read(buf, min(n, 64)))
	}
	if strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "/dev/") && !strings.HasPrefix(name, "/memfd:") {
		return "write " + name
	}
	return ""
}

func (p program) sendmsg(fd int, msg uintptr) string {
	// struct msghdr: name, namelen, iov, iovlen, ...
	b := p.read(msg, 32)
	if len(b) < 32 {
		return ""
	}
	iov := p.read(uintptr(binary.NativeEndian.Uint64(b[16:])), 16)
	if len(iov) < 16 {
		return ""
	}
	return p.send(fd, p.read(uintptr(binary.NativeEndian.Uint64(iov)), min(binary.NativeEndian.Uint64(iov[8:]), 64)))
}

// send is what the first bytes of a message change.
func (p program) send(fd int, message []byte) string {
	domain, protocol := p.socket(fd)
	switch domain {
	case unix.AF_UNIX:
		word, _, _ := strings.Cut(string(message), "\n")
		word, _, secret := strings.Cut(word, "private_key=")
		if word == "get=1" || strings.HasPrefix(word, "errno=") || secret {
			return "" // WireGuard's own socket, asked and answering
		}
		return fmt.Sprintf("say %q", word)
	case unix.AF_NETLINK:
		return request(protocol, message)
	}
	return ""
}

// socket returns the family and the protocol of a socket of the program.
func (p program) socket(fd int) (domain, protocol int) {
	copied, err := unix.PidfdGetfd(p.fd, fd, 0)
	if err != nil {
		return 0, 0
	}
	defer unix.Close(copied)
	if domain, err = unix.GetsockoptInt(copied, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return 0, 0
	}
	protocol, err = unix.GetsockoptInt(copied, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return 0, 0
	}
	return domain, protocol
}

// request says what a netlink message changes.
func request(protocol int, message []byte) string {
	if len(message) < unix.NLMSG_HDRLEN {
		return ""
	}
	kind := binary.NativeEndian.Uint16(message[4:])
	switch protocol {
	case unix.NETLINK_ROUTE:
		const get = 2 // of each four
		if kind >= unix.RTM_BASE && (kind-unix.RTM_BASE)%4 != get {
			return fmt.Sprintf("rtnetlink message %d", kind)
		}
	case unix.NETLINK_NETFILTER:
		switch sub, msg := kind>>8, kind&0xff; {
		case kind == unix.NFNL_MSG_BATCH_BEGIN:
			return "nftables transaction"
		case sub == unix.NFNL_SUBSYS_CTNETLINK && msg != 1: // IPCTNL_MSG_CT_GET
			return fmt.Sprintf("conntrack message %d", msg)
		}
	case unix.NETLINK_GENERIC:
		if kind == unix.GENL_ID_CTRL {
			return "" // which families there are
		}
		return fmt.Sprintf("generic netlink message %d", kind)
	}
	return ""
}

// bind says what a socket is bound to; netlink and UDP on any port are no
// change that anybody sees.
func (p program) bind(fd int, addr uintptr, n uint64) string {
	b := p.read(addr, min(n, 110))
	if len(b) < 3 {
		return ""
	}
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_UNIX:
		path, _, _ := strings.Cut(string(b[2:]), "\x00")
		return "bind to " + path
	case unix.AF_INET, unix.AF_INET6:
		if port := binary.BigEndian.Uint16(b[2:]); port != 0 {
			return fmt.Sprintf("bind to port %d", port)
		}
	}
	return ""
}

// text reads a string of the program.
func (p program) text(at uint64) string {
	for n := uint64(256); n > 0; n /= 2 { // it may end before the end of a page
		if b := p.read(uintptr(at), n); len(b) > 0 {
			s, _, _ := strings.Cut(string(b), "\x00")
			return s
		}
	}
	return "?"
}

// read reads the program's memory; less where there is less.
func (p program) read(at uintptr, n uint64) []byte {
	if at == 0 || n == 0 {
		return nil
	}
	b := make([]byte, n)
	here := []unix.Iovec{{Base: &b[0]}}
	here[0].SetLen(len(b))
	got, err := unix.ProcessVMReadv(p.pid, here, []unix.RemoteIovec{{Base: at, Len: len(b)}}, 0)
	if err != nil {
		return nil
	}
	return b[:got]
}
