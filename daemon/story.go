package daemon

import (
	"fmt"
	"net/netip"
	"strings"

	"smartdns/resolver"
	"smartdns/resolver/policy"
	"smartdns/routing"
	"smartdns/web/api"
)

// story turns the Decision on q into what the API shows. Servers of a tunnel
// that is down are asked by its stand-in for the time being; directly, only the
// encrypted ones.
func story(d *resolver.Decision, q *resolver.Query, v *view) api.Decision {
	detoured, dates := v.detours(), v.parts.dates()
	out := api.Decision{
		Schema: api.Schema, Name: d.Asked.Name, Type: d.Asked.Type, Client: client(d.Asked.Client),
		RCode: d.RCode, Took: api.Since(d.Took), Notes: d.Notes, Records: records(d.Reply(nil, whole(q))),
	}
	for _, e := range d.EDE {
		out.EDE = append(out.EDE, api.EDE{Code: e.Code, Text: e.Text})
	}
	for i, s := range d.Steps {
		if i == 0 || s.Cached == "" {
			out.Cached, out.Age, out.Prefetched = s.Cached, api.Since(s.Age), s.Prefetched
		}
		step := api.Step{Name: strings.TrimSuffix(s.Name, "."), Rule: nameRule(s, dates)}
		if s.Auto != nil {
			step.Auto = auto(*s.Auto)
		}
		for _, v := range s.Lookup {
			if len(v.Tries) > 0 {
				out.Cached, out.Age, out.Prefetched = "", 0, false
			}
			step.Asked = append(step.Asked, asked(v, detoured)...)
		}
		out.Steps = append(out.Steps, step)
	}
	for _, a := range d.Addresses {
		out.Answers = append(out.Answers, address(d, a, dates))
	}
	return out
}

// client is a client as people know it, "" for our own questions.
func client(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// detours says by which other path the servers of a tunnel are asked now.
func (v *view) detours() map[routing.Path]routing.Path {
	all := map[routing.Path]routing.Path{}
	for _, t := range v.parts.Tunnels {
		if by := v.parts.via(v.live, t.Path); by != "" && by != t.Path {
			all[t.Path] = by
		}
	}
	return all
}

// oneLine is the text of joined errors as one sentence.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

// whole is q as one that takes an answer of any size.
func whole(q *resolver.Query) *resolver.Query {
	w := *q
	w.Transport = "tcp"
	return &w
}

func where(list string, r resolver.Rule) string {
	switch {
	case r.Index == resolver.RecordIndex:
		return "[records]"
	case r.Index == policy.BypassIndex:
		return "[listen]"
	case r.Client:
		return fmt.Sprintf("clients[%d]", r.Index)
	case r.Index < 0:
		return "no line of the file"
	}
	return fmt.Sprintf("%s[%d]", list, r.Index)
}

func nameRule(s resolver.Step, of dates) api.Rule {
	r := api.Rule{Where: where("names", s.Rule), Text: s.Rule.Text, At: s.Rule.Pos, Matched: strings.TrimSuffix(s.Rule.Matched, ".")}
	switch {
	case s.Local != "":
		r.Do = "answered here: " + s.Local
	case s.Auto != nil:
		r.Do = "ask auto"
	case len(s.Lookup) > 0:
		r.Do = "ask " + s.Lookup[0].Side // the one whose answer was taken may be another
	}
	if s.Rule.Via != "" {
		r.Do += ", via " + string(s.Rule.Via)
	}
	of.ofRule(&r, s.Rule.List, s.Rule.Line)
	return r
}

func auto(s resolver.Story) *api.Auto {
	a := &api.Auto{Mode: string(s.Mode), Region: s.Region, Why: s.Why}
	if s.Learned {
		age := api.Since(s.Age)
		a.Learned, a.Pinned = &age, s.Pinned
	}
	return a
}

func asked(v resolver.Visit, detours map[routing.Path]routing.Path) []api.Asked {
	base := api.Asked{Side: v.Side, Cached: v.Cached, Age: api.Since(v.Age), Prefetched: v.Prefetched, Via: string(v.Path), Note: visitNote(v)}
	if len(v.Tries) == 0 {
		base.Took, base.Error = api.Since(v.Took), oneLine(v.Err)
		return []api.Asked{base}
	}
	var all []api.Asked
	for i, t := range v.Tries {
		a := base
		a.Server, a.Proto, a.Took, a.Error = t.Server, t.Proto, api.Since(t.Took), oneLine(t.Err)
		by := detours[v.Path]
		encrypted := t.Proto != "udp" && t.Proto != "tcp"
		if by.IsTunnel() || by == routing.Direct && encrypted {
			a.Via = string(by)
		}
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
	switch v.Why {
	case "answer":
	case "judge":
		parts = append(parts, "to judge the region")
	default:
		parts = append(parts, "as "+v.Why)
	}
	if v.Shared {
		parts = append(parts, "waited for an equal question")
	}
	if v.RCode != "" && v.RCode != "NOERROR" {
		parts = append(parts, v.RCode)
	}
	if v.Suspect != "" {
		parts = append(parts, "looks forged: "+v.Suspect)
	}
	return strings.Join(parts, ", ")
}

func address(d *resolver.Decision, a resolver.Address, of dates) api.Address {
	out := api.Address{
		Addr: a.Addr, TTL: a.TTL, Hint: strings.HasSuffix(a.From, "hint"), Dropped: a.Dropped,
		Region: a.Region, Because: because(a.Source, of), Path: string(a.Path), Rule: addressRule(d, a, of),
	}
	switch {
	case a.Dropped != "":
		out.Mark.Reason = "it is not in the answer"
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

// addressRule is the line of the file that gave an address its path: one of
// addresses, or, where it pins its names to a path, the one of names.
func addressRule(d *resolver.Decision, a resolver.Address, of dates) api.Rule {
	r := api.Rule{
		Where: where("addresses", a.Rule), Text: a.Rule.Text, At: a.Rule.Pos, Do: "via " + string(a.Path),
		Matched: strings.TrimSuffix(a.Rule.Matched, "."),
	}
	of.ofRule(&r, a.Rule.List, a.Rule.Line)
	for _, s := range d.Steps {
		if s.Rule.Via != "" && s.Rule.Index == a.Rule.Index && s.Rule.Pos == a.Rule.Pos && s.Rule.Text == a.Rule.Text {
			r.Where = where("names", a.Rule)
		}
	}
	return r
}

func because(s resolver.Source, of dates) string {
	switch {
	case s.List == "":
		return "no list matches"
	case s.Prefix.IsValid():
		return s.Prefix.String() + " in " + of.cite(s.List, s.Line)
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
