package server

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// holder says which process has addr open ("dnsmasq (pid 812)"), as far as
// /proc lets us see: "" when it does not.
func holder(network string, addr netip.AddrPort) string {
	var inodes []string
	for _, f := range []string{network, network + "6"} {
		inodes = append(inodes, socketInodes("/proc/net/"+f, network, addr)...)
	}
	if len(inodes) == 0 {
		return ""
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return ""
	}
	for _, p := range procs {
		fds, err := os.ReadDir(p + "/fd")
		if err != nil {
			continue // somebody else's, or gone
		}
		for _, fd := range fds {
			l, err := os.Readlink(filepath.Join(p, "fd", fd.Name()))
			if err != nil {
				continue
			}
			if inode, ok := strings.CutPrefix(l, "socket:["); ok && slices.Contains(inodes, strings.TrimSuffix(inode, "]")) {
				name, _ := os.ReadFile(p + "/comm")
				return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(p))
			}
		}
	}
	return "another process (run as root to see which)"
}

// tcpListen is the state of a listening socket in /proc/net/tcp.
const tcpListen = "0A"

// socketInodes reads a table of /proc/net (proc_net(5)): the inodes of sockets
// that keep us from addr.
func socketInodes(file, network string, addr netip.AddrPort) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var inodes []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		w := strings.Fields(sc.Text())
		if len(w) < 10 || network == "tcp" && w[3] != tcpListen {
			continue
		}
		local, ok := procAddr(w[1])
		if ok && local.Port() == addr.Port() && (local.Addr() == addr.Addr() || local.Addr().IsUnspecified() || addr.Addr().IsUnspecified()) {
			inodes = append(inodes, w[9])
		}
	}
	return inodes
}

// procAddr parses "0100007F:0035": 32-bit words in the machine's order, which
// is little-endian wherever we run, and the port in hexadecimal.
func procAddr(s string) (netip.AddrPort, bool) {
	a, p, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(a)
	port, perr := strconv.ParseUint(p, 16, 16)
	if !ok || err != nil || perr != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok
}
