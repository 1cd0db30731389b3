package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"smartdns/web/api"
)

func (a *app) verdictsCommand() *cobra.Command {
	list := func(c *cobra.Command, args []string) error {
		suffix := ""
		if len(args) > 0 {
			suffix = args[0]
		}
		v, err := a.client().Verdicts(c.Context(), suffix)
		if err != nil {
			return err
		}
		return show(a, v, a.out.verdicts)
	}
	done := func(d api.Done, err error) error {
		if err != nil {
			return err
		}
		return show(a, d, a.out.done)
	}
	var suffix string
	var all bool
	forget := a.withJSON(&cobra.Command{
		Use:   "forget NAME | --suffix SUFFIX | --all",
		Short: "drop a verdict, so that the name is judged again",
		Long:  "Drops the verdict for NAME, learned or pinned; or all that was learned about\nSUFFIX and the names under it, or about every name, without the pins.",
		Args:  takes(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			ways := len(args)
			if c.Flags().Changed("suffix") {
				ways++
			}
			if all {
				ways++
				suffix = "."
			}
			switch {
			case ways != 1 || len(args) == 0 && suffix == "":
				return usageError{errors.New("say one of NAME, --suffix SUFFIX and --all")}
			case len(args) == 1:
				return done(a.client().ForgetVerdict(c.Context(), args[0]))
			}
			return done(a.client().ForgetVerdicts(c.Context(), suffix))
		},
	})
	forget.Flags().StringVar(&suffix, "suffix", "", "what was learned about `SUFFIX` and the names under it")
	forget.Flags().BoolVar(&all, "all", false, "what was learned about every name")

	c := a.withJSON(&cobra.Command{
		Use:   "verdicts",
		Short: "what auto learned about names in no list; pin or forget it",
		Args:  usage(cobra.NoArgs),
		RunE:  list,
	})
	c.AddCommand(
		a.withJSON(&cobra.Command{
			Use:   "list [SUFFIX]",
			Short: "every verdict, or those for SUFFIX and the names under it",
			Args:  takes(0, 1),
			RunE:  list,
		}),
		a.withJSON(&cobra.Command{
			Use:       "pin NAME home|abroad",
			Short:     "decide about NAME yourself, until you forget it",
			Args:      takes(2, 2),
			ValidArgs: []string{"home", "abroad"},
			RunE: func(c *cobra.Command, args []string) error {
				return done(a.client().Pin(c.Context(), args[0], args[1]))
			},
		}),
		forget,
	)
	return c
}

// verdicts prints a row per name.
func (p printer) verdicts(v api.Verdicts) {
	if len(v.Verdicts) == 0 {
		fmt.Fprintln(p.w, "no verdicts: nothing was asked that is in no list, or everything was forgotten")
		return
	}
	for _, x := range v.Verdicts {
		right := "learned " + long(x.Age) + " ago"
		if x.Pinned {
			right = "pinned " + long(x.Age) + " ago"
		}
		p.line(pad(x.Region, 8)+x.Name, p.faint(right))
		text := counted(int(x.Hits), "hit", "hits")
		if x.Confirmed > 0 {
			text += fmt.Sprintf(", confirmed %d×", x.Confirmed)
		}
		if !x.Pinned {
			text = x.Why + "; " + text
		}
		p.line("        "+p.faint(text), "")
	}
	fmt.Fprintln(p.w, p.faint(counted(len(v.Verdicts), "verdict", "verdicts")+fmt.Sprintf("; all take %s of %s", sizeText(int64(v.Bytes)), sizeText(int64(v.Limit)))))
}
