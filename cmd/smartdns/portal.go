package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"smartdns/web/api"
)

func (a *app) portalCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "portal TIME|off",
		Short: "open the kill switch for a network's login page, for 1m to 30m",
		Long: "For that time the names of this host are asked of the network's own resolver,\n" +
			"and this host reaches, at TCP 80 and 443, the network's routers and the\n" +
			"addresses in those answers. LAN clients stay closed in. The kernel closes it\n" +
			"by itself, also when the daemon is gone by then.",
		Example: "  smartdns portal 10m",
		Args:    takes(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.client().Portal(c.Context(), args[0])
			if err != nil {
				return err
			}
			return show(a, p, func(p api.Portal) { a.out.portal(p, time.Now()) })
		},
	})
}

func (p printer) portal(o api.Portal, now time.Time) {
	if !o.Open {
		p.row("portal", "closed", "")
		return
	}
	p.row("portal", p.bad("open")+" for this host: TCP 80 and 443 of "+join(o.Addrs), "closes in "+long(api.Since(max(0, o.Until.Sub(now)))))
	p.row("", fmt.Sprintf("its names are asked of %s", join(o.Resolvers)), "")
}

// killSwitch prints how the kill switch is, unless it is off.
func (p printer) killSwitch(k api.KillSwitch, now time.Time) {
	if k.State == "off" || k.State == "" {
		return
	}
	paint := p.bad
	if k.State == "secured" {
		paint = p.good
	}
	p.row("kill switch", paint(k.State), "")
	if k.Portal != nil {
		p.portal(*k.Portal, now)
	}
}
