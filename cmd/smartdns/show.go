package main

import (
	"fmt"
	"strings"

	"smartdns/web/api"
)

// status prints whether it is fine, then everything else.
func (p printer) status(s api.Status) {
	first := p.good(s.Summary)
	if !s.Fine {
		first = p.bad(s.Summary)
	}
	p.line(first, "up "+long(s.Uptime))
	for _, c := range s.Conditions {
		what := c.What
		if c.Severity == "error" {
			what = p.bad(what)
		}
		p.row(c.Severity, what, "")
		if c.Fix != "" {
			p.row("", "→ "+c.Fix, "")
		}
	}
	p.row("listen", join(s.Listen.Addrs), fmt.Sprintf("%d udp, %d tcp, %d refused", s.Listen.UDP, s.Listen.TCP, s.Listen.Refused))
	if len(s.Listen.Clients) > 0 {
		p.row("clients", join(s.Listen.Clients), "")
	}
	for _, t := range s.Tunnels {
		p.tunnel(t)
	}
	for _, side := range s.Sides {
		p.row(side.Name, "via "+side.Via, "")
		for _, v := range side.Servers {
			state := p.good("up")
			if !v.Up {
				state = p.bad("down")
			}
			right := fmt.Sprintf("%s, %d asked, %d failed", short(v.Latency), v.Queries, v.Failures)
			if v.Suspect > 0 {
				right += fmt.Sprintf(", %d suspect", v.Suspect)
			}
			p.row("", pad(v.Server, 28)+state, right)
			if v.LastError != "" && !v.Up {
				p.row("", "  "+safe(v.LastError), "")
			}
		}
	}
	for _, l := range s.Lists {
		right := fmt.Sprintf("%d entries", l.Entries)
		if l.Dropped > 0 {
			right += fmt.Sprintf(", %d dropped", l.Dropped)
		}
		p.row("list", pad(l.Name, 16)+l.Source, right)
		if l.Error != "" {
			p.row("", p.bad(safe(l.Error)), "")
		}
	}
	for _, set := range s.Sets {
		right := fmt.Sprintf("%d elements", set.Elements)
		if set.Size > 0 {
			right += fmt.Sprintf(" of %d", set.Size)
		}
		p.row("set", set.Name, right)
	}
	if len(s.Classified) > 0 {
		p.row("classified", strings.Join(s.Classified, ", "), "")
	}
	for _, c := range s.Counters {
		if c.Value > 0 {
			p.row("counter", c.Name, fmt.Sprint(c.Value))
		}
	}
}

func (p printer) tunnel(t api.Tunnel) {
	state := p.good(t.State)
	if t.State != "up" {
		state = p.bad(t.State)
	}
	hs := "no handshake yet"
	if t.Handshake != nil {
		hs = "handshake " + t.Handshake.Local().Format("15:04:05")
	}
	p.row("tunnel", pad(t.Path, 8)+state+"  "+t.Endpoint, hs)
	p.row("", fmt.Sprintf("%s device, peer %s, mark %s, table %d", t.Device, t.Peer, t.Mark, t.Table),
		fmt.Sprintf("%s in, %s out", bytes(t.Received), bytes(t.Sent)))
	if t.Error != "" {
		p.row("", p.bad(safe(t.Error)), "")
	}
}

func (p printer) marks(m api.Marks) {
	for _, l := range m.Marks {
		p.line(pad(l.Addr.String(), 40)+pad(l.Path, 12)+l.Set, long(l.Remaining)+" left")
	}
	for _, c := range m.Conflicts {
		p.line(fmt.Sprintf("%s is on several paths: %s; %s is used", c.Addr, strings.Join(c.Paths, ", "), c.Used), "")
	}
	if len(m.Marks) == 0 {
		p.line("no address is marked", "")
	}
}

func join[T fmt.Stringer](all []T) string {
	s := make([]string, len(all))
	for i, v := range all {
		s[i] = v.String()
	}
	return strings.Join(s, ", ")
}

// bytes prints a size with a binary unit.
func bytes(n int64) string {
	v, unit := float64(n), 0
	for ; v >= 1024 && unit < 4; unit++ {
		v /= 1024
	}
	return fmt.Sprintf("%.4g %s", v, [...]string{"B", "KiB", "MiB", "GiB", "TiB"}[unit])
}
