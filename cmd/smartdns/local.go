package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"smartdns/configs"
	"smartdns/daemon"
	"smartdns/lab"
	"smartdns/web/api"
)

// The commands of this file work without the daemon.

func (a *app) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "resolve and route, in the foreground",
		Long:  "Runs the daemon in the foreground. Tells systemd (sd_notify) when DNS answers\nand the routes are in place. SIGTERM stops it and removes all that is ours,\nor with [routing] strict leaves the kill switch closed. SIGHUP reads the\nconfiguration again.",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := untilStopped(c.Context())
			defer stop()
			return daemon.Run(ctx, a.options())
		},
	}
}

func (a *app) checkCommand() *cobra.Command {
	overlaps := 0
	c := a.withJSON(&cobra.Command{
		Use:   "check [FILE]",
		Short: "what is wrong with the configuration and its lists, and where",
		Args:  takes(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.config = args[0]
			}
			if c.Flags().Changed("overlaps") {
				return a.overlaps(overlaps)
			}
			r, err := daemon.Check(a.options())
			v := api.Checked{Schema: api.Schema, OK: err == nil, File: r.File, Errors: []string{}, Warnings: list(r.Warnings), Notes: list(r.Notes)}
			if err != nil {
				v.Errors = strings.Split(err.Error(), "\n")
			}
			return errors.Join(show(a, v, a.checked), no(err == nil))
		},
	})
	c.Flags().IntVar(&overlaps, "overlaps", 0, "only print what lists contradict each other in: how much, and the first `N` of each (default 20)")
	c.Flags().Lookup("overlaps").NoOptDefVal = "20"
	return c
}

// checked prints what is wrong to stderr, and the rest to stdout.
func (a *app) checked(c api.Checked) {
	for _, e := range c.Errors {
		fmt.Fprintln(a.errs, e)
	}
	for _, w := range c.Warnings {
		a.out.hanging(w, func(s string) string { return s })
	}
	for _, n := range c.Notes {
		a.out.hanging(n, a.out.faint)
	}
	if c.OK {
		a.out.line(c.File+": "+a.out.good("fine"), "")
	}
}

// list is s as JSON shows it when it is empty: [].
func list(s []string) []string { return append([]string{}, s...) }

func (a *app) configCommand() *cobra.Command {
	var effective bool
	c := a.withJSON(&cobra.Command{
		Use:   "config",
		Short: "every key with its default; with --effective, what is in force",
		Args:  usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if !effective && !a.json {
				fmt.Fprint(a.out.w, configs.Reference())
				return nil
			}
			cfg, err := daemon.LoadConfig(a.config)
			if err != nil {
				return err
			}
			if !a.json {
				fmt.Fprint(a.out.w, cfg.Text())
				return nil
			}
			tables, err := cfg.Tables()
			if err != nil {
				return err
			}
			return a.out.json(api.Config{Schema: api.Schema, Config: tables})
		},
	})
	c.Flags().BoolVar(&effective, "effective", false, "print the file with every default filled in")
	c.Flags().Lookup("json").Usage = "print what is in force as JSON"
	return c
}

func (a *app) planCommand() *cobra.Command {
	var sets bool
	c := a.withJSON(&cobra.Command{
		Use:   "plan",
		Short: "what the kernel should hold, as the commands that would make it",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			steps, err := daemon.Plan(c.Context(), a.options(), sets)
			if err != nil {
				return err
			}
			return a.printSteps(steps, "nothing")
		},
	})
	c.Flags().BoolVar(&sets, "sets", false, "print the elements of the static sets too")
	return c
}

func (a *app) diffCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "diff",
		Short: "what would change in the kernel now; exit 1 if anything",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			steps, err := daemon.Diff(c.Context(), a.options())
			if err != nil {
				return err
			}
			return errors.Join(a.printSteps(steps, "the kernel is as the configuration asks"), no(len(steps) == 0))
		},
	})
}

func (a *app) cleanupCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "cleanup",
		Short: "remove all that is ours; refuses while the daemon runs",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			steps, err := daemon.Cleanup(c.Context(), a.options())
			if len(steps) == 0 && err != nil {
				return err
			}
			return errors.Join(a.printSteps(steps, "nothing of ours was there"), err)
		},
	})
}

// printSteps prints commands. What there is to say about none goes to stderr.
func (a *app) printSteps(steps []string, none string) error {
	if a.json {
		return a.out.json(api.Steps{Schema: api.Schema, Steps: list(steps)})
	}
	for _, s := range steps {
		fmt.Fprintln(a.out.w, safeLines(s))
	}
	if len(steps) == 0 {
		fmt.Fprintln(a.errs, none)
	}
	return nil
}

func (a *app) labCommand() *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:   "lab",
		Short: "a small internet in namespaces, with all of this at work",
		Long:  "Builds a client, this gateway, an ISP with a lying DNS and an outside world in\nnamespaces of their own, runs the real daemon in the gateway, and shows which\nway each packet went. Nothing outside the namespaces is touched.",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := untilStopped(c.Context())
			defer stop()
			return lab.Demo(ctx, a.out.w, lab.DemoOptions{Keep: keep})
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "leave it up until Ctrl-C, and say how to get a shell in it")
	return c
}

func (a *app) versionCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "version",
		Short: "which version this is",
		Args:  usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.out.json(api.Version{Schema: api.Schema, Version: version(), Go: runtime.Version()})
			}
			a.out.line("smartdns "+version(), "")
			return nil
		},
	})
}

// no is errNo unless yes.
func no(yes bool) error {
	if yes {
		return nil
	}
	return errNo
}
