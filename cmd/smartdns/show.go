package main

import (
	"fmt"
	"strings"
	"time"

	"smartdns/web/api"
)

// status prints whether it is fine, then everything else. Now is when.
func (p printer) status(s api.Status, now time.Time) {
	paint := p.good
	if !s.Fine {
		paint = p.bad
	}
	p.headline(s.Summary, "up "+long(s.Uptime), paint)
	for _, c := range s.Conditions {
		if c.Severity == "error" && s.Summary == "not fine: "+c.What {
			c.What = ""
		}
		p.condition(c)
	}
	p.killSwitch(s.KillSwitch, now)
	if len(s.Listen.Addrs) == 0 && s.KillSwitch.State == "blocked" {
		return // there is no daemon
	}
	p.listen(s.Listen)
	if len(s.Listen.Clients) > 0 {
		p.row("clients", join(s.Listen.Clients), "")
	}
	for _, t := range s.Tunnels {
		p.tunnel(t, now)
	}
	for _, side := range s.Sides {
		p.row("side", side.Name, "via "+side.Via)
		for _, v := range side.Servers {
			p.server(v)
		}
	}
	for _, l := range s.Lists {
		right := counted(l.Entries, "entry", "entries")
		if l.Format != "" {
			right = l.Format + ", " + right
		}
		if l.Dropped > 0 {
			right += fmt.Sprintf(", %d dropped", l.Dropped)
		}
		p.row("list", pad(l.Name, 16)+l.Source, right)
		if l.Error != "" {
			p.row("", p.bad(l.Error), "")
		}
	}
	p.sets(s.Sets)
	if len(s.Classified) > 0 {
		p.row("classified", strings.Join(s.Classified, ", "), "")
	}
	queries := []string{fmt.Sprintf("%d over UDP", s.Listen.UDP), fmt.Sprintf("%d over TCP", s.Listen.TCP)}
	if s.Listen.Certificate != nil {
		queries = append(queries, fmt.Sprintf("%d over TLS, %d over HTTPS", s.Listen.TLS, s.Listen.HTTPS))
	}
	if s.Listen.Refused > 0 {
		queries = append(queries, fmt.Sprintf("%d refused", s.Listen.Refused))
	}
	p.row("received", strings.Join(queries, ", "), "")
	p.counters(s.Counters)
}

// listen prints where queries are taken, and whom TLS clients will find there.
func (p printer) listen(l api.Listen) {
	p.row("listen", join(l.Addrs), "UDP, TCP")
	if len(l.DoT) > 0 {
		p.row("", join(l.DoT), "TLS")
	}
	if len(l.DoH) > 0 {
		p.row("", join(l.DoH), "HTTPS")
	}
	for _, a := range l.Asks {
		p.row("", a.Addr.String()+" asks "+a.Side, "")
	}
	if c := l.Certificate; c != nil {
		whose := "its own"
		if !c.Own {
			whose = c.File
		}
		p.row("pin", "sha256/"+c.Pin, whose)
		p.row("", "for "+strings.Join(c.Names, ", "), "until "+c.Until.Format(time.DateOnly))
	}
}

func (p printer) condition(c api.Condition) {
	label := c.Severity
	if c.What != "" {
		if c.Severity == "error" {
			c.What = p.bad(c.What)
		}
		p.row(label, c.What, "")
		label = ""
	}
	if c.Fix != "" {
		p.row(label, "→ "+c.Fix, "")
	}
}

func (p printer) tunnel(t api.Tunnel, now time.Time) {
	state := p.good(t.State)
	if t.State != "up" {
		state = p.bad(t.State)
	}
	hs := "no handshake yet"
	if t.Handshake != nil {
		hs = "handshake " + long(api.Since(max(0, now.Sub(*t.Handshake)))) + " ago"
	}
	p.row("tunnel", pad(t.Path, 8)+state+"  "+t.Endpoint, hs)
	latency := ""
	if t.Probe != nil && t.Probe.Latency > 0 {
		latency = "latency " + short(t.Probe.Latency)
	}
	p.row("", fmt.Sprintf("%s device, peer %s, when down: %s", t.Device, t.Peer, t.WhenDown), latency)
	if t.MTU.Link > 0 {
		p.row("", mtuText(t.MTU), "")
	}
	p.row("", fmt.Sprintf("fwmark %s, table %d", t.Mark, t.Table), fmt.Sprintf("%s in, %s out", sizeText(t.Received), sizeText(t.Sent)))
	if t.StandIn != "" {
		p.row("", p.bad(t.StandIn), "")
	}
	if t.Probe != nil && t.Probe.Error != "" && t.State != "up" {
		p.row("", p.bad(t.Probe.Error), "")
	}
}

func mtuText(m api.MTU) string {
	text := fmt.Sprintf("MTU %d, %s", m.Link, map[string]string{"file": "as its file says", "route": "by the route to its endpoint", "measured": "by the route to its endpoint"}[m.From])
	if m.Fits > 0 {
		text += fmt.Sprintf("; made to fit %d, for more does not arrive", m.Fits)
	}
	return text
}

func (p printer) server(v api.Server) {
	state := p.good("up")
	if !v.Up {
		state = p.bad("down")
	}
	right := "not asked yet"
	if v.Queries > 0 {
		right = fmt.Sprintf("%s, %d asked", short(v.Latency), v.Queries)
		if v.Latency == 0 || !v.Up {
			right = fmt.Sprintf("%d asked", v.Queries)
		}
	}
	if v.Failures > 0 {
		right += fmt.Sprintf(", %d failed", v.Failures)
	}
	if v.Suspect > 0 {
		right += fmt.Sprintf(", %d suspect", v.Suspect)
	}
	name := v.Server
	if len(v.Addrs) > 0 && !strings.Contains(name, v.Addrs[0].String()) {
		name += " at " + v.Addrs[0].String()
	}
	p.row("", pad(name, 28)+state, right)
	if v.LastError != "" && !v.Up {
		p.row("", "  "+v.LastError, "")
	}
}

// sets prints the marks of each path, and how large the lists of addresses in
// the kernel are. The sets of interfaces and the like say nothing new.
func (p printer) sets(all []api.Set) {
	sizes, size := map[string][]string{}, uint32(0)
	var marks, static []string
	for _, s := range all {
		family := "IPv4"
		name, is4 := strings.CutSuffix(s.Name, "_4")
		if !is4 {
			family, name = "IPv6", strings.TrimSuffix(s.Name, "_6")
		}
		order := &static
		switch {
		case s.Path != "":
			name, size, order = s.Path, s.Size, &marks
		case name == s.Name || s.Elements == 0 || name == "local" || name == "lan":
			continue
		}
		if sizes[name] == nil {
			*order = append(*order, name)
		}
		sizes[name] = append(sizes[name], fmt.Sprintf("%d %s", s.Elements, family))
	}
	for _, path := range marks {
		p.row("marks", pad(path, 8)+strings.Join(sizes[path], ", "), fmt.Sprintf("room for %d each", size))
	}
	for _, name := range static {
		p.row("set", pad(name, 8)+strings.Join(sizes[name], ", "), "")
	}
}

// counters prints what is not zero, a row per group.
func (p printer) counters(all []api.Counter) {
	var order []string
	texts := map[string][]string{}
	for _, c := range all {
		if c.Value == 0 {
			continue
		}
		if texts[c.Group] == nil {
			order = append(order, c.Group)
		}
		texts[c.Group] = append(texts[c.Group], fmt.Sprintf("%d %s", c.Value, strings.TrimPrefix(c.Name, "packets: ")))
	}
	for _, g := range order {
		label := g
		if g == "queries" {
			label = "resolver"
		}
		p.row(label, strings.Join(texts[g], "; "), "")
	}
}

func (p printer) marks(m api.Marks) {
	addr, path := 0, 0
	for _, l := range m.Marks {
		addr, path = max(addr, len(l.Addr.String())), max(path, len(l.Path))
	}
	for _, l := range m.Marks {
		p.line(pad(l.Addr.String(), addr+2)+pad(l.Path, path+2)+long(l.Remaining)+" left", "")
	}
	for _, c := range m.Conflicts {
		p.row("conflict", fmt.Sprintf("%s is on several paths: %s; %s is used", c.Addr, strings.Join(c.Paths, ", "), c.Used), "")
	}
	if len(m.Marks) == 0 {
		p.line("no address is marked", "")
	}
}

func (p printer) done(d api.Done) { p.line(d.Text, "") }

func join[T fmt.Stringer](all []T) string {
	s := make([]string, len(all))
	for i, v := range all {
		s[i] = v.String()
	}
	return strings.Join(s, ", ")
}

func counted(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// sizeText prints a size with a binary unit.
func sizeText(n int64) string {
	v, unit := float64(n), 0
	for ; v >= 1024 && unit < 4; unit++ {
		v /= 1024
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, [...]string{"B", "KiB", "MiB", "GiB", "TiB"}[unit])
}
