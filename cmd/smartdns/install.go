package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"smartdns/configs/units"
	"smartdns/daemon"
	"smartdns/web/api"
)

func (a *app) installCommand() *cobra.Command {
	var init, root, peer string
	var dry bool
	c := a.withJSON(&cobra.Command{
		Use:   "install",
		Short: "have systemd, OpenRC or procd start it at boot",
		Long: "Writes the files by which systemd, OpenRC or OpenWrt's procd starts the program\nat boot, as the configuration needs them, and prints the commands that come\n" +
			"next. What is there already is replaced only where smartdns install wrote it and\nnobody edited it since. After a change of tunnels, hooks, system or\nstrict in the configuration, run it again. With --peer, writes systemd's unit of\nfar ends and nothing else.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("peer") {
				return a.installPeer(init, root, peer, dry)
			}
			return a.install(init, root, dry)
		},
	})
	c.Flags().StringVar(&peer, "peer", "", "have systemd start the far end `NAME`, of /etc/wireguard/NAME.conf, instead")
	c.Flags().StringVar(&init, "init", "", "for this one: systemd, openrc or procd; the one of this host if not given")
	c.Flags().StringVar(&root, "root", "", "write below `DIR`, the root of another system")
	c.Flags().BoolVar(&dry, "dry-run", false, "print the files, and write nothing")
	_ = c.MarkFlagDirname("root")
	_ = c.RegisterFlagCompletionFunc("init", cobra.FixedCompletions([]string{"systemd", "openrc", "procd"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) install(init, root string, dry bool) error {
	root, err := wholeDir(root)
	if err != nil {
		return err
	}
	i := units.Init(init)
	if init == "" {
		found, ok := units.Detect(os.DirFS(root + "/"))
		if !ok {
			return usageError{errors.New("what starts programs at boot does not show: write --init systemd, openrc or procd")}
		}
		i = found
	} else if !slices.Contains(units.Inits(), i) {
		return usageError{fmt.Errorf("--init %s: write systemd, openrc or procd", init)}
	}
	b, notes, err := a.boot(root)
	if err != nil {
		return err
	}
	v := api.Installed{Schema: api.Schema, Init: string(i), Files: []api.InstalledFile{}, Notes: list(notes.text), Next: []string{}}
	if other := units.Other(root); other != "" {
		err = fmt.Errorf("%s belongs to another program called smartdns, such as pymumu's in Debian's package: its unit and its program have our names; remove it first (apt-get remove smartdns)", other)
		if !dry {
			return err
		}
		v.Notes = append(v.Notes, err.Error())
	}
	files := units.Files(i, b)
	if dry {
		return a.printFiles(root, v, files)
	}
	done, err := units.Install(root, files)
	v.Files = outcomes(done)
	if err != nil {
		return errors.Join(err, a.partly(v))
	}
	if root == "" { // else it is for whoever starts that system
		if b.Root != "" {
			notes.share = nil
		}
		v.Next = slices.Concat(notes.next, firstSteps(i, notes.share, b.Strict))
	}
	return show(a, v, a.installed)
}

// printFiles shows what would be written.
func (a *app) printFiles(root string, v api.Installed, files []units.File) error {
	for _, f := range files {
		v.Files = append(v.Files, api.InstalledFile{Path: root + f.Path, Text: f.Text})
		if !a.json { // as it is: the texts are the program's own
			fmt.Fprintf(a.out.w, "==> %s\n%s\n", root+f.Path, f.Text)
		}
	}
	return show(a, v, func(v api.Installed) { v.Files = nil; a.installed(v) })
}

// peerName is an interface that a unit can be named by.
var peerName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,15}$`)

// installPeer writes the unit of far ends, and leaves everything else as it is.
func (a *app) installPeer(init, root, name string, dry bool) error {
	if !peerName.MatchString(name) {
		return usageError{fmt.Errorf("--peer %q: write the name of an interface, as exit for /etc/wireguard/exit.conf", name)}
	}
	root, err := wholeDir(root)
	if err != nil {
		return err
	}
	if found, _ := units.Detect(os.DirFS(root + "/")); init == "" && found != units.Systemd || init != "" && init != string(units.Systemd) {
		return usageError{errors.New("--peer is for systemd (--init systemd): elsewhere have what starts programs run: smartdns peer run " + name)}
	}
	var b units.Boot
	v := api.Installed{Schema: api.Schema, Init: string(units.Systemd), Files: []api.InstalledFile{}, Notes: []string{}, Next: []string{}}
	if root == "" {
		if b.Program, v.Next, err = programHere(); err != nil {
			return err
		}
		if b.Program != "" && !plainPath.MatchString(b.Program) {
			return fmt.Errorf("%q has characters that units do not take: use letters, digits and any of . _ + @ -", b.Program)
		}
	}
	if file := root + "/etc/wireguard/" + name + ".conf"; exists(file) != nil {
		v.Notes = append(v.Notes, file+" is not there: it is the wg-quick file of this far end")
	}
	files := units.PeerFiles(b)
	if dry {
		return a.printFiles(root, v, files)
	}
	done, err := units.Add(root, files)
	v.Files = outcomes(done)
	if err != nil {
		return errors.Join(err, a.partly(v))
	}
	if root == "" {
		v.Next = append(v.Next, "systemctl daemon-reload && systemctl enable --now smartdns-peer@"+name)
	} else {
		v.Next = []string{}
	}
	return show(a, v, a.installed)
}

func exists(file string) error {
	_, err := os.Stat(file)
	return err
}

// programHere is where units find this program: "" for where they expect it, with
// the command that puts it there.
func programHere() (program string, next []string, err error) {
	if program, err = os.Executable(); err != nil {
		return "", nil, fmt.Errorf("finding the program: %w", err)
	}
	if lasting(program) {
		return program, []string{}, nil
	}
	return "", []string{"install -m 0755 " + program + " " + units.Program}, nil
}

// partly prints what was done before an error.
func (a *app) partly(v api.Installed) error {
	if len(v.Files) == 0 {
		return nil
	}
	return show(a, v, a.installed)
}

// bootNotes are what an installation has to say.
type bootNotes struct {
	text  []string
	next  []string // commands that come first
	share []string // that let the service's user at files
}

// plainPath is one that units and scripts take without quotes.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9/._+@-]*$`)

// boot says what the files depend on, of the system at root.
func (a *app) boot(root string) (b units.Boot, n bootNotes, err error) {
	config := a.config
	if config != "" && root == "" {
		if config, err = filepath.Abs(config); err != nil {
			return b, n, fmt.Errorf("finding the directory: %w", err)
		}
	}
	o := a.options()
	o.Config = config
	if root != "" {
		o.Config = root + firstOf(config, daemon.DefaultConfig)
	}
	info, err := os.Stat(firstOf(o.Config, daemon.DefaultConfig))
	switch {
	case err == nil:
		if b, err = daemon.Boot(o); err != nil {
			return b, n, err
		}
	case a.config != "":
		return b, n, fmt.Errorf("looking at the configuration: %w", err)
	default:
		n.text = append(n.text, daemon.DefaultConfig+" is not there: names are resolved with the defaults. smartdns init writes one; then run smartdns install again")
	}
	if b.Config = config; config == daemon.DefaultConfig {
		b.Config = ""
	}
	if info != nil && info.Mode().Perm()&0o004 == 0 {
		file := firstOf(config, daemon.DefaultConfig)
		n.share = []string{"chgrp smartdns " + file + " && chmod 0640 " + file}
	}
	if root == "" {
		if b.Program, n.next, err = programHere(); err != nil {
			return b, n, err
		}
	}
	for _, p := range append([]string{b.Config, b.Program}, b.Secrets...) {
		if p != "" && !plainPath.MatchString(p) {
			return b, n, fmt.Errorf("%q has characters that units and scripts do not take: use letters, digits and any of . _ + @ -", p)
		}
	}
	return b, n, nil
}

// lasting reports whether a program is where one stays, and where a service may
// see it.
func lasting(program string) bool {
	return slices.ContainsFunc([]string{"/usr/", "/opt/", "/bin/", "/sbin/"}, func(dir string) bool { return strings.HasPrefix(program, dir) })
}

// firstSteps are the commands that come after the files; share is what makes
// the configuration readable for the service's user.
func firstSteps(i units.Init, share []string, strict bool) []string {
	switch i {
	case units.Systemd:
		enable := "systemctl daemon-reload && systemctl enable --now smartdns"
		if strict { // from the next boot on: now the daemon closes it
			enable += " && systemctl enable smartdns-early"
		}
		return slices.Concat([]string{"systemd-sysusers"}, share, []string{enable})
	case units.OpenRC:
		return []string{"rc-update add smartdns boot && rc-service smartdns start"}
	}
	return []string{
		"uci set smartdns.main.enabled=1 && uci commit smartdns",
		"uci set dhcp.@dnsmasq[0].port=0 && uci commit dhcp && /etc/init.d/dnsmasq restart",
		"/etc/init.d/smartdns enable && /etc/init.d/smartdns start",
	}
}

func (a *app) uninstallCommand() *cobra.Command {
	var root string
	var peers bool
	c := a.withJSON(&cobra.Command{
		Use:   "uninstall",
		Short: "remove what install wrote, and nothing else",
		Long:  "Removes the files that smartdns install wrote, of whichever init. One that was\nedited since is kept, and so are the configuration and what was learned.",
		Args:  usage(cobra.NoArgs),
		RunE:  func(*cobra.Command, []string) error { return a.uninstall(root, peers) },
	})
	c.Flags().BoolVar(&peers, "peer", false, "the unit of far ends alone")
	c.Flags().StringVar(&root, "root", "", "below `DIR`, the root of another system")
	_ = c.MarkFlagDirname("root")
	return c
}

func (a *app) uninstall(root string, peers bool) error {
	root, err := wholeDir(root)
	if err != nil {
		return err
	}
	switch on, err := units.Enabled(root, peers); {
	case err != nil:
		return err
	case len(on) > 0:
		return fmt.Errorf("it starts at boot still, as %s says: %s first", on[0], disabling(on[0]))
	}
	done, err := units.Uninstall(root, peers)
	v := api.Installed{Schema: api.Schema, Files: outcomes(done), Notes: []string{}, Next: []string{}}
	if err != nil {
		return errors.Join(err, a.partly(v))
	}
	for _, o := range done {
		if o.Done == units.Kept {
			v.Notes = append(v.Notes, o.Path+" was edited, and is kept")
		}
		if o.Done == units.Removed && strings.HasSuffix(o.Path, ".service") && root == "" {
			v.Next = []string{"systemctl daemon-reload"}
		}
	}
	if len(done) == 0 {
		v.Notes = append(v.Notes, "nothing that smartdns install writes is there")
	} else {
		v.Notes = append(v.Notes, "/etc/smartdns, /var/lib/smartdns and the user smartdns are as they were")
	}
	return show(a, v, a.installed)
}

// disabling is the command that removes a link by which an init starts us.
func disabling(link string) string {
	switch {
	case strings.Contains(link, "/runlevels/"):
		return "rc-service smartdns stop && rc-update del smartdns"
	case strings.Contains(link, "/rc.d/"):
		return "/etc/init.d/smartdns stop && /etc/init.d/smartdns disable"
	}
	return "systemctl disable --now " + strings.TrimSuffix(filepath.Base(link), ".service")
}

func outcomes(all []units.Outcome) []api.InstalledFile {
	out := []api.InstalledFile{}
	for _, o := range all {
		out = append(out, api.InstalledFile{Path: o.Path, Done: string(o.Done)})
	}
	return out
}

// installed prints what became of files, and what comes next.
func (a *app) installed(v api.Installed) {
	p := a.out
	for _, f := range v.Files {
		p.row(f.Done, f.Path, "")
	}
	for _, n := range v.Notes {
		p.hanging(n, func(s string) string { return s })
	}
	for i, n := range v.Next {
		p.row(first(i, "next"), p.good(n), "")
	}
}

// wholeDir is the whole path of a root directory; "" is this host's.
func wholeDir(root string) (string, error) {
	if root == "" {
		return "", nil
	}
	dir, err := filepath.Abs(root)
	if err == nil {
		_, err = os.Stat(dir)
	}
	if err != nil {
		return "", fmt.Errorf("looking at --root: %w", err)
	}
	return strings.TrimSuffix(dir, "/"), nil
}
