package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"smartdns/daemon"
)

func (a *app) lockdownCommand() *cobra.Command {
	fromConfig := false
	c := a.withJSON(&cobra.Command{
		Use:   "lockdown",
		Short: "close the kill switch without the daemon; down opens it",
		Long: "Lets nothing out but to the LAN, before there is a network or a daemon. run\n" +
			"takes over from it without a gap; only `smartdns down` opens it. With\n" +
			"--from-config, for a unit before network-pre.target, it does nothing where\n" +
			"[routing] strict is false; a configuration that cannot be read closes it.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			steps, closed, err := daemon.Lockdown(c.Context(), a.options(), fromConfig)
			none := "the kill switch is closed already"
			if !closed {
				none = "[routing] strict is false: the kill switch is off"
			}
			if err != nil && len(steps) == 0 {
				return err
			}
			if err := a.printSteps(steps, none); err != nil {
				return err
			}
			if closed && !a.json && len(steps) > 0 {
				fmt.Fprintln(a.errs, "the kill switch is closed: nothing leaves but to the LAN")
			}
			return err
		},
	})
	c.Flags().BoolVar(&fromConfig, "from-config", false, "only if the configuration says [routing] strict = true")
	return c
}
