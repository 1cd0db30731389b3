package daemon

import (
	"fmt"
	"strings"

	"smartdns/resolver"
	"smartdns/web/api"
)

// story turns a Decision into what the API shows.
func story(d *resolver.Decision) api.Decision {
	out := api.Decision{
		Schema: api.Schema, Name: d.Asked.Name, Type: d.Asked.Type, Client: d.Asked.Client,
		RCode: d.RCode, Took: api.Since(d.Took), Notes: d.Notes,
	}
	for _, e := range d.EDE {
		out.EDE = append(out.EDE, api.EDE{Code: e.Code, Text: e.Text})
	}
	for i, s := range d.Steps {
		if i == 0 {
			out.Rule, out.Cached = nameRule(s), s.Cached
		} else {
			out.Chain = append(out.Chain, fmt.Sprintf("%s, by %s", s.Name, where("names", s.Rule)))
		}
		if s.Auto != nil {
			out.Auto = &api.Auto{How: autoText(*s.Auto)}
			if s.Auto.Learned {
				out.Auto.Learned = fmt.Sprintf("%s, %s ago: %s", s.Auto.Region, s.Auto.Age.Round(1e9), s.Auto.Why)
			}
		}
		if s.Cut != "" {
			out.Notes = append(out.Notes, fmt.Sprintf("the answer was cut at %s, which is resolved by its own rule", s.Cut))
		}
		for _, v := range s.Lookup {
			out.Asked = append(out.Asked, asked(v)...)
		}
	}
	for _, a := range d.Addresses {
		out.Answers = append(out.Answers, address(d, a))
	}
	return out
}

func where(list string, r resolver.Rule) string {
	if r.Index < 0 {
		return "no line of the file"
	}
	return fmt.Sprintf("%s[%d]", list, r.Index)
}

func nameRule(s resolver.Step) api.Rule {
	r := api.Rule{Where: where("names", s.Rule), Text: s.Rule.Text, At: s.Rule.Pos}
	switch {
	case s.Local != "":
		r.Do = s.Local
	case s.Auto != nil:
		r.Do = "auto"
	case s.Side != "":
		r.Do = "ask " + s.Side
	}
	if s.Rule.Via != "" {
		r.Do += ", via " + string(s.Rule.Via)
	}
	if s.Rule.List != "" {
		r.List = fmt.Sprintf("list %s:%d %s", s.Rule.List, s.Rule.Line, strings.TrimSuffix(s.Rule.Matched, "."))
	}
	return r
}

func autoText(s resolver.Story) string {
	text := string(s.Mode)
	if s.Region != "" {
		text += ", it is " + s.Region
	}
	if s.Why != "" && !s.Learned {
		text += " (" + s.Why + ")"
	}
	return text
}

func asked(v resolver.Visit) []api.Asked {
	base := api.Asked{Side: v.Side, Via: string(v.Path), Note: visitNote(v)}
	if len(v.Tries) == 0 {
		base.Took, base.Error = api.Since(v.Took), v.Err
		return []api.Asked{base}
	}
	var all []api.Asked
	for i, t := range v.Tries {
		a := base
		a.Server, a.Proto, a.Took, a.Error = t.Server, t.Proto, api.Since(t.Took), t.Err
		if i < len(v.Tries)-1 {
			a.Note = ""
		}
		if t.Note != "" {
			a.Note = strings.TrimPrefix(a.Note+", "+t.Note, ", ")
		}
		all = append(all, a)
	}
	return all
}

func visitNote(v resolver.Visit) string {
	var parts []string
	if v.Why != "answer" {
		parts = append(parts, v.Why)
	}
	if v.Cached != "" {
		parts = append(parts, "from the cache")
	}
	if v.Shared {
		parts = append(parts, "with others")
	}
	if v.RCode != "" && v.RCode != "NOERROR" {
		parts = append(parts, v.RCode)
	}
	if v.Suspect != "" {
		parts = append(parts, "suspicious: "+v.Suspect)
	}
	return strings.Join(parts, ", ")
}

func address(d *resolver.Decision, a resolver.Address) api.Address {
	out := api.Address{
		Addr: a.Addr, TTL: a.TTL, Hint: strings.HasSuffix(a.From, "hint"),
		Region: a.Region, Because: because(a.Source), Path: string(a.Path),
		Rule: api.Rule{Where: where("addresses", a.Rule), Text: a.Rule.Text, At: a.Rule.Pos, Do: "via " + string(a.Path)},
	}
	if a.Rule.Via == a.Path && len(d.Steps) > 0 && d.Steps[0].Rule.Pos == a.Rule.Pos {
		out.Rule.Where = where("names", a.Rule)
	}
	switch {
	case a.Dropped != "":
		out.Mark.Reason = "taken out of the answer: " + a.Dropped
	case a.Note != "":
		out.Mark.Reason = a.Note
	case a.Marked:
		out.Mark = api.Mark{Set: setName(string(a.Path), a.Addr.Is4()), Acked: true}
		for _, m := range d.Marked.Marks {
			if m.Addr == a.Addr {
				out.Mark.Life = api.Since(m.Life)
			}
		}
	case d.Marked.Err != "":
		out.Mark.Reason = d.Marked.Err
	}
	return out
}

func because(s resolver.Source) string {
	switch {
	case s.List == "":
		return "no list matches"
	case s.Line > 0:
		return fmt.Sprintf("%s in %s:%d", s.Prefix, s.List, s.Line)
	case s.Prefix != "":
		return fmt.Sprintf("%s in %s", s.Prefix, s.List)
	}
	return s.List
}

// setName is the set that holds a path's marks.
func setName(path string, v4 bool) string {
	if v4 {
		return path + "_4"
	}
	return path + "_6"
}
