package failpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Numbers of seccomp(2) that x/sys does not name.
const (
	retAllow  = 0x7fff0000 // SECCOMP_RET_ALLOW
	retNotify = 0x7fc00000 // SECCOMP_RET_USER_NOTIF

	setModeFilter = 1      // SECCOMP_SET_MODE_FILTER
	newListener   = 1 << 3 // SECCOMP_FILTER_FLAG_NEW_LISTENER
	waitKillable  = 1 << 5 // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: a signal does not make it ask twice

	ioctlReceive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend    = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	flagContinue = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// data is struct seccomp_data.
type data struct {
	nr   int32
	arch uint32
	ip   uint64
	args [6]uint64
}

// notice is struct seccomp_notif.
type notice struct {
	id    uint64
	pid   uint32
	flags uint32
	data  data
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// callSocket is where enter has its connection to the Gate: what it sends there
// must not wait for the Gate.
const callSocket = 1000

// enter installs the filter on this thread, and gives the Gate the other end.
// The thread has to make the execve that follows.
func enter(path string) error {
	runtime.LockOSThread()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Dup3(fd, callSocket, unix.O_CLOEXEC); err != nil {
		return err
	}
	if err := unix.Connect(callSocket, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	listener, err := install()
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	own := binary.NativeEndian.AppendUint32(nil, uint32(os.Getpid()))
	if err := unix.Sendmsg(callSocket, own, unix.UnixRights(listener), nil, 0); err != nil {
		return err
	}
	var b [2]byte
	if n, err := unix.Read(callSocket, b[:]); err != nil || n == 0 {
		return errors.Join(errors.New("the gate is closed"), err)
	}
	return nil
}

// install puts the filter on the calling thread and all that comes of it.
func install() (listener int, err error) {
	raw, err := bpf.Assemble(filter())
	if err != nil {
		return -1, err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, err
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	n, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, newListener|waitKillable, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// filter asks about the calls of suspects; a write to the standard streams is
// none. The programs that are watched are of one architecture.
func filter() []bpf.Instruction {
	all := suspects()
	out := []bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 4}} // the number
	for i, nr := range all {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(nr), SkipTrue: uint8(len(all) - i)})
	}
	return append(out,
		bpf.RetConstant{Val: retAllow},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_EXIT_GROUP, SkipTrue: 3},
		loadLow(0),
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: 2, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: callSocket, SkipTrue: 1},
		bpf.RetConstant{Val: retNotify},
		bpf.RetConstant{Val: retAllow},
	)
}

// loadLow loads the lower half of an argument.
func loadLow(i uint32) bpf.Instruction {
	off := 16 + 8*i
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		off += 4
	}
	return bpf.LoadAbsolute{Off: off, Size: 4}
}

// receive takes what enter sends.
func receive(c *net.UnixConn) (fd, pid int, err error) {
	var b [4]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(b[:], oob)
	if err != nil {
		return -1, 0, err
	}
	if n < len(b) {
		return -1, 0, errors.New("half a message")
	}
	control, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(control) != 1 {
		return -1, 0, errors.Join(errors.New("no descriptor"), err)
	}
	fds, err := unix.ParseUnixRights(&control[0])
	if err != nil || len(fds) != 1 {
		return -1, 0, errors.Join(errors.New("no descriptor"), err)
	}
	return fds[0], int(binary.NativeEndian.Uint32(b[:])), nil
}

// next waits for the next question; ended says that nobody is left to ask.
func next(fd int) (n notice, ended bool, err error) {
	for {
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(polled, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return n, false, fmt.Errorf("waiting for a system call: %w", err)
		}
		if polled[0].Revents&unix.POLLIN == 0 {
			return n, true, nil
		}
		n = notice{}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlReceive, uintptr(unsafe.Pointer(&n)))
		switch errno {
		case 0:
			return n, false, nil
		case unix.EINTR, unix.ENOENT: // the caller was killed meanwhile
		default:
			return n, false, fmt.Errorf("receiving a system call: %w", errno)
		}
	}
}

// letGo has the call be made.
func letGo(fd int, id uint64) error {
	a := answer{id: id, flags: flagContinue}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSend, uintptr(unsafe.Pointer(&a)))
	if errno != 0 && errno != unix.ENOENT {
		return fmt.Errorf("letting a system call go: %w", errno)
	}
	return nil
}
