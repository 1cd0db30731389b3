package main

import (
	"context"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"smartdns/web/api"
)

// followDownloads draws a bar for each list that the daemon fetches, where
// somebody sees it, until the function that it returns is called.
func (a *app) followDownloads(ctx context.Context) (done func()) {
	f, ok := a.errs.(*os.File)
	if !ok || a.json || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := bars{progress: mpb.NewWithContext(ctx, mpb.WithOutput(f), mpb.WithWidth(width/2)), all: map[string]*mpb.Bar{}}
		defer b.progress.Wait()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		client := a.client()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if l, err := client.Lists(ctx); err == nil {
				b.draw(cleaned(l))
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// bars is one for each list that is, or was, under way.
type bars struct {
	progress *mpb.Progress
	all      map[string]*mpb.Bar
}

func (b *bars) draw(all api.Lists) {
	for _, l := range all.Lists {
		bar := b.all[l.Name]
		var p *api.ListProgress
		if l.Fetched != nil {
			p = l.Fetched.Progress
		}
		switch {
		case p == nil && bar != nil:
			bar.SetTotal(-1, true) // what has come is all
		case p == nil:
		default:
			if bar == nil {
				bar = b.progress.AddBar(0,
					mpb.PrependDecorators(decor.Name(pad(l.Name, 20))),
					mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
				b.all[l.Name] = bar
			}
			bar.SetTotal(p.Total, false)
			bar.SetCurrent(p.Received)
		}
	}
}
