package main

import (
	"errors"
	"fmt"
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
		Long:  "Runs the daemon in the foreground. Tells systemd (sd_notify) when DNS answers and\nthe routes are in place. SIGTERM stops it and removes all that is ours; SIGHUP\nreads the configuration again.",
		Args:  usage(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return daemon.Run(c.Context(), a.options()) },
	}
}

func (a *app) checkCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "check [FILE]",
		Short: "what is wrong with the configuration and its lists, and where",
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.config = args[0]
			}
			r, err := daemon.Check(a.options())
			if a.json {
				v := checked{Schema: api.Schema, OK: err == nil, File: r.File, Warnings: r.Warnings, Notes: r.Notes}
				if err != nil {
					v.Errors = strings.Split(err.Error(), "\n")
				}
				return errors.Join(a.out.json(v), no(err == nil))
			}
			if err != nil {
				fmt.Fprintln(a.errs, err)
				return errNo
			}
			for _, w := range r.Warnings {
				a.out.line(w, "")
			}
			for _, n := range r.Notes {
				a.out.line(a.out.faint(n), "")
			}
			a.out.line(a.out.good(r.File+": fine"), "")
			return nil
		},
	})
}

// checked is what check --json prints.
type checked struct {
	Schema   int      `json:"schema"`
	OK       bool     `json:"ok"`
	File     string   `json:"file"`
	Errors   []string `json:"errors"`
	Warnings []string `json:"warnings"`
	Notes    []string `json:"notes"`
}

func (a *app) configCommand() *cobra.Command {
	var effective bool
	c := &cobra.Command{
		Use:   "config",
		Short: "every key with its default; with --effective, what is in force",
		Args:  usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if !effective {
				fmt.Fprint(a.out.w, configs.Reference())
				return nil
			}
			cfg, err := daemon.LoadConfig(a.config)
			if err != nil {
				return err
			}
			fmt.Fprint(a.out.w, cfg.Text())
			return nil
		},
	}
	c.Flags().BoolVar(&effective, "effective", false, "print the file with every default filled in")
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
			return a.printSteps(steps)
		},
	})
	c.Flags().BoolVar(&sets, "sets", false, "print the elements of the static sets too")
	return c
}

func (a *app) diffCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "diff",
		Short: "what would change in the kernel now; exit 1 when there is something",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			steps, err := daemon.Diff(c.Context(), a.options())
			if err != nil {
				return err
			}
			return errors.Join(a.printSteps(steps), no(len(steps) == 0))
		},
	})
}

func (a *app) cleanupCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "cleanup",
		Short: "remove everything that is ours from the kernel; refuses while the daemon runs",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			steps, err := daemon.Cleanup(c.Context(), a.options())
			return errors.Join(a.printSteps(steps), err)
		},
	})
}

func (a *app) printSteps(steps []string) error {
	if a.json {
		return a.out.json(api.Steps{Schema: api.Schema, Steps: steps})
	}
	for _, s := range steps {
		fmt.Fprintln(a.out.w, s)
	}
	return nil
}

func (a *app) labCommand() *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:   "lab",
		Short: "a small internet in namespaces on this machine, with all of it working",
		Long:  "Builds a client, this gateway, an ISP with a lying DNS and an outside world in\nnamespaces of their own, runs the real daemon in the gateway, and shows which way\neach packet went. Nothing outside the namespaces is touched.",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return lab.Demo(c.Context(), a.out.w, lab.DemoOptions{Keep: keep})
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
				return a.out.json(map[string]any{"schema": api.Schema, "version": version()})
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
