package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// The commands of this file ask the daemon.

func (a *app) queryCommand() *cobra.Command {
	var from string
	c := a.withJSON(&cobra.Command{
		Use:   "query NAME [TYPE]",
		Short: "resolve and explain, every station; marks like a real query",
		Args:  usage(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, args []string) error {
			qtype := "A"
			if len(args) == 2 {
				qtype = args[1]
			}
			d, err := a.client().Query(c.Context(), args[0], qtype, from)
			if err != nil {
				return err
			}
			if a.json {
				return errors.Join(a.out.json(d), no(d.RCode == "NOERROR"))
			}
			a.out.decision(d)
			return no(d.RCode == "NOERROR")
		},
	})
	c.Flags().StringVar(&from, "from", "", "ask as the client at this `ADDR`")
	return c
}

func (a *app) routeCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "route ADDR|NAME",
		Short: "which way, and why; what the kernel itself says",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.client().Route(c.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				return errors.Join(a.out.json(r), no(len(r.Answers) > 0))
			}
			a.out.route(r)
			return no(len(r.Answers) > 0)
		},
	})
}

func (a *app) statusCommand() *cobra.Command {
	var quiet bool
	c := a.withJSON(&cobra.Command{
		Use:   "status",
		Short: "is it fine? tunnels, sides, lists, sets",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.client().Status(c.Context())
			switch {
			case err != nil:
				return err
			case a.json:
				return errors.Join(a.out.json(s), no(s.Fine))
			case !quiet:
				a.out.status(s)
			}
			return no(s.Fine)
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
			if a.json {
				return a.out.json(m)
			}
			a.out.marks(m)
			return nil
		},
	})
	c.AddCommand(&cobra.Command{
		Use:   "forget ADDR",
		Short: "untie an address; the next answer with it ties it again",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := a.client().Forget(c.Context(), args[0])
			if err == nil {
				a.out.line(d.Text, "")
			}
			return err
		},
	})
	return c
}

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "read the configuration again; a bad one changes nothing",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.client().Reload(c.Context())
			if err == nil {
				a.out.line(d.Text, "")
			}
			return err
		},
	}
}
