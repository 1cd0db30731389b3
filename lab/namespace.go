package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is one host of the lab: an unnamed network namespace, and a mount
// namespace with an empty /run of its own. It ends when nothing uses it.
// Its methods may be called concurrently.
type Namespace struct {
	Name string
	net  netns.NsHandle
	mnt  *os.File
	nl   *netlink.Handle
}

// onThread runs f on a thread that ends with it, so that f may change what
// belongs to the thread: its namespaces, its affinity.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot die, and /proc/PID shows its namespaces.
			// While we hold it, the next goroutine gets another one.
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// newNamespace makes a namespace with lo up. With etc, it also has a
// /etc and a /var/lib of its own, in which resolv.conf is a plain file that names nameserver.
func newNamespace(name, nameserver string, etc bool) (*Namespace, error) {
	n := &Namespace{Name: name, net: netns.None()}
	var err error
	onThread(func() { err = n.unshare(nameserver, etc) })
	if err == nil {
		n.nl, err = netlink.NewHandleAt(n.net)
	}
	if err == nil {
		err = n.prepare()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making namespace %s: %w", name, err), n.close())
	}
	return n, nil
}

func (n *Namespace) unshare(nameserver string, etc bool) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unsharing: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	if p, err := filepath.EvalSymlinks("/var/run"); err == nil && p != "/run" {
		if err := unix.Mount("/run", p, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", p, err)
		}
	}
	if etc {
		if err := privateEtc("nameserver " + nameserver + "\n"); err != nil {
			return err
		}
		// What a daemon keeps where it does by default is that host's. Where the
		// kernel gives no overlay, those that are told no other place share one.
		_ = overlay("/var/lib", "/run/.lib")
	}
	var err error
	if n.net, err = netns.GetFromPath("/proc/thread-self/ns/net"); err != nil {
		return fmt.Errorf("opening the network namespace: %w", err)
	}
	if n.mnt, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
		return fmt.Errorf("opening the mount namespace: %w", err)
	}
	return nil
}

// privateEtc puts an overlay on /etc, so that a daemon that writes resolv.conf
// does not write the host's.
func privateEtc(resolvConf string) error {
	if err := overlay("/etc", "/run/.etc"); err != nil {
		return shadowResolvConf("/run/.etc", resolvConf)
	}
	if err := os.Remove("/etc/resolv.conf"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replacing resolv.conf: %w", err)
	}
	return os.WriteFile("/etc/resolv.conf", []byte(resolvConf), 0o644)
}

// overlay makes what is written below dir be in base instead.
func overlay(dir, base string) error {
	for _, d := range []string{base + "/up", base + "/work"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	opts := "lowerdir=" + dir + ",upperdir=" + base + "/up,workdir=" + base + "/work"
	err := unix.Mount("overlay", dir, "overlay", 0, opts+",userxattr")
	if err != nil {
		err = unix.Mount("overlay", dir, "overlay", 0, opts)
	}
	return err
}

// shadowResolvConf is for kernels that do not give us an overlay: the file can
// be written, but not replaced.
func shadowResolvConf(base, text string) error {
	own := base + "/resolv.conf"
	if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
		return err
	}
	err := unix.Mount(own, "/etc/resolv.conf", "", unix.MS_BIND, "")
	if errors.Is(err, unix.ENOENT) {
		return nil // a dangling link into /run leads to our /run
	}
	return err
}

// prepare sets what a fresh namespace may have inherited from the host to the
// kernel's own defaults, and turns waiting for duplicate addresses off.
func (n *Namespace) prepare() error {
	set := map[string]string{}
	for _, c := range []string{"all", "default"} {
		set["net/ipv4/conf/"+c+"/rp_filter"] = "0"
		set["net/ipv4/conf/"+c+"/src_valid_mark"] = "0"
		set["net/ipv4/conf/"+c+"/send_redirects"] = "0"
		set["net/ipv6/conf/"+c+"/accept_dad"] = "0"
		set["net/ipv6/conf/"+c+"/router_solicitations"] = "0"
	}
	set["net/ipv4/ip_forward"] = "0"
	for k, v := range set {
		if err := n.SetSysctl(k, v); err != nil {
			return err
		}
	}
	lo, err := n.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	return n.nl.LinkSetUp(lo)
}

// SetForwarding turns forwarding on or off for both families.
func (n *Namespace) SetForwarding(on bool) error {
	v := "0"
	if on {
		v = "1"
	}
	return errors.Join(n.SetSysctl("net/ipv4/ip_forward", v), n.SetSysctl("net/ipv6/conf/all/forwarding", v))
}

// SetSysctl writes value to a file below /proc/sys.
func (n *Namespace) SetSysctl(path, value string) error {
	return n.Do(func() error {
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
			return fmt.Errorf("setting sysctl: %w", err)
		}
		return nil
	})
}

// Sysctl reads a file below /proc/sys.
func (n *Namespace) Sysctl(path string) (value string, err error) {
	err = n.Do(func() error {
		b, err := os.ReadFile("/proc/sys/" + path)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}

// Do runs f on a thread in the network namespace. Sockets that f opens stay in
// it; goroutines that f starts are not.
func (n *Namespace) Do(f func() error) error {
	var err error
	onThread(func() {
		if err = netns.Set(n.net); err != nil {
			err = fmt.Errorf("entering %s: %w", n.Name, err)
			return
		}
		err = f()
	})
	return err
}

// doMounted is Do, in the mount namespace too.
func (n *Namespace) doMounted(f func() error) error {
	return n.Do(func() error {
		// A thread that shares its root and working directory cannot move.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unsharing the file system view: %w", err)
		}
		if err := unix.Setns(int(n.mnt.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("entering the mounts of %s: %w", n.Name, err)
		}
		return f()
	})
}

// Handle gives the namespace to netlink libraries. It is closed with the World.
func (n *Namespace) Handle() netns.NsHandle { return n.net }

// Netlink returns a handle whose sockets are in the namespace. It is closed
// with the World.
func (n *Namespace) Netlink() *netlink.Handle { return n.nl }

// EnterCommand returns a shell command that opens a shell in the namespace, for
// as long as this process lives.
func (n *Namespace) EnterCommand() string {
	pid := os.Getpid()
	return fmt.Sprintf("nsenter -t %d%s --net=/proc/%d/fd/%d --mount=/proc/%d/fd/%d", pid, userFlag(), pid, int(n.net), pid, int(n.mnt.Fd()))
}

// userFlag makes nsenter enter our user namespace, if we have one of our own.
func userFlag() string {
	ranges, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || strings.Contains(string(ranges), "4294967295") {
		return ""
	}
	return " -U --preserve-credentials"
}

func (n *Namespace) close() error {
	var errs []error
	if n.nl != nil {
		n.nl.Close()
	}
	if n.net.IsOpen() {
		errs = append(errs, n.net.Close())
	}
	if n.mnt != nil {
		errs = append(errs, n.mnt.Close())
	}
	return errors.Join(errs...)
}
