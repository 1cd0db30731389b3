package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"smartdns/web/api"
)

func (a *app) cacheCommand() *cobra.Command {
	c := a.withJSON(&cobra.Command{
		Use:   "cache",
		Short: "how full the answer cache is; list or flush it",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.client().Cache(c.Context())
			if err != nil {
				return err
			}
			return show(a, s, a.out.cache)
		},
	})
	c.AddCommand(a.cacheListCommand(), a.cacheFlushCommand())
	return c
}

func (a *app) cacheListCommand() *cobra.Command {
	var side, after string
	var limit int
	c := a.withJSON(&cobra.Command{
		Use:   "list [SUFFIX]",
		Short: "what is cached, or what is for SUFFIX and the names under it",
		Args:  takes(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			s := api.CacheSelection{Side: side}
			if len(args) > 0 {
				s.Suffix = args[0]
			}
			if limit < 1 || limit > api.MaxCachePage {
				return usageError{fmt.Errorf("--limit %d: from 1 to %d", limit, api.MaxCachePage)}
			}
			l, err := a.client().CacheList(c.Context(), s, after, limit)
			if err != nil {
				return err
			}
			return show(a, l, a.out.cacheList)
		},
	})
	c.Flags().StringVar(&side, "side", "", "what this `SIDE` said")
	c.Flags().StringVar(&after, "after", "", "the next page: what the last one ended with")
	c.Flags().IntVar(&limit, "limit", 100, "entries on a page, at most 1000")
	return c
}

func (a *app) cacheFlushCommand() *cobra.Command {
	var s api.CacheSelection
	c := a.withJSON(&cobra.Command{
		Use:   "flush [NAME] [--suffix SUFFIX] [--side SIDE] [--all]",
		Short: "forget cached answers, so that they are asked for again",
		Long:  "Forgets what is cached for NAME, or for SUFFIX and the names under it, from one\nside or from every side; or all of one side; or everything.",
		Args:  takes(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				s.Name = args[0]
			}
			some := s.Name != "" || s.Suffix != "" || s.Side != ""
			if some == s.All || s.Name != "" && s.Suffix != "" {
				return usageError{errors.New("say NAME or --suffix SUFFIX, with --side SIDE or without; or --side SIDE; or --all")}
			}
			d, err := a.client().FlushCache(c.Context(), s)
			if err != nil {
				return err
			}
			return show(a, d, a.out.done)
		},
	})
	c.Flags().StringVar(&s.Suffix, "suffix", "", "what is cached for `SUFFIX` and the names under it")
	c.Flags().StringVar(&s.Side, "side", "", "only what this `SIDE` said")
	c.Flags().BoolVar(&s.All, "all", false, "everything")
	return c
}

func (p printer) cache(c api.Cache) {
	of := func(bytes, capacity int) string {
		return sizeText(int64(bytes)) + " of " + sizeText(int64(capacity))
	}
	p.row("answers", counted(c.Entries, "entry", "entries")+" by side", of(c.Bytes, c.Capacity))
	p.row("sealed", counted(c.Sealed.Entries, "answer", "answers")+" of the fast lane", of(c.Sealed.Bytes, c.Sealed.Capacity))
	p.row("asked", fmt.Sprintf("%d hits, %d misses", c.Hits, c.Misses), "not counting the fast lane")
	p.row("evicted", fmt.Sprintf("%d by side, %d sealed", c.Evicted, c.Sealed.Evicted), "")
	p.row("stale", counted(int(c.Stale), "answer", "answers")+" given after they expired", "")
	p.row("prefetched", counted(int(c.Prefetches), "answer", "answers")+" before they expired", "")
}

func (p printer) cacheList(l api.CacheList) {
	if len(l.Entries) == 0 {
		p.line("nothing of that is cached", "")
		return
	}
	for _, e := range l.Entries {
		left := long(e.Left) + " left"
		if e.Left <= 0 {
			left = "ended " + long(-e.Left) + " ago"
		}
		side := e.Side
		switch side {
		case "":
			side = "a side of before"
		case "judge":
			side = "foreign, to judge the region"
		}
		flags := ""
		if e.DO {
			flags += " +do"
		}
		if e.CD {
			flags += " +cd"
		}
		p.line(e.Name+" "+e.Type+flags, p.faint(e.Kind+", "+left))
		p.line("        "+p.faint(fmt.Sprintf("%s, %s old, %d B", side, long(e.Age), e.Bytes)), "")
	}
	if l.Next != "" {
		p.line(p.faint("more: add --after "+l.Next), "")
	}
}
