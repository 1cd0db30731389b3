package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"smartdns/daemon"
)

// The commands of this file do what wg-quick's do.

func (a *app) upCommand() *cobra.Command {
	u := daemon.UpOptions{}
	c := &cobra.Command{
		Use:   "up [TUNNEL|FILE]",
		Short: "tunnel, routes and sets, and no resolver, as wg-quick",
		Long: "Brings up the tunnels and the policy of the configuration, or one wg-quick file\n" +
			"as it stands: a path, or a name of /etc/wireguard. It needs the kernel's\nWireGuard; where there is none, only `smartdns run` can have a tunnel.",
		Args: takes(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				u.Quick = args[0]
			}
			return daemon.Up(c.Context(), a.quickOptions(), u)
		},
	}
	c.Flags().BoolVar(&u.Hooks, "hooks", false, "run PreUp, PostUp, PreDown and PostDown of FILE")
	return c
}

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "take back what up made, or stop the daemon",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			steps, pid, err := daemon.Down(c.Context(), a.quickOptions())
			if a.verbose {
				for _, s := range steps {
					fmt.Fprintln(a.errs, "[#] "+safeLines(s))
				}
			}
			switch {
			case err != nil:
				return err
			case pid != 0:
				fmt.Fprintf(a.errs, "the daemon (pid %d) has stopped\n", pid)
			case len(steps) == 0:
				fmt.Fprintln(a.errs, "nothing of ours was there")
			}
			return nil
		},
	}
}

func (a *app) saveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "save [TUNNEL|FILE]",
		Short: "write the running configuration of a tunnel into its wg-quick file",
		Long:  "Writes what the device has into the wg-quick file, in one step. As with\nwg-quick the keys get an order of their own; comments stay where they are whole\nlines.",
		Args:  takes(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := daemon.Save(c.Context(), a.quickOptions(), strings.Join(args, ""))
			if err == nil {
				fmt.Fprintln(a.errs, "saved "+path)
			}
			return err
		},
	}
}

func (a *app) stripCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "strip [TUNNEL|FILE]",
		Short: "what `wg setconf` takes of a wg-quick file; prints its keys",
		Args:  takes(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := daemon.Strip(a.options(), strings.Join(args, ""))
			if err == nil {
				_, err = io.WriteString(a.out.w, text)
			}
			return err
		},
	}
}

// quickOptions are options whose log is for people: with -v every step, in
// wg-quick's form.
func (a *app) quickOptions() daemon.Options {
	o := a.options()
	o.Log = slog.New(stepLog{a.errs, a.verbose})
	return o
}

// stepLog prints steps as they are, and what is wrong as a sentence.
type stepLog struct {
	w       io.Writer
	verbose bool
}

// Enabled implements slog.Handler.
func (l stepLog) Enabled(_ context.Context, at slog.Level) bool {
	return l.verbose || at >= slog.LevelWarn
}

// Handle implements slog.Handler.
func (l stepLog) Handle(_ context.Context, r slog.Record) error {
	text := safeLines(r.Message)
	if !strings.HasPrefix(text, "[#] ") {
		if r.Level < slog.LevelInfo {
			return nil
		}
		text = "smartdns: " + text
	}
	_, err := fmt.Fprintln(l.w, text)
	if err != nil {
		return errors.New("printing a step")
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (l stepLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l stepLog) WithGroup(string) slog.Handler { return l }
