// Package units holds what starts the program at boot: units and scripts for
// systemd, OpenRC and OpenWrt's procd, and how they are put in place and taken
// away again without touching a file that somebody else wrote.
package units

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed systemd openrc procd shared
var embedded embed.FS

// Init is what starts programs at boot.
type Init string

// The inits.
const (
	Systemd Init = "systemd"
	OpenRC  Init = "openrc"
	Procd   Init = "procd"
)

// Inits returns all of them.
func Inits() []Init { return []Init{Systemd, OpenRC, Procd} }

// Detect returns the init of the system whose root directory host is, and
// reports whether there is one that is known.
func Detect(host fs.FS) (Init, bool) {
	for _, mark := range []struct {
		file string
		init Init
	}{
		{"run/systemd/system", Systemd}, {"sbin/procd", Procd}, {"run/openrc", OpenRC}, {"sbin/openrc-run", OpenRC},
		{"usr/sbin/openrc-run", OpenRC}, {"lib/systemd/systemd", Systemd}, {"usr/lib/systemd/systemd", Systemd},
	} {
		if _, err := fs.Stat(host, mark.file); err == nil {
			return mark.init, true
		}
	}
	return "", false
}

// Program is where the units expect the program unless Boot says otherwise.
const Program = "/usr/sbin/smartdns"

// Boot is what the units have to know of a configuration.
type Boot struct {
	Program string   // its whole path; "" for Program
	Config  string   // the whole path of the file; "" for the default one
	Secrets []string // files that only root may read: of tunnels, of [listen] key
	Tunnels []string // interfaces
	Root    string   // why it has to run as root; "" if it has not
	Strict  bool     // the kill switch closes before there is a network
}

// A File is one to be installed. Its path is whole.
type File struct {
	Path string
	Text string
	Mode fs.FileMode
	// Settings are for the user to edit: a file that is there stays.
	Settings bool
}

// Files returns what i needs to start the program as b says.
func Files(i Init, b Boot) []File {
	file := func(to, from string, mode fs.FileMode) File {
		text, _ := embedded.ReadFile(from) // embedded, and named by this function alone
		return File{Path: to, Text: b.adapt(i, string(text)), Mode: mode}
	}
	modules := file("/etc/modules-load.d/smartdns.conf", "shared/modules-load.conf", 0o644)
	switch i {
	case Systemd:
		all := []File{
			file("/etc/systemd/system/smartdns.service", "systemd/smartdns.service", 0o644),
			file("/etc/sysusers.d/smartdns.conf", "systemd/sysusers.conf", 0o644),
			modules,
		}
		names := []string{"smartdns"}
		if b.Strict {
			names = append(names, "smartdns-early")
			all = append(all, file("/etc/systemd/system/smartdns-early.service", "systemd/smartdns-early.service", 0o644))
		}
		if text := b.override(); text != "" {
			for _, n := range names {
				all = append(all, File{Path: "/etc/systemd/system/" + n + ".service.d/10-configuration.conf", Text: text, Mode: 0o644})
			}
		}
		if text := b.sysctls(); text != "" {
			all = append(all, File{Path: "/etc/sysctl.d/60-smartdns.conf", Text: text, Mode: 0o644})
		}
		return all
	case OpenRC:
		conf := file("/etc/conf.d/smartdns", "openrc/smartdns.confd", 0o644)
		conf.Settings = true
		return []File{file("/etc/init.d/smartdns", "openrc/smartdns.initd", 0o755), conf, modules}
	case Procd:
		conf := file("/etc/config/smartdns", "procd/smartdns.config", 0o600)
		conf.Settings = true
		return []File{file("/etc/init.d/smartdns", "procd/smartdns.init", 0o755), conf}
	}
	return nil
}

// peerPath is the unit of far ends.
const peerPath = "/etc/systemd/system/smartdns-peer@.service"

// PeerFiles returns what systemd needs to start far ends: a template, whose
// instances are called by the interfaces. Of b only Program counts.
func PeerFiles(b Boot) []File {
	text, _ := embedded.ReadFile("systemd/smartdns-peer@.service") // embedded
	return []File{{Path: peerPath, Text: Boot{Program: b.Program}.adapt(Systemd, string(text)), Mode: 0o644}}
}

// paths returns every path that Files may have, of all inits.
func paths() []string {
	var all []string
	for _, i := range Inits() {
		for _, f := range Files(i, Boot{Tunnels: []string{"wg0"}, Root: "a reason", Strict: true}) {
			all = append(all, f.Path)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// adapt makes a text name the program and the configuration of b.
func (b Boot) adapt(i Init, text string) string {
	if b.Config != "" {
		switch i {
		case Systemd:
			text = strings.ReplaceAll(text, Program+" run\n", Program+" run --config "+b.Config+"\n")
			text = strings.ReplaceAll(text, " --from-config\n", " --from-config --config "+b.Config+"\n")
		case OpenRC:
			text = strings.ReplaceAll(text, "#SMARTDNS_OPTS=\"--config /etc/smartdns/smartdns.toml --verbose\"", "SMARTDNS_OPTS=\"--config "+b.Config+"\"")
		case Procd:
			text = strings.ReplaceAll(text, "\t#option file '/etc/smartdns/smartdns.toml'", "\toption file '"+b.Config+"'")
		}
	}
	if b.Program != "" {
		text = strings.ReplaceAll(text, Program, b.Program)
	}
	return text
}

// Credential returns the name under which systemd hands over a file that only
// root may read: in the directory that $CREDENTIALS_DIRECTORY names.
func Credential(file string) string {
	return strings.ReplaceAll(strings.TrimPrefix(path.Clean(file), "/"), "/", "-")
}

// override is the drop-in; "" where the unit is right as it is.
func (b Boot) override() string {
	var s strings.Builder
	switch {
	case b.Root != "":
		fmt.Fprintf(&s, "# It runs as root, with these capabilities and no others, because\n# %s.\n", b.Root)
		s.WriteString("[Service]\nUser=root\nGroup=root\nCapabilityBoundingSet=CAP_CHOWN\nSystemCallFilter=@chown\n" +
			"ReadWritePaths=/etc\nReadOnlyPaths=-/etc/smartdns -/etc/wireguard -/etc/systemd -/etc/cron.d\n")
	case len(b.Secrets) > 0:
		s.WriteString("# What only root may read, as it is when the service starts.\n[Service]\n")
		for _, f := range b.Secrets {
			fmt.Fprintf(&s, "LoadCredential=%s:%s\n", Credential(f), f)
		}
	}
	return s.String()
}

// sysctls are for interfaces that do not exist yet: udev sets them when they
// appear.
func (b Boot) sysctls() string {
	var s strings.Builder
	for _, t := range b.Tunnels {
		if s.Len() == 0 {
			s.WriteString("# What comes out of a tunnel has come another way than its answer would go.\n")
		}
		fmt.Fprintf(&s, "-net.ipv4.conf.%s.rp_filter = 2\n", strings.ReplaceAll(t, ".", "/"))
	}
	return s.String()
}
