package hostdns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// marker begins the file that we write.
const marker = "# Written by smartdns while it runs."

func isOurs(data []byte) bool { return bytes.HasPrefix(data, []byte(marker)) }

// generate returns a resolv.conf that asks o's servers and is otherwise as base.
func generate(base []byte, o Options) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s The former file is %s, and comes back.\n", marker, o.Saved)
	for line := range strings.Lines(string(base)) {
		line = strings.TrimSpace(line)
		switch word, _, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " "); word {
		case "search", "domain":
			if len(o.Search) == 0 {
				fmt.Fprintln(&b, line)
			}
		case "options", "sortlist":
			fmt.Fprintln(&b, line)
		}
	}
	if len(o.Search) > 0 {
		fmt.Fprintln(&b, "search "+strings.Join(o.Search, " "))
	}
	for _, s := range o.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	return b.Bytes()
}

// nameservers returns those that the C library would ask: the first three, or
// this host where none is named (resolv.conf(5)).
func nameservers(data []byte) []netip.Addr {
	const most = 3 // MAXNS
	var all []netip.Addr
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil && len(all) < most {
			all = append(all, a.Unmap())
		}
	}
	if len(all) == 0 {
		all = append(all, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return all
}

// Asks reports whether a host with the resolv.conf at path asks only us. ours
// are the addresses where we listen on port 53; an unspecified one stands for
// every loopback address of its family. A file that is not there names
// 127.0.0.1.
func Asks(path string, ours ...netip.Addr) bool {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	for _, server := range nameservers(data) {
		us := slices.ContainsFunc(ours, func(our netip.Addr) bool {
			our = our.Unmap()
			return our == server ||
				our.IsUnspecified() && (server.IsLoopback() || server.IsUnspecified()) && our.Is4() == server.Is4()
		})
		if !us {
			return false
		}
	}
	return true
}
