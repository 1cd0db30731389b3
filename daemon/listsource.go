package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"smartdns/configs"
	"smartdns/geo/update"
	"smartdns/web"
	"smartdns/web/api"
)

// listSource answers the API about lists.
func (e *engine) listSource() web.Lists {
	return web.Lists{
		List: func(context.Context) (api.Lists, error) {
			return api.Lists{Schema: api.Schema, Lists: e.shown.Load().parts.everyList(e.data.updates.Status())}, nil
		},
		Update: e.updateLists, Rollback: e.rollbackList, Diff: e.diffList,
	}
}

// Lists says how every list stands by what is on disk. It works without the
// daemon, and changes nothing.
func Lists(o Options) (api.Lists, error) {
	p, err := Load(o)
	if err != nil {
		return api.Lists{}, err
	}
	return api.Lists{Schema: api.Schema, Lists: p.everyList(update.Look(listsDir(o.Dirs), p.fetched()))}, nil
}

// fetched returns the lists that are fetched, as far as that is known without a
// way to anywhere.
func (p *Parts) fetched() []update.List {
	var all []update.List
	for _, x := range p.Config.Lists {
		if f := x.Fetch; len(f.URLs) > 0 {
			all = append(all, update.List{
				Name: x.Name, URLs: f.URLs, Every: f.Every,
				Proof: update.Proof{SHA256: f.SHA256, SumURL: f.SumURL, Minisign: f.Minisign},
				Path:  update.Path{Name: string(f.Via), Open: func() bool { return true }},
				Check: func(path string) (update.Summary, error) { return p.summary(x, path) },
			})
		}
	}
	return all
}

// everyList returns the lists of the file in its order, those among them that
// nobody uses, and how those that are fetched stand.
func (p *Parts) everyList(fetched []update.Status) []api.List {
	all := []api.List{}
	for _, x := range p.Config.Lists {
		l := api.List{Name: x.Name, Source: x.File}
		if i := slices.IndexFunc(p.Lists, func(r api.List) bool { return r.Name == x.Name }); i >= 0 {
			l = p.Lists[i]
		}
		if l.Source == "" && x.Name == configs.ListCNDomains && len(x.Fetch.URLs) == 0 {
			l.Source = configs.GeoEmbedded
		}
		if i := slices.IndexFunc(fetched, func(s update.Status) bool { return s.Name == x.Name }); i >= 0 {
			l.Fetched = fetchedOf(fetched[i])
			if s := fetched[i].Copy.Version.Summary; l.Kind == "" {
				l.Kind, l.Entries, l.Dropped, l.FirstDropped = s.Kind, s.Entries, s.Dropped, s.First
			}
		}
		all = append(all, l)
	}
	return all
}

func fetchedOf(s update.Status) *api.Fetched {
	v := s.Copy.Version
	f := &api.Fetched{
		URLs: s.URLs, Via: s.Via, Every: api.Since(s.Every), From: update.Shown(v.URL), At: v.Fetched, Size: v.Size, SHA256: v.SHA256,
		Checked: s.Checked, Next: s.Next, Waiting: s.Waiting, Previous: s.Previous, Held: s.Failure.Left,
	}
	if x := s.Failure; x.Text != "" || x.Problem != "" {
		f.Failure = &api.ListFailure{Text: x.Text, Gated: x.Gated, Times: x.Times, At: s.Tried, Problem: x.Problem}
	}
	if s.Progress != nil {
		f.Progress = &api.ListProgress{URL: s.Progress.URL, Received: s.Progress.Received, Total: s.Progress.Total}
	}
	return f
}

func (e *engine) updateLists(ctx context.Context, names []string, force bool) (api.ListUpdates, error) {
	all, err := e.data.updates.Update(ctx, names, force)
	if err != nil {
		return api.ListUpdates{}, e.shown.Load().parts.unknownList(err)
	}
	out := api.ListUpdates{Schema: api.Schema, Updates: []api.ListUpdate{}}
	for _, r := range all {
		u := api.ListUpdate{Name: r.Name, Changed: r.Changed, Entries: r.Entries, From: update.Shown(r.URL), Gated: r.Gated}
		if r.Err != nil {
			u.Error = r.Err.Error()
		}
		out.Updates = append(out.Updates, u)
	}
	return out, nil
}

// unknownList says which lists there are where err is about another one.
func (p *Parts) unknownList(err error) error {
	unknown, ok := errors.AsType[update.UnknownError](err)
	if !ok {
		return err
	}
	var names []string
	for _, l := range p.fetched() {
		names = append(names, l.Name)
	}
	for _, x := range p.Config.Lists {
		if x.Name == string(unknown) {
			return api.BadRequest(fmt.Sprintf("list %s is not fetched: write its url into [list.%s]", x.Name, x.Name))
		}
	}
	if len(names) == 0 {
		return api.BadRequest(fmt.Sprintf("no list %q: none is fetched", string(unknown)))
	}
	return api.BadRequest(fmt.Sprintf("no list %q is fetched (there are %s)", string(unknown), strings.Join(names, ", ")))
}

func (e *engine) rollbackList(_ context.Context, name string) (api.Done, error) {
	v, err := e.data.updates.Rollback(name)
	if err != nil {
		return api.Done{}, e.shown.Load().parts.unknownList(err)
	}
	text := fmt.Sprintf("list %s has its version of %s again, with %d entries; the one that it had is not fetched again",
		name, v.Fetched.Local().Format(time.DateTime), v.Summary.Entries)
	return api.Done{Schema: api.Schema, Text: text}, nil
}

// staleAfter is after how many intervals without an answer a list is old.
const staleAfter = 3

// conditions says of the lists that are fetched what somebody should know.
func (d *dataSide) conditions(p *Parts, now time.Time) []api.Condition {
	var all []api.Condition
	for _, s := range d.updates.Status() {
		note := func(since time.Time, fix, text string, args ...any) {
			all = append(all, api.Condition{Severity: severityWarning, Since: since, Fix: fix, What: "list " + s.Name + " " + fmt.Sprintf(text, args...)})
		}
		f := s.Failure
		again := "smartdns lists update " + s.Name
		switch {
		case s.Copy.Path == "":
			instead := "is empty"
			if s.Name == configs.ListCNDomains {
				instead = "is the short one of the program"
			}
			why := ""
			switch {
			case s.Waiting:
				why = ": it waits for " + s.Via
			case f.Text != "":
				why = ": " + oneLine(f.Text)
			}
			note(s.Tried, again, "was never fetched, and %s until then%s", instead, why)
		case f.Gated:
			note(s.Tried, again+" --force", "was not updated: %s", oneLine(f.Text))
		case f.Text != "":
			note(s.Tried, again, "was not updated: %s", oneLine(f.Text))
		case now.Sub(s.Checked) > staleAfter*s.Every:
			note(s.Checked.Add(staleAfter*s.Every), again, "is old: nobody could be asked about it since %s", s.Checked.Local().Format(time.DateTime))
		}
		if f.Problem != "" {
			note(time.Time{}, "", "was damaged on disk: %s", f.Problem)
		}
		if i := slices.IndexFunc(p.Lists, func(l api.List) bool { return l.Name == s.Name && l.Error != "" }); i >= 0 && f.Problem == "" {
			note(time.Time{}, again, "cannot be used as it is stored: %s", oneLine(p.Lists[i].Error))
		}
	}
	return all
}
