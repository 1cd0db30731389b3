package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"smartdns/configs"
	"smartdns/configs/draft"
	"smartdns/daemon"
	"smartdns/web/api"
)

// initFlags are what smartdns init is told.
type initFlags struct {
	draft.Answers
	from   []string
	output string
	force  bool
}

func (a *app) initCommand() *cobra.Command {
	var f initFlags
	c := a.withJSON(&cobra.Command{
		Use:   "init [--from FILE...]",
		Short: "write a first smartdns.toml, or one from another program's file",
		Long: "Writes a first smartdns.toml. On a terminal and without flags it asks for the\ntunnel, the LAN, the addresses and the country; else it goes by the flags.\n\n" +
			"With --from it reads the configuration of dnsmasq, mosdns (v5), smartdns of\npymumu or chinadns-ng, says what became of each line that is not simply there,\nand what to do instead. Whose file it is shows in its lines; where it does not,\nwrite dnsmasq:FILE, mosdns:FILE, pymumu:FILE or chinadns-ng:FILE. Of\nchinadns-ng a whole command line will do, too, in quotes. uci:FILE with\n--output - prints what smartdns' own file in OpenWrt's UCI stands for.\n\n" +
			"What is there already is not touched, but with --force, which keeps it as .old.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 && len(f.from) == 0 {
				return usageError{errors.New("write smartdns init --from FILE")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			f.from = append(f.from, args...)
			return a.init(c, f)
		},
	})
	g := c.Flags()
	g.StringArrayVar(&f.from, "from", nil, "the configuration `FILE` or directory of another program; more files may follow")
	g.StringArrayVar(&f.Tunnels, "tunnel", nil, "a wg-quick `FILE`, which stays where it is; its name is the interface's")
	g.StringArrayVar(&f.LAN, "lan", nil, "an `INTERFACE` whose clients are served and routed")
	g.StringArrayVar(&f.Listen, "listen", nil, "an `ADDRESS` to serve DNS at (127.0.0.1 and ::1 if not given)")
	g.StringVar(&f.Home, "home", "", "the `COUNTRY` that is home, as its two letters (CN if not given)")
	g.StringVar(&f.HomeFile, "home-file", "", "its prefixes, or an mmdb: a `FILE` that every other country than CN needs")
	g.StringArrayVar(&f.Domestic, "domestic", nil, "a `SERVER` to ask for names at home, which every other country than CN needs; more may follow")
	g.BoolVar(&f.System, "system", false, "this host asks smartdns, too, while it runs")
	g.StringVarP(&f.output, "output", "o", "", "write this `FILE`, or - to print it; "+daemon.DefaultConfig+" or that of -c if not given")
	g.BoolVar(&f.force, "force", false, "replace what is there, and keep it as .old")
	for _, flag := range []string{"tunnel", "output", "home-file"} {
		_ = c.MarkFlagFilename(flag)
	}
	return c
}

// init is the command.
func (a *app) init(c *cobra.Command, f initFlags) error {
	switch {
	case len(f.from) > 0 && strings.HasPrefix(f.from[0], uciPrefix):
		return a.initUCI(f)
	case f.output == "":
		f.output = firstOf(a.config, daemon.DefaultConfig)
	case a.config != "":
		return usageError{errors.New("-c and -o both name the file to write: one of them will do")}
	}
	if f.output != "-" {
		path, err := filepath.Abs(f.output)
		if err != nil {
			return fmt.Errorf("finding the directory: %w", err)
		}
		if f.output = path; !f.force {
			if _, err := os.Lstat(path); err == nil {
				return fmt.Errorf("%s %w: --force replaces it and keeps it as .old, -o FILE writes another", path, draft.ErrThere)
			}
		}
	}
	if asks(c, f) {
		q := questions{in: newLines(c.InOrStdin()), out: a.errs}
		if err := q.ask(&f.Answers, hostFacts()); err != nil {
			return err
		}
	}
	tunnels, err := f.absolute()
	if err != nil {
		return err
	}
	d, err := f.draft()
	if err != nil {
		return err
	}
	v := api.Initialized{Schema: api.Schema, Program: string(d.Program()), Sources: list(d.Sources()), Tunnels: append([]api.InitTunnel{}, tunnels...), Warnings: []string{}}
	if f.output == "-" {
		return a.printDraft(d, v)
	}
	v.Written, err = d.Write(compiles, f.force)
	switch {
	case errors.Is(err, draft.ErrThere):
		return fmt.Errorf("%w: --force replaces it and keeps it as .old, -o FILE writes into another directory", err)
	case err != nil:
		return err
	}
	v.Notes = notes(d)
	v.Next = "smartdns check"
	if f.output != daemon.DefaultConfig {
		v.Next += " -c " + f.output
	}
	r, err := daemon.Check(daemon.Options{Config: f.output})
	v.Warnings = list(r.Warnings)
	return errors.Join(show(a, v, a.initialized), err)
}

// asks reports whether there is somebody to ask, and nothing was said.
func asks(c *cobra.Command, f initFlags) bool {
	for _, flag := range []string{"from", "tunnel", "lan", "listen", "home", "home-file", "domestic", "system", "json"} {
		if c.Flags().Changed(flag) {
			return false
		}
	}
	in, ok := c.InOrStdin().(*os.File)
	return ok && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(os.Stderr.Fd())) && f.output != "-"
}

// absolute makes paths whole, and reads the tunnels' files.
func (f *initFlags) absolute() ([]api.InitTunnel, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("finding the directory: %w", err)
	}
	for i, spec := range f.from {
		f.from[i] = draft.AbsoluteSpec(spec, dir)
	}
	if f.HomeFile != "" {
		f.HomeFile = filepath.Join(absoluteDir(f.HomeFile, dir), f.HomeFile)
	}
	var all []api.InitTunnel
	for i, file := range f.Tunnels {
		f.Tunnels[i] = filepath.Join(absoluteDir(file, dir), file)
		t, err := daemon.ReadTunnelFile(f.Tunnels[i])
		if err != nil {
			return nil, err
		}
		all = append(all, api.InitTunnel{Path: t.Path, Honoured: list(t.Honoured), Ignored: list(t.Ignored)})
	}
	abroad := f.Home != "" && !strings.EqualFold(f.Home, "CN")
	switch {
	case abroad && f.HomeFile == "":
		return nil, usageError{fmt.Errorf("--home %s needs --home-file FILE, a list of its prefixes or an mmdb: only those of CN are part of the program", f.Home)}
	case abroad && len(f.Domestic) == 0 && len(f.from) == 0:
		return nil, usageError{fmt.Errorf("--home %s needs --domestic SERVER, a resolver in that country, such as the provider's: those of the program are in CN", f.Home)}
	case f.HomeFile != "" && !abroad:
		return nil, usageError{errors.New("--home-file goes with --home COUNTRY")}
	}
	return all, nil
}

func absoluteDir(path, dir string) string {
	if filepath.IsAbs(path) {
		return ""
	}
	return dir
}

func (f *initFlags) draft() (*draft.Draft, error) {
	o := draft.Options{Answers: f.Answers, Path: f.output, Host: os.DirFS("/")}
	if f.output == "-" {
		o.Path = ""
	}
	if len(f.from) == 0 {
		return draft.New(o)
	}
	return draft.From(f.from, o)
}

// compiles judges a draft as smartdns check does.
func compiles(text string) error {
	c, err := configs.Parse(strings.NewReader(text), draft.FileName)
	if err != nil {
		return err
	}
	_, err = daemon.Compile(c)
	return err
}

func notes(d *draft.Draft) []api.InitNote {
	all := []api.InitNote{}
	for _, n := range d.Notes() {
		all = append(all, api.InitNote{File: n.File, Line: n.Line, Text: n.Text, Kind: string(n.Kind), Why: n.Why})
	}
	return all
}

// printDraft prints the file, and what there is to say about it to stderr.
func (a *app) printDraft(d *draft.Draft, v api.Initialized) error {
	if err := d.Settle(compiles); err != nil {
		return err
	}
	v.Notes = notes(d)
	if a.json {
		return a.out.json(v)
	}
	fmt.Fprint(a.out.w, d.Text())
	said := *a
	said.out = newPrinter(a.errs)
	said.initialized(cleaned(v))
	return nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
