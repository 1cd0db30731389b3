package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"smartdns/daemon"
	"smartdns/web/api"
)

// The commands of this file ask the daemon.

func (a *app) queryCommand() *cobra.Command {
	var from string
	c := a.withJSON(&cobra.Command{
		Use:   "query NAME [TYPE]",
		Short: "resolve and explain, every station; marks like a real query",
		Args:  takes(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			qtype := "A"
			if len(args) == 2 {
				qtype = args[1]
			}
			d, err := a.client().Query(c.Context(), args[0], qtype, from)
			if err != nil {
				return err
			}
			return errors.Join(show(a, d, a.out.decision), no(d.RCode == "NOERROR"))
		},
	})
	c.Flags().StringVar(&from, "from", "", "ask as the client at this `ADDR`")
	return c
}

func (a *app) routeCommand() *cobra.Command {
	var from string
	c := a.withJSON(&cobra.Command{
		Use:   "route ADDR|NAME",
		Short: "which way, and why; what the kernel itself says",
		Args:  takes(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.client().Route(c.Context(), args[0], from)
			if err != nil {
				return err
			}
			return errors.Join(show(a, r, a.out.route), no(len(r.Answers) > 0))
		},
	})
	c.Flags().StringVar(&from, "from", "", "as what the client at this `ADDR` sends")
	return c
}

func (a *app) statusCommand() *cobra.Command {
	var quiet bool
	c := a.withJSON(&cobra.Command{
		Use:   "status",
		Short: "is it fine? tunnels, sides, lists, sets",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.client().Status(c.Context())
			if errors.Is(err, api.ErrNoDaemon) && daemon.Closed(c.Context(), a.options()) {
				s, err = daemon.StatusWithout(version()), nil
			}
			if err != nil {
				return err
			}
			if !quiet {
				err = show(a, s, func(s api.Status) { a.out.status(s, time.Now()) })
			}
			return errors.Join(err, no(s.Fine))
		},
	})
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing; the exit code answers")
	return c
}

func (a *app) marksCommand() *cobra.Command {
	c := a.withJSON(&cobra.Command{
		Use:   "marks",
		Short: "addresses tied to their path, and for how long",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			m, err := a.client().Marks(c.Context())
			if err != nil {
				return err
			}
			return show(a, m, a.out.marks)
		},
	})
	c.AddCommand(a.withJSON(&cobra.Command{
		Use:   "forget ADDR",
		Short: "untie an address; the next answer with it ties it again",
		Args:  takes(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := a.client().Forget(c.Context(), args[0])
			if err != nil {
				return err
			}
			return show(a, d, a.out.done)
		},
	}))
	return c
}

func (a *app) reloadCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "reload",
		Short: "read the configuration again; a bad one changes nothing",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client().Reload(c.Context())
			if err != nil {
				return err
			}
			return show(a, d, a.out.done)
		},
	})
}

func (a *app) restartCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "restart",
		Short: "run the program on disk in place of this one; no query is lost",
		Long:  "Has the daemon replaced by the program that is where it was started from, with\nthe file as it is now: after an upgrade, or a change that reload refuses. Both\nare tried first, and what does not work changes nothing. The process number\nstays; queries wait for the new program, with the cache, the verdicts, the\ntunnels and all marks as they were.",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.client().Restart(c.Context())
			if err != nil {
				return err
			}
			return show(a, api.Done{Schema: api.Schema, Text: "restarted: smartdns " + s.Version}, a.out.done)
		},
	})
}
