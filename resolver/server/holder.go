package server

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder is a socket of another process that keeps us from its address.
type Holder struct {
	Network string // udp or tcp
	Addr    netip.AddrPort
	PID     int    // of a process that has it open; 0 where none shows
	Name    string // of that process; "" where none shows
	inode   string
}

// Holders returns who holds a port in the network namespace of the calling
// thread, as far as /proc lets us see: a process that we may not look into
// stays without a name.
func Holders(port uint16) []Holder {
	var all []Holder
	for _, table := range []string{"udp", "udp6", "tcp", "tcp6"} {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if err != nil {
			continue // a kernel without IPv6
		}
		all = append(all, readHolders(f, table[:3], port)...)
		f.Close()
	}
	if len(all) == 0 {
		return nil
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range links {
		to, _ := os.Readlink(l) // somebody else's, or gone
		inode, ok := strings.CutPrefix(to, "socket:[")
		inode = strings.TrimSuffix(inode, "]")
		i := slices.IndexFunc(all, func(h Holder) bool { return h.inode == inode })
		if !ok || i < 0 || all[i].PID != 0 {
			continue
		}
		dir := filepath.Dir(filepath.Dir(l))
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		all[i].PID, _ = strconv.Atoi(filepath.Base(dir))
		all[i].Name = strings.TrimSpace(string(comm))
	}
	return all
}

// holder says which process has addr open ("dnsmasq (pid 812)"): "" when that
// does not show.
func holder(network string, addr netip.AddrPort) string {
	for _, h := range Holders(addr.Port()) {
		if h.Network != network || h.Addr.Addr() != addr.Addr() && !h.Addr.Addr().IsUnspecified() && !addr.Addr().IsUnspecified() {
			continue
		}
		if h.PID == 0 {
			return "another process (run as root to see which)"
		}
		return fmt.Sprintf("%s (pid %d)", h.Name, h.PID)
	}
	return ""
}

// readHolders reads a table of /proc/net (proc_net(5)): the sockets at a port,
// of TCP those that listen. Lines that it does not understand are passed over.
func readHolders(r io.Reader, network string, port uint16) []Holder {
	const listening = "0A"
	var all []Holder
	for lines := bufio.NewScanner(r); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 10 || network == "tcp" && w[3] != listening {
			continue
		}
		if local, ok := procAddr(w[1]); ok && local.Port() == port {
			all = append(all, Holder{Network: network, Addr: local, inode: w[9]})
		}
	}
	return all
}

// procAddr parses "0100007F:0035": 32-bit words in the machine's order, and the
// port in hexadecimal.
func procAddr(s string) (netip.AddrPort, bool) {
	a, p, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(a)
	port, perr := strconv.ParseUint(p, 16, 16)
	if !ok || err != nil || perr != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok
}
