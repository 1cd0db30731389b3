package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"smartdns/configs/draft"
	"smartdns/web/api"
)

// initialized prints what became of everything, and last what comes next.
func (a *app) initialized(v api.Initialized) {
	p := a.out
	if v.Program != "" {
		p.row("read", draft.Program(v.Program).Title()+": "+someOf(v.Sources, 4, "file"), "")
	}
	for _, t := range v.Tunnels {
		p.row("tunnel", t.Path, "")
		for i, h := range t.Honoured {
			p.row(first(i, "  taken"), h, "")
		}
		for i, n := range t.Ignored {
			p.row(first(i, "  not"), n, "")
		}
	}
	if len(v.Tunnels) == 0 {
		p.row("tunnel", "none: names are resolved, nothing is routed. --tunnel FILE takes your provider's wg-quick file", "")
	}
	a.became(v.Notes, draft.Lost, "Not carried over", p.bad)
	a.became(v.Notes, draft.Changed, "Works differently", p.bold)
	a.idle(v.Notes)
	if len(v.Warnings) > 0 {
		p.line("", "")
		p.line(p.bold("Worth a look in the new file"), "")
		for _, w := range v.Warnings {
			p.hanging("  "+w, func(s string) string { return s })
		}
	}
	if len(v.Written) == 0 {
		return
	}
	p.line("", "")
	for i, f := range v.Written {
		p.row(first(i, "wrote"), f, "")
	}
	p.row("next", p.good(v.Next), "")
}

func first(i int, label string) string {
	if i > 0 {
		return ""
	}
	return label
}

// someOf is the first few of many.
func someOf(all []string, most int, what string) string {
	if len(all) <= most+1 {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d %ss more", strings.Join(all[:most], ", "), len(all)-most, what)
}

// became prints the notes of a kind, those with one reason together.
func (a *app) became(all []api.InitNote, kind draft.Kind, title string, paint func(string) string) {
	groups := byReason(all, kind)
	if len(groups) == 0 {
		return
	}
	lines := map[string]bool{}
	for _, g := range groups {
		for _, x := range g {
			lines[x.File+":"+strconv.Itoa(x.Line)+x.Text] = true
		}
	}
	n := len(lines)
	p := a.out
	p.line("", "")
	p.line(paint(title)+" ("+count(n, "line")+")", "")
	for _, g := range groups {
		p.line("  "+p.bold(notePlace(g[0]))+"  "+cut(g[0].Text, width-4-columns(notePlace(g[0]))), "")
		if rest := restOf(g); rest != "" {
			p.line("      "+p.faint(rest), "")
		}
		for _, l := range wrap(g[0].Why, width-6) {
			p.line("      "+l, "")
		}
	}
}

// cut shortens s to n columns.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n && n > 1 {
		return string(r[:n-1]) + "…"
	}
	return s
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// byReason groups the notes of a kind.
func byReason(all []api.InitNote, kind draft.Kind) [][]api.InitNote {
	var groups [][]api.InitNote
	at := map[string]int{}
	for _, n := range all {
		if n.Kind != string(kind) {
			continue
		}
		i, ok := at[n.Why]
		if !ok {
			i = len(groups)
			at[n.Why] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], n)
	}
	return groups
}

func notePlace(n api.InitNote) string {
	if n.Line == 0 {
		return filepath.Base(n.File)
	}
	return filepath.Base(n.File) + ":" + strconv.Itoa(n.Line)
}

// restOf says in which other lines the same stands.
func restOf(g []api.InitNote) string {
	if len(g) < 2 {
		return ""
	}
	var places []string
	file := g[0].File
	for _, n := range g[1:] {
		at := notePlace(n)
		if n.File == file && n.Line > 0 {
			at = strconv.Itoa(n.Line)
		}
		if file = n.File; !slices.Contains(places, at) {
			places = append(places, at)
		}
	}
	const most = 8
	if len(places) == 0 {
		return ""
	}
	if len(places) > most {
		return fmt.Sprintf("and lines %s and %d more", strings.Join(places[:most], ", "), len(places)-most)
	}
	if len(places) == 1 {
		return "and line " + places[0]
	}
	return "and lines " + strings.Join(places, ", ")
}

// idle prints what needs nothing: in short, unless everything is wanted.
func (a *app) idle(all []api.InitNote) {
	groups := byReason(all, draft.Idle)
	if a.verbose {
		a.became(all, draft.Idle, "Needs nothing here", a.out.faint)
		return
	}
	var words []string
	n := 0
	for _, g := range groups {
		for _, x := range g {
			n++
			word := strings.FieldsFunc(x.Text, func(r rune) bool { return r == '=' || r == ' ' || r == ':' })
			if len(word) > 0 && !slices.Contains(words, word[0]) {
				words = append(words, word[0])
			}
		}
	}
	if n == 0 {
		return
	}
	slices.SortFunc(words, cmp.Compare[string])
	a.out.line("", "")
	a.out.hanging(fmt.Sprintf("Needs nothing here (%s; -v says why): %s", count(n, "line"), someOf(words, 12, "word")), a.out.faint)
}
