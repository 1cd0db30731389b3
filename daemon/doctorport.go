package daemon

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A socket of this network namespace that takes packets.
type socket struct {
	Proto string // udp or tcp
	Addr  netip.AddrPort
	Inode uint64
	PID   int    // of a process that has it open; 0 where none shows
	Name  string // of that process
}

// readSockets reads a file of /proc/net (tcp, tcp6, udp, udp6) and returns the
// sockets at a port: of TCP those that listen, of UDP those without a far end.
// Lines that it does not understand are passed over.
func readSockets(r io.Reader, proto string, port uint16) []socket {
	const listening, unconnected = "0A", "07"
	var all []socket
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || proto == "tcp" && f[3] != listening || proto == "udp" && f[3] != unconnected {
			continue
		}
		at, ok := hexAddr(f[1])
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if ok && err == nil && at.Port() == port {
			all = append(all, socket{Proto: proto, Addr: at, Inode: inode})
		}
	}
	return all
}

// hexAddr reads an address as /proc/net writes it: words in the byte order of
// the machine, the port as a number.
func hexAddr(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}

// socketsAt returns who takes packets at a port in the network namespace of the
// calling thread. A process that we may not look into stays without a name.
func socketsAt(port uint16) []socket {
	var all []socket
	for _, name := range []string{"udp", "udp6", "tcp", "tcp6"} {
		f, err := os.Open("/proc/thread-self/net/" + name)
		if err != nil {
			continue // a kernel without IPv6
		}
		all = append(all, readSockets(f, name[:3], port)...)
		f.Close()
	}
	if len(all) == 0 {
		return nil
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range links {
		to, err := os.Readlink(l)
		if err != nil || !strings.HasPrefix(to, "socket:[") {
			continue
		}
		inode, err := strconv.ParseUint(strings.Trim(to, "socket:[]"), 10, 64)
		i := slices.IndexFunc(all, func(s socket) bool { return s.Inode == inode })
		if err != nil || i < 0 || all[i].PID != 0 {
			continue
		}
		dir := filepath.Dir(filepath.Dir(l))
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		all[i].PID, _ = strconv.Atoi(filepath.Base(dir))
		all[i].Name = strings.TrimSpace(string(comm))
	}
	return all
}
