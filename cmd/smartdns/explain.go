package main

import (
	"fmt"
	"strings"
	"time"

	"smartdns/web/api"
)

// decision prints one query's story, a row per station.
func (p printer) decision(d api.Decision) {
	p.line(p.bold(safe(d.Name))+" "+d.Type, fmt.Sprintf("%s  %s  %s", p.rcode(d.RCode), short(d.Took), cached(d.Cached)))
	if d.Client != "" {
		p.row("client", d.Client, "")
	}
	if d.Rule.Where != "" {
		text := fmt.Sprintf("%s %s  %s", d.Rule.Where, d.Rule.Text, d.Rule.Do)
		if d.Auto != nil {
			text += ": " + d.Auto.How
		}
		p.row("rule", text, d.Rule.At)
		if d.Rule.List != "" {
			p.row("", safe(d.Rule.List), "")
		}
	}
	if d.Auto != nil && d.Auto.Learned != "" {
		p.row("learned", safe(d.Auto.Learned), "")
	}
	for _, a := range d.Asked {
		text := fmt.Sprintf("%s  %s", a.Side, a.Server)
		if a.Proto != "" && !strings.HasPrefix(a.Server, a.Proto+":") && a.Proto != "udp" {
			text += " over " + a.Proto
		}
		text += " via " + a.Via
		if a.Note != "" {
			text += ", " + safe(a.Note)
		}
		if a.Error != "" {
			text += "  " + p.bad(safe(a.Error))
		}
		p.row("asked", text, short(a.Took))
	}
	for _, c := range d.Chain {
		p.row("cname", safe(c), "")
	}
	for _, a := range d.Answers {
		p.address(a)
	}
	for _, n := range d.Notes {
		p.row("note", safe(n), "")
	}
	for _, e := range d.EDE {
		p.row("because", fmt.Sprintf("%s (EDE %d)", safe(e.Text), e.Code), "")
	}
}

func (p printer) address(a api.Address) {
	what := a.Addr.String()
	if a.Hint {
		what += " (hint)"
	}
	via := "via " + a.Path
	p.line("  "+p.bold(pad(what, 17))+pad(a.Region, 9)+safe(a.Because), via)
	p.row("", fmt.Sprintf("%s %s", a.Rule.Where, a.Rule.Text), a.Rule.At)
	switch m := a.Mark; {
	case m.Acked:
		p.row("marked", fmt.Sprintf("%s for %s", m.Set, long(m.Life)), "kernel acknowledged")
	case m.Reason != "":
		p.row("not marked", safe(m.Reason), "")
	}
	if a.Kernel != nil {
		p.kernel(*a.Kernel)
	}
}

func (p printer) kernel(k api.Kernel) {
	if k.Error != "" {
		p.row("kernel", p.bad(safe(k.Error)), "")
		return
	}
	for _, s := range k.Sets {
		left := "static"
		if s.Remaining > 0 {
			left = long(s.Remaining) + " left"
		}
		p.row("in set", s.Set, left)
	}
	right := ""
	if k.Peer != "" {
		right = "peer " + k.Peer
		if k.Handshake > 0 {
			right += ", handshake " + long(k.Handshake) + " ago"
		}
	}
	p.row("kernel", fmt.Sprintf("fwmark %s → table %d → %s", k.Mark, k.Table, k.Dev), right)
	if k.Route != "" {
		p.row("", p.faint(k.Route), "")
	}
	for _, f := range k.Flows {
		p.row("flow", fmt.Sprintf("%s %s → %s", f.Proto, f.From, f.To), f.Path)
	}
}

func (p printer) route(r api.Route) {
	if r.Names != nil {
		p.decision(*r.Names)
		return
	}
	for _, a := range r.Answers {
		p.address(a)
	}
}

func (p printer) rcode(s string) string {
	if s == "NOERROR" {
		return p.good(s)
	}
	return p.bad(s)
}

func cached(s string) string {
	if s == "" {
		return "not cached"
	}
	return "cached, " + s
}

// short prints a duration of one exchange.
func short(s api.Seconds) string {
	d := s.Duration()
	if d < time.Millisecond {
		return fmt.Sprintf("%d µs", d.Microseconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// long prints an age or a life: its two largest units.
func long(s api.Seconds) string {
	d := s.Duration().Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return strings.TrimSuffix(fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60), "0s")
	case d < 24*time.Hour:
		return strings.TrimSuffix(fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60), "0m")
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
