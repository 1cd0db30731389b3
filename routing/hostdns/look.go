package hostdns

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// View is who says whom this host asks, and whether it says us.
type View struct {
	// By is the program that looks after resolv.conf, ByUs, ""  where
	// nothing shows.
	By string
	// Asks reports whether this host asks us and nobody else. What a link's search
	// domains send to that link's servers does not count.
	Asks bool
}

// Look finds out how a host with the resolv.conf at path resolves names. bus is
// the D-Bus address of the system bus, or "". ours are the addresses where we
// listen on port 53; an unspecified one stands for every loopback address of its
// family. A file that is not there names 127.0.0.1.
func Look(ctx context.Context, path, bus string, ours ...netip.Addr) View {
	seen := look(path)
	v := View{By: seen.by, Asks: seen.stub || asks(path, ours)}
	if seen.stub || v.Asks && nssAsksResolved(path) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		b := dial(ctx, bus)
		defer b.close()
		if seen.stub || b.has(ctx, resolvedName) {
			v.Asks = resolvedAsks(ctx, b, ours)
		}
	}
	return v
}

// Refused says why Set could not make a host with the resolv.conf at path ask us,
// and what to do about that, as far as it shows without trying: nil when it could.
// The error matches ErrNotOurs.
func Refused(ctx context.Context, path, bus string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b := dial(ctx, bus)
	defer b.close()
	for _, h := range (Options{Path: path}).hands(ctx, b) {
		if f, ok := h.(file); ok {
			return f.refused()
		}
	}
	return nil
}

// LetGo returns how a program of View.By is told to leave resolv.conf alone, as a
// command or a line of its own file; "" where that is not known.
func LetGo(by string) string {
	return map[string]string{
		byNetworkManager: `printf '[main]\ndns=none\n' > /etc/NetworkManager/conf.d/smartdns.conf && systemctl reload NetworkManager`,
		byTailscale:      "tailscale set --accept-dns=false",
		"dhcpcd":         "echo nohook resolv.conf >> /etc/dhcpcd.conf",
		"netconfig":      `sed -i 's/^NETCONFIG_DNS_POLICY=.*/NETCONFIG_DNS_POLICY=""/' /etc/sysconfig/network/config`,
		"resolvconf":     "echo resolvconf=NO >> /etc/resolvconf.conf",
		"WSL":            `printf '[network]\ngenerateResolvConf=false\n' >> /etc/wsl.conf`,
		"Docker":         "docker run --dns 127.0.0.1 …",
	}[by]
}

// ByUs is View.By when resolv.conf is the file that we write.
const ByUs = "smartdns"

// Programs that are told, or refused, by name.
const (
	bySystemd        = "systemd-resolved"
	byNetworkManager = "NetworkManager"
	byTailscale      = "tailscale"
)

// program is somebody who writes resolv.conf.
type program struct {
	sign string // in a link's target or a comment, lower case
	name string
}

// programs returns those that are known, the more particular signs first.
func programs() []program {
	return []program{
		{"networkmanager", byNetworkManager}, {"systemd", bySystemd}, {"tailscale", byTailscale}, {"dhcpcd", "dhcpcd"},
		{"netconfig", "netconfig"}, {"connman", "connman"}, {"wsl", "WSL"}, {"docker", "Docker"}, {"resolvconf", "resolvconf"},
	}
}

func named(text string) string {
	text = strings.ToLower(text)
	for _, p := range programs() {
		if strings.Contains(text, p.sign) {
			return p.name
		}
	}
	return ""
}

// writer is the program that a file's comments name as its writer.
func writer(data []byte) string {
	for line := range strings.Lines(string(data)) {
		line = strings.ToLower(strings.TrimSpace(line))
		if line == "" || line[0] != '#' && line[0] != ';' || !strings.Contains(line, "generated") && !strings.Contains(line, "managed") {
			continue
		}
		if name := named(line); name != "" {
			return name
		}
	}
	return ""
}

// seen is what resolv.conf shows.
type seen struct {
	by   string
	stub bool // it names systemd-resolved, and nobody else
}

func look(path string) seen {
	data, _ := os.ReadFile(path)
	s := seen{stub: stubOnly(data)}
	target, _ := os.Readlink(path)
	switch {
	case s.stub:
		s.by = bySystemd
	case target == "" && isOurs(data):
		s.by = ByUs
	default:
		if s.by = writer(data); s.by == "" {
			s.by = named(target)
		}
	}
	return s
}

// stubOnly reports whether data names systemd-resolved's own listeners alone.
func stubOnly(data []byte) bool {
	return !slices.ContainsFunc(nameservers(data), func(a netip.Addr) bool {
		return a != netip.AddrFrom4([4]byte{127, 0, 0, 53}) && a != netip.AddrFrom4([4]byte{127, 0, 0, 54})
	})
}

// nssAsksResolved reports whether the C library asks systemd-resolved without
// reading the resolv.conf at path (nss-resolve(8)).
func nssAsksResolved(path string) bool {
	data, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "nsswitch.conf"))
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "hosts:"); ok {
			return slices.Contains(strings.Fields(rest), "resolve")
		}
	}
	return false
}

// asks reports whether the C library, by the resolv.conf at path, asks only
// ours.
func asks(path string, ours []netip.Addr) bool {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return !slices.ContainsFunc(nameservers(data), func(a netip.Addr) bool { return !isOneOf(a, ours) })
}

// isOneOf reports whether a query to server reaches one of ours.
func isOneOf(server netip.Addr, ours []netip.Addr) bool {
	return slices.ContainsFunc(ours, func(our netip.Addr) bool {
		our = our.Unmap()
		return our == server ||
			our.IsUnspecified() && (server.IsLoopback() || server.IsUnspecified()) && our.Is4() == server.Is4()
	})
}
