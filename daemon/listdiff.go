package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"smartdns/configs"
	"smartdns/geo"
	"smartdns/geo/list"
	"smartdns/geo/update"
	"smartdns/resolver/dnsname"
	"smartdns/resolver/policy"
	"smartdns/web/api"
)

// diffList compares a list with its previous version.
func (e *engine) diffList(_ context.Context, name string) (api.ListDiff, error) {
	p := e.shown.Load().parts
	if !slices.ContainsFunc(p.fetched(), func(l update.List) bool { return l.Name == name }) {
		return api.ListDiff{}, p.unknownList(update.UnknownError(name))
	}
	dir := listsDir(e.opts.Dirs)
	now, before := update.Stored(dir, name), update.Previous(dir, name)
	if now.Path == "" || before.Path == "" {
		return api.ListDiff{}, fmt.Errorf("list %s has no previous version yet", name)
	}
	d := api.ListDiff{Schema: api.Schema, Name: name, Now: now.Version.Fetched, Before: before.Version.Fetched, Sides: []api.ListTurns{}}
	was, is := p.withCopy(dir, name, before.Path), p.withCopy(dir, name, now.Path)
	if err := compareLists(&d, was, is); err != nil {
		return d, err
	}
	x := is.find(name)
	if !is.uses(x).names {
		return d, nil
	}
	oldNames, _, err := compileNames(p.Config, was)
	if err != nil {
		return d, err
	}
	newNames, _, err := compileNames(p.Config, is)
	if err != nil {
		return d, err
	}
	asked := e.resolver.AskedNames()
	d.Examined = len(asked)
	for _, n := range slices.SortedFunc(maps.Keys(asked), func(a, b dnsname.FQDN) int {
		return cmp.Or(cmp.Compare(asked[b], asked[a]), cmp.Compare(a, b))
	}) {
		a, b := doesWith(oldNames, n), doesWith(newNames, n)
		if a != b && len(d.Sides) < api.MaxListDiff {
			d.Sides = append(d.Sides, api.ListTurns{Name: n.String(), Before: a, Now: b, Often: asked[n] > 1})
		}
	}
	return d, nil
}

// withCopy is the lists of p with one of them read from a file in the place of
// its own.
func (p *Parts) withCopy(dir, name, path string) *lists {
	stored := copies{}
	for _, l := range p.fetched() {
		stored[l.Name] = storedCopy{path: update.Stored(dir, l.Name).Path}
	}
	stored[name] = storedCopy{path: path}
	return newLists(p.Config, stored, newLineGuard(p.Config, p.Tunnels))
}

// doesWith says what the first line that matches a name does with it.
func doesWith(names *policy.Names, n dnsname.FQDN) string {
	rule, ok := names.Match(n)
	switch {
	case !ok:
		return "nothing"
	case rule.Action == policy.AskAuto:
		return "ask " + configs.AskAuto
	case rule.Action == policy.AskSide:
		return "ask " + rule.Side
	}
	return "answer " + string(rule.Answer.Kind)
}

// compareLists writes into d what a list has and had not.
func compareLists(d *api.ListDiff, was, is *lists) error {
	before, err := was.texts(d.Name)
	if err != nil {
		return fmt.Errorf("reading the previous version: %w", err)
	}
	now, err := is.texts(d.Name)
	if err != nil {
		return err
	}
	only := func(a, b map[string]bool) (n int, some []string) {
		some = []string{}
		for text := range a {
			if !b[text] {
				some = append(some, text)
			}
		}
		slices.Sort(some)
		return len(some), some[:min(len(some), api.MaxListDiff)]
	}
	d.Adds, d.Added = only(now, before)
	d.Removes, d.Removed = only(before, now)
	return nil
}

// texts returns the entries of a list, each as its own text; of a database, the
// prefixes that it says are at home.
func (l *lists) texts(name string) (map[string]bool, error) {
	all := map[string]bool{}
	take := func(kind list.Kind) error {
		for line, err := range l.lines(name, kind) {
			if err != nil {
				return err
			}
			if text := entryText(line); text != "" {
				all[text] = true
			}
		}
		return nil
	}
	err := take(list.KindNames)
	if err != nil && len(all) == 0 {
		err = take(list.KindPrefixes)
	}
	if err == nil || len(all) > 0 {
		return all, err
	}
	b := geo.NewBuilder(l.config.Decide.Home)
	if e := l.addSource(b, name); e != nil {
		return nil, errors.Join(err, e)
	}
	v4, v6 := b.Table().Home()
	for _, p := range slices.Concat(v4, v6) {
		all[p.String()] = true
	}
	return all, nil
}

// entryText is an entry as v2fly writes it, "" for what is none.
func entryText(l list.Line) string {
	name := strings.TrimSuffix(string(l.Name), ".")
	switch l.Kind {
	case list.Suffix:
		return name
	case list.Full:
		return "full:" + name
	case list.Keyword:
		return "keyword:" + l.Text
	case list.Regexp:
		return "regexp:" + l.Text
	case list.ExceptSuffix:
		return "not " + name
	case list.ExceptFull:
		return "not full:" + name
	case list.Prefix:
		return l.Prefix.String()
	}
	return ""
}
