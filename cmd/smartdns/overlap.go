package main

import (
	"fmt"

	"smartdns/daemon"
	"smartdns/web/api"
)

// overlaps prints where the lists contradict each other.
func (a *app) overlaps(most int) error {
	v, err := daemon.Overlaps(a.options(), most)
	if err != nil {
		return err
	}
	return show(a, v, func(v api.Overlaps) {
		a.overlapping(v.NameCount, "names are in lists of two sides", v.Names)
		a.overlapping(v.PrefixCount, "prefixes are home by one source and abroad by another", v.Prefixes)
	})
}

func (a *app) overlapping(count int, what string, first []api.Overlap) {
	a.out.line(fmt.Sprintf("%d %s", count, what), "")
	for _, o := range first {
		a.out.line("  "+o.What, "")
		a.out.line("    "+claimText(o.Used), "")
		a.out.line("    "+a.out.faint("not "+claimText(o.Other)), "")
	}
	if left := count - len(first); left > 0 {
		a.out.line(a.out.faint(fmt.Sprintf("  and %d more: --overlaps=%d lists them", left, count)), "")
	}
}

func claimText(c api.Claim) string {
	if c.Entry == "" {
		return c.Says + ": " + c.List
	}
	return fmt.Sprintf("%s: %s in %s", c.Says, c.Entry, c.List)
}
