package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"smartdns/daemon"
	"smartdns/web/api"
)

// The commands of this file make this host the far end of a tunnel.

func (a *app) peerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "peer",
		Short: "be the far end: the exit of clients, with files and QR codes",
		Long:  "Makes this host the exit of WireGuard clients: forwarding, translation of their\naddresses, what they may reach and the way back to them, all from one wg-quick\nfile, and all taken back by peer down. FILE is a path or a name of\n/etc/wireguard.",
		Args:  usage(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.peerUpCommand(), a.peerRunCommand(), a.peerDownCommand(), a.peerAddCommand(), a.peerRemoveCommand(), a.peerListCommand(), a.peerQRCommand())
	return c
}

// exitFlags are those of up and run.
func exitFlags(c *cobra.Command) func() (daemon.PeerOptions, error) {
	var p daemon.PeerOptions
	var snat []string
	c.Flags().StringSliceVar(&p.LAN, "lan", nil, "`IFACE` whose network and the clients may reach each other; may be repeated")
	c.Flags().StringSliceVar(&snat, "snat", nil, "`ADDR` that clients leave with, at most one per family, instead of the interface's own")
	c.Flags().BoolVar(&p.Hooks, "hooks", false, "run PreUp, PostUp, PreDown and PostDown of FILE")
	return func() (daemon.PeerOptions, error) {
		var err error
		p.SNAT, err = parseAll(snat, "--snat", netip.ParseAddr)
		return p, err
	}
}

// parseAll reads the values of a flag.
func parseAll[T any](words []string, flag string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for _, w := range words {
		v, err := parse(strings.TrimSpace(w))
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", flag, err)}
		}
		all = append(all, v)
	}
	return all, nil
}

// asExit gives c the flags of an exit, and has it do what is to be done with the
// FILE and them.
func asExit(c *cobra.Command, do func(ctx context.Context, file string, p daemon.PeerOptions) error) *cobra.Command {
	options := exitFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := options()
		if err != nil {
			return err
		}
		return do(c.Context(), args[0], p)
	}
	return c
}

func (a *app) peerUpCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "up FILE",
		Short: "be the exit of the clients in FILE, with the kernel's WireGuard",
		Long:  "Makes the WireGuard link of FILE with its addresses and the routes to what is\nbehind its peers, forwards what they send to the Internet with this host's own\naddress, and keeps them from its private neighbours. Once more, it brings what\nis up to what FILE says now, and mends what others changed. It needs the\nkernel's WireGuard; where there is none, `smartdns peer run` has a device of\nits own.",
		Args:  takes(1, 1),
	}
	return asExit(c, func(ctx context.Context, file string, p daemon.PeerOptions) error {
		return daemon.PeerUp(ctx, a.quickOptions(), file, p)
	})
}

func (a *app) peerRunCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run FILE",
		Short: "the same in the foreground, on any kernel",
		Long:  "Does what peer up does, with the kernel's WireGuard or, where there is none, a\ndevice of its own, keeps it so, and takes it back at SIGTERM. SIGHUP reads FILE\nagain. Tells systemd (sd_notify) when it is ready.",
		Args:  takes(1, 1),
	}
	return asExit(c, func(ctx context.Context, file string, p daemon.PeerOptions) error {
		ctx, stop := untilStopped(ctx)
		defer stop()
		return daemon.PeerRun(ctx, a.options(), file, p)
	})
}

func (a *app) peerDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down [NAME|FILE]",
		Short: "take back what peer up made, or stop peer run",
		Args:  takes(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			steps, pid, err := daemon.PeerDown(c.Context(), a.quickOptions(), strings.Join(args, ""), nil)
			switch {
			case err != nil:
				return err
			case pid != 0:
				fmt.Fprintf(a.errs, "the far end's process (pid %d) has stopped\n", pid)
			case len(steps) == 0:
				fmt.Fprintln(a.errs, "nothing of it was there")
			}
			return nil
		},
	}
}

func (a *app) peerAddCommand() *cobra.Command {
	var n daemon.NewPeer
	var addresses, lan, allowed, dns []string
	var code bool
	c := &cobra.Command{
		Use:   "add NAME [FILE]",
		Short: "a new client: keys, its section in FILE, its own file, a QR code",
		Long:  "Makes keys for a client, gives it the next free address of each network of\nFILE's Address, adds its section at the end of FILE and, where that is up, to\nthe device, without touching the sessions of others. Writes the client's\nwg-quick file, which nobody else can read, and prints it as a QR code for the\nWireGuard app of a phone. Without FILE it is the far end that is up.",
		Args:  takes(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			n.Name = args[0]
			n.File = strings.Join(args[1:], "")
			var err error
			if n.Addresses, err = parseAll(addresses, "--address", netip.ParseAddr); err != nil {
				return err
			}
			if n.LAN, err = parseAll(lan, "--lan", netip.ParsePrefix); err != nil {
				return err
			}
			if n.Allowed, err = parseAll(allowed, "--allowed-ips", netip.ParsePrefix); err != nil {
				return err
			}
			if n.DNS = dns; len(dns) == 1 && dns[0] == "none" {
				n.DNS = []string{}
			}
			added, err := daemon.PeerAdd(c.Context(), a.quickOptions(), n)
			if err != nil {
				return err
			}
			return a.peerAdded(n.Name, added, code)
		},
	}
	f := c.Flags()
	f.StringVar(&n.Endpoint, "endpoint", "", "`HOST[:PORT]` where clients find this host; PORT is FILE's ListenPort if not given")
	f.StringSliceVar(&addresses, "address", nil, "`ADDR` of the client in the tunnel; the next that is free if not given")
	f.StringSliceVar(&lan, "lan", nil, "`PREFIX` of a network behind the client; may be repeated")
	f.StringSliceVar(&allowed, "allowed-ips", nil, "`PREFIX` that the client sends into the tunnel; everything if not given")
	f.StringSliceVar(&dns, "dns", nil, "`ADDR` that the client asks for names, or none; public servers if not given")
	f.StringVarP(&n.Out, "out", "o", "", "the client's `FILE`; NAME.conf if not given")
	f.BoolVar(&code, "qr", true, "print the QR code; --qr=false does not")
	return c
}

// peerAdded says what became of a new client, and shows its file to a phone.
func (a *app) peerAdded(name string, added daemon.AddedPeer, code bool) error {
	var has []string
	for _, p := range added.Allowed {
		has = append(has, p.String())
	}
	fmt.Fprintf(a.errs, "%s has %s; its file is %s\n", name, strings.Join(has, ", "), added.Out)
	if !added.Live {
		fmt.Fprintf(a.errs, "the far end is not up, or not by us: %s has the client\n", added.File)
	}
	if !code {
		return nil
	}
	fmt.Fprintln(a.errs, "whoever sees this code has its key:")
	if err := a.out.printQR(terse(string(added.Client))); err != nil {
		return fmt.Errorf("%w; then write smartdns peer qr %s", err, added.Out)
	}
	return nil
}

func (a *app) peerRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME|KEY [FILE]",
		Short: "take a client, by name or public key, out of FILE and the device",
		Args:  takes(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			file, live, err := daemon.PeerRemove(c.Context(), a.quickOptions(), args[0], strings.Join(args[1:], ""), nil)
			if err != nil {
				return err
			}
			from := file
			if live {
				from += " and the device"
			}
			fmt.Fprintf(a.errs, "%s is no longer in %s\n", args[0], from)
			return nil
		},
	}
}

func (a *app) peerListCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "list [NAME|FILE]",
		Short: "the far ends that are up, and their clients",
		Args:  takes(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			v, err := daemon.PeerList(a.options(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			if len(v.FarEnds) == 0 && !a.json {
				fmt.Fprintln(a.errs, "no far end is up")
			}
			return show(a, v, a.out.farEnds)
		},
	})
}

func (a *app) peerQRCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "qr FILE",
		Short: "a client's wg-quick file as a QR code for the WireGuard app",
		Args:  takes(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := daemon.ReadClientFile(args[0])
			if err != nil {
				return err
			}
			return a.out.printQR(terse(string(text)))
		},
	}
}

func (p printer) farEnds(v api.FarEnds) {
	for _, e := range v.FarEnds {
		state := p.bad("down")
		if e.Up {
			state = p.good("up") + ", " + e.Device
			if e.PID != 0 {
				state += fmt.Sprintf(", process %d", e.PID)
			}
		}
		p.line(p.bold(e.Name)+"  "+state, e.File)
		for _, c := range e.Clients {
			var has []string
			for _, a := range c.AllowedIPs {
				has = append(has, a.String())
			}
			seen := "never seen"
			if c.Handshake != nil {
				seen = fmt.Sprintf("%s, handshake %s ago, %s in, %s out", c.Endpoint, time.Since(*c.Handshake).Round(time.Second), sizeText(c.Received), sizeText(c.Sent))
			}
			p.row(cmp.Or(c.Name, c.PublicKey[:min(4, len(c.PublicKey))]+"…"), strings.Join(has, ", "), "")
			if e.Up {
				p.row("", seen, "")
			}
		}
	}
}
