package main

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"smartdns/daemon"
	"smartdns/web/api"
)

// app is what every command needs: the flags they share and where to print.
type app struct {
	config  string
	dirs    daemon.Dirs
	verbose bool
	json    bool
	clock   daemon.Clock // nil: this host's
	out     printer
	errs    io.Writer
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	return (&app{out: newPrinter(stdout), errs: stderr}).root()
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "smartdns",
		Short:         "a smart DNS resolver with integrated split-tunnel routing",
		Long:          "smartdns asks domestic servers for names at home and others through a WireGuard\ntunnel, and ties every answered address to its way out before the answer leaves.",
		Args:          usage(cobra.NoArgs),
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages", "Flags.FlagUsagesWrapped 80"))
	root.SetHelpCommand(helpCommand(root))
	root.SetHelpCommandGroupID(helpTitle)
	root.CompletionOptions.DisableDefaultCmd = true
	f := root.PersistentFlags()
	f.StringVarP(&a.config, "config", "c", "", "the configuration `FILE`; "+daemon.DefaultConfig+" if not given, or the defaults where that is not there")
	f.StringVar(&a.dirs.Run, "run-dir", daemon.DefaultRunDir, "`DIR` of the control socket and the lock")
	f.StringVar(&a.dirs.State, "state-dir", daemon.DefaultStateDir, "`DIR` of what is kept over restarts")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "say more: every step, every repair")
	for _, g := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Set up and run:", []*cobra.Command{a.initCommand(), a.configCommand(), a.checkCommand(), a.planCommand(), a.runCommand(), a.reloadCommand(), a.restartCommand(), a.lockdownCommand(), a.portalCommand(), a.cleanupCommand()}},
		{"As wg-quick:", []*cobra.Command{a.upCommand(), a.downCommand(), a.saveCommand(), a.stripCommand()}},
		{"See and explain:", []*cobra.Command{a.doctorCommand(), a.statusCommand(), a.queryCommand(), a.routeCommand(), a.diffCommand()}},
		{"What it has learned:", []*cobra.Command{a.marksCommand(), a.verdictsCommand(), a.cacheCommand(), a.listsCommand()}},
		{"The far end:", []*cobra.Command{a.peerCommand()}},
		{"At boot:", []*cobra.Command{a.installCommand(), a.uninstallCommand()}},
		{"Keys:", []*cobra.Command{a.genkeyCommand(), a.pubkeyCommand(), a.genpskCommand()}},
		{helpTitle, []*cobra.Command{a.labCommand(), a.versionCommand(), completionCommand(root, a.out)}},
	} {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.title
			root.AddCommand(c)
		}
	}
	return root
}

// helpTitle is above the commands that tell about the program.
const helpTitle = "Get to know it:"

// usage turns the complaint of an argument check into a usage error.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// takes checks how many arguments a command has; the complaint is how to write it.
func takes(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if least <= len(args) && len(args) <= most {
			return nil
		}
		return usageError{fmt.Errorf("write %s %s", c.Parent().CommandPath(), c.Use)}
	}
}

// helpCommand is cobra's own with an error for a command that is not there.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "what a command does, and its flags",
		RunE: func(c *cobra.Command, args []string) error {
			to, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usageError{fmt.Errorf("unknown command %q", strings.Join(args, " "))}
			}
			return to.Help()
		},
	}
}

func completionCommand(root *cobra.Command, out printer) *cobra.Command {
	shells := map[string]func() error{
		"bash": func() error { return root.GenBashCompletionV2(out.w, true) },
		"zsh":  func() error { return root.GenZshCompletion(out.w) },
		"fish": func() error { return root.GenFishCompletion(out.w, true) },
	}
	return &cobra.Command{
		Use:                   "completion bash|zsh|fish",
		Short:                 "a script that completes commands and flags in a shell",
		Long:                  "Prints a script for the shell. For bash, in this session:\n\n  source <(smartdns completion bash)",
		ValidArgs:             slices.Sorted(maps.Keys(shells)),
		Args:                  usage(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		DisableFlagsInUseLine: true,
		RunE:                  func(_ *cobra.Command, args []string) error { return shells[args[0]]() },
	}
}

// withJSON adds --json to a command that prints data.
func (a *app) withJSON(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&a.json, "json", false, "print the data as JSON")
	return c
}

func (a *app) client() *api.Client { return api.Dial(filepath.Join(a.dirs.Run, daemon.SocketName)) }

func (a *app) options() daemon.Options {
	level := slog.LevelInfo
	if a.verbose {
		level = slog.LevelDebug
	}
	return daemon.Options{
		Config: a.config, Dirs: a.dirs, Version: version(), Clock: a.clock,
		Log: slog.New(slog.NewTextHandler(a.errs, &slog.HandlerOptions{Level: level, ReplaceAttr: noTime})),
	}
}

// noTime leaves the time of a log line to whoever collects our stderr.
func noTime(groups []string, at slog.Attr) slog.Attr {
	if len(groups) == 0 && at.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return at
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) > 12 {
			return fmt.Sprintf("%s (%s)", v, s.Value[:12])
		}
	}
	return v
}
