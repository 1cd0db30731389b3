package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"smartdns/daemon"
)

// The commands of this file do what those of wg(8) do, for hosts without it.

func (a *app) genkeyCommand() *cobra.Command {
	return a.keyCommand("genkey", "a new WireGuard private key", "Prints a new private key, as wg genkey does:\n\n  umask 077; smartdns genkey | tee private.key | smartdns pubkey", daemon.WritePrivateKey)
}

func (a *app) genpskCommand() *cobra.Command {
	return a.keyCommand("genpsk", "a new WireGuard preshared key", "Prints a new preshared key, as wg genpsk does: both ends have the same.", daemon.WritePresharedKey)
}

func (a *app) keyCommand(name, short, long string, write func(io.Writer) error) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: short,
		Long:  long,
		Args:  usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if f, ok := a.out.w.(*os.File); ok && readableByAll(f) {
				fmt.Fprintln(a.errs, "smartdns: everybody can read that file: set umask 077 and make another key")
			}
			return write(a.out.w)
		},
	}
}

func (a *app) pubkeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pubkey",
		Short: "the public key of the private one on standard input",
		Long:  "Reads a private key from standard input and prints its public half, as\nwg pubkey does:\n\n  smartdns pubkey < private.key",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return daemon.WritePublicKey(a.out.w, c.InOrStdin())
		},
	}
}

// readableByAll reports whether f is a file that other users can read.
func readableByAll(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0
}
