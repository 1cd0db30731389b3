package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// envEntered tells the process started by Enter that it is in.
const envEntered = "SMARTDNS_LAB_ENTERED"

// Enter gives this program the rights that New needs. Where it has them, as
// root, it returns again = false. Otherwise it runs the program a second time,
// with the same arguments, as root of a new user namespace, waits for its end
// and returns again = true with its exit code: the caller then exits with it.
// Call it before anything else is done. err says what the system refuses.
func Enter() (exit int, again bool, err error) {
	if able() {
		return 0, false, nil
	}
	if os.Getenv(envEntered) != "" {
		return 1, true, errors.New("entering the lab: a user namespace gives no rights here")
	}
	// The kernel kills the child when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), envEntered+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, unix.SIGTERM)
	defer signal.Stop(signals)
	if err := c.Start(); err != nil {
		return 1, true, fmt.Errorf("entering the lab: this system does not allow user namespaces: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				if s == unix.SIGTERM { // the terminal sends an interrupt to both
					c.Process.Signal(s)
				}
			case <-ended:
				return
			}
		}
	}()
	err = c.Wait()
	close(ended)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(1, e.ExitCode()), true, nil
	}
	return 0, true, err
}

// able reports whether this process may make and change namespaces.
func able() bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return false
	}
	for _, c := range []uint{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW} {
		if d[0].Effective&(1<<c) == 0 {
			return false
		}
	}
	return true
}
