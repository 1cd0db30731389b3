package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"smartdns/web/api"
)

// decision prints one query's story, a row per station.
func (p printer) decision(d api.Decision) {
	p.line(p.bold(cmp.Or(d.Name, "."))+" "+d.Type, fmt.Sprintf("%s  %s  %s", p.rcode(d.RCode), short(d.Took), cached(d)))
	if d.Client != "" {
		p.row("client", d.Client, "")
	}
	for i, s := range d.Steps {
		if i > 0 {
			p.row("then", s.Name+", by a rule of its own", "")
		}
		p.step(s)
	}
	for _, r := range d.Records {
		name := ""
		if r.Name != d.Name && r.Type != "CNAME" {
			name = r.Name + " "
		}
		p.row(strings.ToLower(r.Type), name+shortened(r.Data), "ttl "+long(api.Seconds(r.TTL)))
	}
	p.addresses(d.Answers)
	if empty(d) {
		p.row("answer", "there is no "+d.Type+" record", "")
	}
	for _, n := range d.Notes {
		p.row("note", n, "")
	}
	for _, e := range d.EDE {
		if saidAbove(e.Text, d.Answers) {
			e.Text = "of what was taken out"
		}
		p.row("because", e.Text, fmt.Sprintf("EDE %d", e.Code))
	}
}

// longData is how much of a record's data is printed, in characters.
const longData = 3 * (width - indent)

func shortened(s string) string {
	r := []rune(s)
	if len(r) <= longData {
		return s
	}
	return fmt.Sprintf("%s… (%d more)", string(r[:longData]), len(r)-longData)
}

// saidAbove reports whether a text says again why an address was taken out.
func saidAbove(text string, all []api.Address) bool {
	return slices.ContainsFunc(all, func(a api.Address) bool { return a.Dropped != "" && text == a.Addr.String()+": "+a.Dropped })
}

// empty reports whether an answer says that there is nothing.
func empty(d api.Decision) bool {
	return d.RCode == "NOERROR" && len(d.Answers) == 0 &&
		!slices.ContainsFunc(d.Records, func(r api.Record) bool { return r.Type == d.Type || r.Type != "CNAME" })
}

// step prints how one name was decided.
func (p printer) step(s api.Step) {
	if s.Rule.Where != "" {
		p.rule(s.Rule, "", s.Rule.Do)
	}
	if a := s.Auto; a != nil {
		text, age := a.Mode+": ", ""
		switch {
		case a.Region != "":
			text += fmt.Sprintf("it is %s (%s)", a.Region, a.Why)
		case a.Mode == "foreign-only":
			text += "domestic is never asked"
		default:
			text += "nothing says where it is"
		}
		switch {
		case a.Learned == nil:
		case a.Pinned:
			text, age = a.Mode+": it is "+a.Region, "pinned "+long(*a.Learned)+" ago"
		default:
			age = "learned " + long(*a.Learned) + " ago"
		}
		p.row("auto", text, age)
	}
	for _, a := range s.Asked {
		p.asked(a)
	}
}

// asked prints one try, or what stood in the cache instead.
func (p printer) asked(a api.Asked) {
	label, right := "asked", short(a.Took)
	text := a.Side + "  " + a.Server
	if a.Proto != "" && a.Proto != "udp" && !strings.HasPrefix(a.Server, a.Proto+":") {
		text += " over " + a.Proto
	}
	text += " via " + a.Via
	switch {
	case a.Cached != "":
		label, right, text = "cached", long(a.Age)+" ago", "the "+a.Side+" side's answer"
		if a.Prefetched {
			right = "fetched ahead, " + right
		}
		switch a.Cached {
		case "stale":
			label, text = "stale", "the "+a.Side+" side's last answer"
		case "failure":
			text = "the " + a.Side + " side's failure"
		case "doubt":
			text = "the " + a.Side + " side's answers look forged"
		}
	case a.Server == "":
		text = a.Side + "  via " + a.Via
	}
	if a.Note != "" {
		text += ", " + a.Note
	}
	if a.Error != "" && a.Cached == "" { // a failure's reasons follow
		text += ": " + p.bad(a.Error)
	}
	p.row(label, text, right)
}

// rule prints the line of the file that decided, cut to the part of it that
// matched.
func (p printer) rule(r api.Rule, region, do string) {
	text := r.Where + " " + matched(r, region)
	if !strings.HasSuffix(r.Where, "]") { // none of the file's
		text = r.Where + ": " + r.Text
	}
	if do != "" {
		text += "  " + do
	}
	p.row("rule", text, r.At)
	if r.List != "" {
		text := strings.TrimSpace(r.Matched + " in list " + r.List)
		if r.ListDate != "" {
			text += " (" + r.ListDate + ")"
		}
		p.row("", text, "")
	}
}

// wideMatch is the longest match that is printed whole, in columns.
const wideMatch = 24

// matched returns the match of a rule. Of a long list it is the entry that
// matched: the one with r.Matched, the list's name or the region.
func matched(r api.Rule, region string) string {
	entries := regexp.MustCompile(`"(?:[^"\\]|\\.)*"`).FindAllString(r.Text, -1)
	if utf8.RuneCountInString(r.Text) <= wideMatch || len(entries) < 2 {
		return r.Text
	}
	list, _, _ := strings.Cut(r.List, ":")
	for _, same := range []func(entry, kind, value string) bool{
		func(_, kind, value string) bool { return list != "" && kind == "list" && value == list },
		func(_, _, value string) bool {
			return list == "" && r.Matched != "" && (value == r.Matched || value+"/32" == r.Matched || value+"/128" == r.Matched)
		},
		func(_, _, value string) bool { return list == "" && r.Matched == "" && value == region },
	} {
		for _, e := range entries {
			kind, value, ok := strings.Cut(strings.Trim(e, `"`), ":")
			if !ok || strings.Contains(value, ":") && kind != "regexp" { // an IPv6 prefix has colons of its own
				kind, value = "", strings.Trim(e, `"`)
			}
			if same(e, kind, strings.TrimSuffix(value, ".")) {
				return "[" + e + ", …]"
			}
		}
	}
	return "[" + entries[0] + ", …]"
}

// addresses prints the answered addresses. What they have in common stands
// once below them.
func (p printer) addresses(all []api.Address) {
	wide := 0
	for _, a := range all {
		wide = max(wide, len(addrText(a)))
	}
	for i, a := range all {
		right := "via " + a.Path
		if a.Dropped != "" {
			right = "taken out"
		}
		p.line("  "+p.bold(pad(addrText(a), wide+2))+pad(a.Region, 9)+a.Because, right)
		if i+1 < len(all) && common(a) == common(all[i+1]) {
			continue
		}
		if a.Dropped != "" {
			p.row("", a.Dropped, "")
			continue
		}
		p.way(a)
	}
}

func addrText(a api.Address) string {
	if a.Hint {
		return a.Addr.String() + " (hint)"
	}
	return a.Addr.String()
}

// common is what stands below an address, without what may differ by a moment.
func common(a api.Address) string {
	a.Addr, a.Hint, a.TTL, a.Because = a.Addr.Prev(), false, 0, ""
	var b strings.Builder
	rest := printer{w: &b}
	if a.Dropped == "" {
		rest.way(a)
	}
	return a.Dropped + b.String()
}

// way prints why an address leaves as it does, and what the kernel says.
func (p printer) way(a api.Address) {
	p.rule(a.Rule, a.Region, "")
	switch m := a.Mark; {
	case m.Acked:
		p.row("marked", fmt.Sprintf("%s for %s", m.Set, long(m.Life)), "kernel acknowledged")
	case m.Reason != "":
		p.row("no mark", strings.TrimSuffix(m.Reason, ": never marked"), "")
	}
	if a.Kernel != nil {
		p.kernel(*a.Kernel, a.Mark.Acked)
	}
}

// Numbers of the kernel's own routing tables.
const (
	tableMain  = 254
	tableLocal = 255
)

func (p printer) kernel(k api.Kernel, marked bool) {
	if k.Error != "" {
		p.row("kernel", p.bad(k.Error), "")
		return
	}
	var way []string
	for _, s := range k.Sets {
		text := "in " + s.Set
		if s.Remaining > 0 {
			text += ", " + long(s.Remaining) + " left"
		}
		way = append(way, text)
	}
	if marked && len(k.Sets) == 0 {
		way = append(way, p.bad("in no set"))
	}
	if k.Mark == "0x0" {
		way = append(way, "no fwmark")
	} else {
		way = append(way, "fwmark "+k.Mark)
	}
	switch k.Table {
	case 0:
		way = append(way, p.bad(cmp.Or(k.Route, k.Dev)))
	case tableMain:
		way = append(way, "main table", k.Dev)
	case tableLocal:
		way = append(way, "local table", k.Dev)
	default:
		way = append(way, fmt.Sprintf("table %d", k.Table), k.Dev)
	}
	p.row("kernel", strings.Join(way, " → "), "")
	var far []string
	if k.Via != "" {
		far = append(far, "via "+k.Via)
	}
	if k.Source != "" {
		far = append(far, "from "+k.Source)
	}
	if k.Peer != "" {
		far = append(far, "peer "+k.Peer)
		if k.Handshake > 0 {
			far = append(far, "handshake "+long(k.Handshake)+" ago")
		}
	}
	if len(far) > 0 {
		p.row("", p.faint(strings.Join(far, ", ")), "")
	}
	if k.StandIn != "" {
		p.row("", p.bad(k.StandIn), "")
	}
	const most = 8
	for i, f := range k.Flows {
		if i == most {
			p.row("", fmt.Sprintf("and %d more", len(k.Flows)-most), "")
			break
		}
		p.row("flow", fmt.Sprintf("%s %s → %s", f.Proto, f.From, f.To), f.Path)
	}
}

func (p printer) route(r api.Route) {
	if r.Names != nil {
		p.decision(*r.Names)
		return
	}
	p.addresses(r.Answers)
}

func (p printer) rcode(s string) string {
	if s == "NOERROR" {
		return p.good(s)
	}
	return p.bad(s)
}

func cached(d api.Decision) string {
	switch d.Cached {
	case "":
		return "not cached"
	case "failure":
		return "failed before"
	case "sealed":
		return "sealed"
	case "stale":
		return "stale"
	}
	return "cached"
}

// short prints a duration of one exchange.
func short(s api.Seconds) string {
	switch d := s.Duration(); {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	default:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
}

// long prints an age or a life: its two largest units.
func long(s api.Seconds) string {
	n := int(s.Duration().Round(time.Second) / time.Second)
	for _, u := range []struct {
		large, small int
		names        [2]string
	}{{86400, 3600, [2]string{"d", "h"}}, {3600, 60, [2]string{"h", "m"}}, {60, 1, [2]string{"m", "s"}}} {
		if n < u.large {
			continue
		}
		text := fmt.Sprintf("%d%s", n/u.large, u.names[0])
		if rest := n % u.large / u.small; rest > 0 {
			text += fmt.Sprintf("%d%s", rest, u.names[1])
		}
		return text
	}
	return fmt.Sprintf("%ds", n)
}
