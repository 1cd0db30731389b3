package list

import (
	"bytes"
	"io"
	"iter"
	"net/netip"
	"strings"
)

// Hosts reads a file like /etc/hosts,
//
//	0.0.0.0 ads.example.com tracker.example.com
//
// as the names in it, each alone; what the addresses are does not matter. Names
// of a single label and those that every such file has for the host itself are
// Dropped. Comments start with #.
func Hosts(r io.Reader) iter.Seq2[Line, error] { return scan(r, new(names).parseHosts) }

func (n *names) parseHosts(rule []byte, emit func(Line) bool) string {
	const notHosts = "not a line of a hosts file: write 0.0.0.0 www.example.com"
	if i := bytes.IndexByte(rule, '#'); i >= 0 {
		rule = bytes.TrimRight(rule[:i], " \t")
	}
	addr, all := cutField(rule)
	if len(all) == 0 || !bytes.Equal(addr, n.addr) && !isAddress(addr) {
		return notHosts
	}
	n.addr = append(n.addr[:0], addr...)
	for len(all) > 0 {
		var host []byte
		if host, all = cutField(all); len(host) == 0 {
			break
		}
		if isHostsOwn(host) {
			drop(host, "a name of the host itself", emit)
			continue
		}
		if reason := n.emit(Full, host, emit); reason != "" {
			return reason
		}
	}
	return ""
}

// cutField returns the first word of b and what follows it, without the white
// space between.
func cutField(b []byte) (field, rest []byte) {
	i := bytes.IndexAny(b, " \t")
	if i < 0 {
		return b, nil
	}
	return b[:i], bytes.TrimLeft(b[i:], " \t")
}

func isAddress(b []byte) bool {
	if len(b) == 0 || len(b) > 45 || !bytes.ContainsAny(b, ".:") || strings.IndexByte("0123456789abcdefABCDEF:", b[0]) < 0 {
		return false
	}
	_, err := netip.ParseAddr(string(b))
	return err == nil
}

// isHostsOwn reports whether a name in a hosts file says nothing about others:
// it has one label, is that of the loopback, or is the 0.0.0.0 that some files
// have as a name.
func isHostsOwn(name []byte) bool {
	return bytes.IndexByte(name, '.') < 0 || string(name) == "localhost.localdomain" || string(name) == "0.0.0.0"
}
