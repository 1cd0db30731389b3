package hostdns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func notPlain(path, what, instead string) error {
	return fmt.Errorf("%s %s: %s (%w)", path, what, instead, ErrNotPlain)
}

// checkPlain refuses what cannot be replaced, or not without breaking
// somebody's arrangement. No file at all is fine.
func checkPlain(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("looking at resolv.conf: %w", err)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return fmt.Errorf("looking at resolv.conf: %w", err)
		}
		return notPlain(path, "is a symbolic link to "+target, linkAdvice(target))
	case !info.Mode().IsRegular():
		return notPlain(path, "is not a regular file", "make it one")
	}
	var st unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	if err != nil {
		return fmt.Errorf("looking at resolv.conf: %w", err)
	}
	switch {
	case st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return notPlain(path, "is a mount of its own", "give the container or the service our address as its DNS server where it is started")
	case st.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0:
		return notPlain(path, "is immutable", "chattr -i -a "+path+", or write our address into it yourself")
	}
	return nil
}

// program is somebody who writes resolv.conf, and what to tell it.
type program struct {
	sign    string // in a link's target or a comment, lower case
	name    string
	instead string
}

// programs returns those that are known, the more particular signs first.
func programs() []program {
	return []program{
		{"networkmanager", "NetworkManager", "set dns=none in [main] of NetworkManager.conf and reload it, then make this a plain file"},
		{"systemd", "systemd-resolved", "set DNS= to our address and Domains=~. in /etc/systemd/resolved.conf and restart it"},
		{"tailscale", "tailscale", "tailscale set --accept-dns=false"},
		{"dhcpcd", "dhcpcd", "put nohook resolv.conf into dhcpcd.conf"},
		{"netconfig", "netconfig", `set NETCONFIG_DNS_POLICY="" in /etc/sysconfig/network/config`},
		{"connman", "connman", "run connmand with --nodnsproxy and make this a plain file"},
		{"wsl", "WSL", "set generateResolvConf=false in [network] of /etc/wsl.conf"},
		{"docker", "Docker", "start the container with --dns and our address"},
		{"resolvconf", "resolvconf", "set name_servers to our address in /etc/resolvconf.conf"},
	}
}

func linkAdvice(target string) string {
	target = strings.ToLower(target)
	for _, p := range programs() {
		if strings.Contains(target, p.sign) {
			return p.instead
		}
	}
	return "replace it by a plain file if nobody needs the link"
}

// checkManaged refuses a file whose comments say who writes it.
func checkManaged(path string, data []byte) error {
	for line := range strings.Lines(strings.ToLower(string(data))) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] != '#' && line[0] != ';' || !strings.Contains(line, "generated") && !strings.Contains(line, "managed") {
			continue
		}
		for _, p := range programs() {
			if strings.Contains(line, p.sign) {
				return notPlain(path, "is written by "+p.name, p.instead)
			}
		}
	}
	return nil
}
