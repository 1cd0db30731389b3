package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"smartdns/daemon"
	"smartdns/web/api"
)

func (a *app) listsCommand() *cobra.Command {
	c := a.withJSON(&cobra.Command{
		Use:   "lists",
		Short: "data lists: age, size, source; update, compare or go back",
		Long:  "Shows every list of the file: what is in it, where it is from, how old it is,\nwhen it is asked for again and what went wrong. Works without the daemon.",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := a.client().Lists(c.Context())
			if errors.Is(err, api.ErrNoDaemon) {
				l, err = daemon.Lists(a.options())
			}
			if err != nil {
				return err
			}
			return show(a, l, func(l api.Lists) { a.out.lists(l, time.Now()) })
		},
	})
	c.AddCommand(a.listsUpdateCommand(), a.listsDiffCommand(), a.withJSON(&cobra.Command{
		Use:   "rollback NAME",
		Short: "use the previous content of a list again",
		Args:  takes(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := a.client().RollbackList(c.Context(), args[0])
			if err != nil {
				return err
			}
			return show(a, d, a.out.done)
		},
	}))
	return c
}

func (a *app) listsUpdateCommand() *cobra.Command {
	var force bool
	c := a.withJSON(&cobra.Command{
		Use:   "update [NAME...] [--force]",
		Short: "fetch lists now, all or those named",
		Long:  "Fetches lists and waits until what they have then is in use. Exit 1 when one\nfailed: it keeps the content that it had.",
		Args:  usage(cobra.ArbitraryArgs),
		RunE: func(c *cobra.Command, args []string) error {
			bars := a.followDownloads(c.Context())
			u, err := a.client().UpdateLists(c.Context(), args, force)
			bars()
			if err != nil {
				return err
			}
			failed := false
			for _, l := range u.Updates {
				failed = failed || l.Error != ""
			}
			return errors.Join(show(a, u, a.out.updates), no(!failed))
		},
	})
	c.Flags().BoolVar(&force, "force", false, "take contents that are much smaller, larger or older, too")
	return c
}

func (a *app) listsDiffCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "diff NAME",
		Short: "what the last update changed, and which names turned",
		Long:  "Compares a list with its previous content, and says which of the names in the\ncache another line of [decide] decides now.",
		Args:  takes(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := a.client().DiffList(c.Context(), args[0])
			if err != nil {
				return err
			}
			return show(a, d, a.out.listDiff)
		},
	})
}

// lists prints two rows or more per list.
func (p printer) lists(all api.Lists, now time.Time) {
	for _, l := range all.Lists {
		kind := l.Kind
		if l.Format != "" && l.Format != l.Kind {
			kind += " (" + l.Format + ")"
		}
		var what []string
		if kind != "" {
			what = append(what, kind, counted(l.Entries, "entry", "entries"))
		} else if l.Fetched == nil {
			what = append(what, "not in use")
		} else {
			what = append(what, "not fetched yet")
		}
		if l.Dropped > 0 {
			what = append(what, fmt.Sprintf("%d dropped", l.Dropped))
		}
		f := l.Fetched
		age := ""
		if f != nil && f.From != "" {
			what = append(what, sizeText(f.Size))
			age = ago(f.At, now)
		}
		p.line(p.bold(pad(l.Name, 20))+strings.Join(what, ", "), p.faint(age))
		if f == nil {
			p.row("source", l.Source, "")
		} else {
			p.fetched(f, now)
		}
		if l.Error != "" && (f == nil || f.Failure == nil || f.Failure.Problem == "") {
			p.row("error", p.bad(l.Error), "")
		}
	}
}

func (p printer) fetched(f *api.Fetched, now time.Time) {
	from := f.From
	if from == "" && len(f.URLs) > 0 {
		from = f.URLs[0]
	}
	p.row("source", from, "via "+f.Via)
	next := "in " + long(api.Since(f.Next.Sub(now)))
	switch {
	case f.Progress != nil:
		next = "under way: " + sizeText(f.Progress.Received)
	case f.Waiting:
		next = "when " + f.Via + " is up"
	case !f.Next.After(now):
		next = "now"
	}
	checked := "never"
	if !f.Checked.IsZero() {
		checked = ago(f.Checked, now)
	}
	p.row("checked", checked, "next "+next)
	if f.Held {
		p.row("", "the newest content is left out: somebody went back from it", "")
	}
	if x := f.Failure; x != nil {
		for line := range strings.Lines(x.Text) {
			p.row("error", p.bad(strings.TrimSpace(line)), "")
		}
		if x.Gated {
			p.row("", "→ to take it all the same, add --force to smartdns lists update", "")
		}
		if x.Problem != "" {
			p.row("problem", p.bad(x.Problem), "")
		}
	}
}

func ago(t, now time.Time) string { return long(api.Since(max(0, now.Sub(t)))) + " ago" }

func (p printer) updates(u api.ListUpdates) {
	if len(u.Updates) == 0 {
		p.line("no list is fetched: write url into a [list.NAME] of the file", "")
	}
	for _, l := range u.Updates {
		what, paint := "unchanged", p.faint
		switch {
		case l.Error != "":
			what, paint = "failed", p.bad
		case l.Changed:
			what, paint = "updated", p.good
		}
		right := ""
		if l.Entries > 0 {
			right = counted(l.Entries, "entry", "entries")
		}
		p.line(pad(l.Name, 20)+paint(what), right)
		for line := range strings.Lines(l.Error) {
			p.row("error", strings.TrimSpace(line), "")
		}
		if l.Gated {
			p.row("", "→ to take it all the same: smartdns lists update "+l.Name+" --force", "")
		}
	}
}

// fewEntries is how many entries of each kind are printed.
const fewEntries = 20

func (p printer) listDiff(d api.ListDiff) {
	date := func(t time.Time) string { return t.Local().Format(time.DateTime) }
	p.line(p.bold(d.Name), p.faint(date(d.Before)+" → "+date(d.Now)))
	p.changes("added", d.Adds, d.Added, p.good)
	p.changes("removed", d.Removes, d.Removed, p.bad)
	if d.Examined == 0 {
		return
	}
	p.row("turned", fmt.Sprintf("%d of %d cached names", len(d.Sides), d.Examined), "")
	for _, s := range d.Sides[:min(len(d.Sides), fewEntries)] {
		right := ""
		if s.Often {
			right = "asked for often"
		}
		p.row("", fmt.Sprintf("%s: %s → %s", s.Name, s.Before, s.Now), right)
	}
	p.rest(len(d.Sides))
}

func (p printer) changes(label string, n int, some []string, paint func(string) string) {
	p.row(label, counted(n, "entry", "entries"), "")
	for _, text := range some[:min(len(some), fewEntries)] {
		p.row("", paint(text), "")
	}
	p.rest(n)
}

func (p printer) rest(n int) {
	if n > fewEntries {
		p.row("", p.faint(fmt.Sprintf("and %d more (--json has them)", n-fewEntries)), "")
	}
}
