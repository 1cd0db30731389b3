package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"smartdns/daemon"
	"smartdns/web/api"
)

func (a *app) doctorCommand() *cobra.Command {
	var bundle string
	c := a.withJSON(&cobra.Command{
		Use:   "doctor",
		Short: "what on this host would get in the way, and the fix",
		Long:  "Looks for what on this host would get in the way: firewalls and rules of others,\nwho has port 53, what the kernel lacks, the configuration, lists, files of keys,\nthe clock, disk and memory; and says what the kernel was seen to do. Below each\nfinding is a command or a line of the file that mends it. Changes nothing, and\nneeds no daemon. Exit 1 if a finding breaks something. With --bundle, all\nthat somebody who helps has to know is written into a file, without keys and\npasswords.",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if bundle == "" {
				d := daemon.Doctor(c.Context(), a.options())
				return errors.Join(show(a, d, a.out.diagnosis), no(d.Fine))
			}
			d, err := daemon.Bundle(c.Context(), a.options(), bundle)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.errs, "wrote "+bundle+": no keys are in it, but addresses and names are; look before you pass it on")
			return errors.Join(show(a, d, a.out.diagnosis), no(d.Fine))
		},
	})
	c.Flags().StringVar(&bundle, "bundle", "", "also write `FILE`, a tar.gz of status, plan, rules, parameters and files without secrets")
	_ = c.MarkFlagFilename("bundle")
	return c
}

// diagnosis prints each finding with its fix below it.
func (p printer) diagnosis(d api.Diagnosis) {
	for _, f := range d.Findings {
		p.condition(api.Condition{Severity: f.Severity, What: f.What, Fix: f.Fix})
	}
	if len(d.Findings) == 0 {
		p.line(p.good("fine"), "")
	}
	var has []string
	for _, f := range d.Kernel {
		if f.Has {
			has = append(has, f.Name)
		}
	}
	if len(has) > 0 {
		p.row("here are", strings.Join(has, ", "), "")
	}
	for _, f := range d.Kernel {
		if !f.Has && f.Note != "" {
			p.row("no", f.Name+": "+f.Note, "")
		}
	}
}
