package draft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"smartdns/configs"
)

// names cuts "/one.example/two.example/value"; a value alone is for all names.
func (d *dnsmasq) names(value string) (names []string, rest string) {
	if !strings.HasPrefix(value, "/") {
		return []string{""}, value
	}
	parts := strings.Split(value[1:], "/")
	for _, n := range parts[:len(parts)-1] {
		if n == "" {
			names = append(names, unqualified)
			continue
		}
		if m, ok := d.pattern(n); ok {
			names = append(names, m)
		}
	}
	if len(parts) == 1 {
		d.lost("has no second slash: it is written /NAME/VALUE")
	}
	return names, parts[len(parts)-1]
}

// unqualified matches names of one label.
const unqualified = `regexp:^[^.]+$`

// pattern turns what stands between slashes into an entry of ours.
func (d *dnsmasq) pattern(n string) (string, bool) {
	switch {
	case n == "#":
		return "*", true
	case strings.HasPrefix(n, "*"):
		return d.match(suffixPattern(n[1:]))
	}
	return d.match(strings.Trim(n, "."))
}

// server takes server=, local= and their forms with names.
func (d *dnsmasq) server(value string) {
	names, text := d.names(value)
	switch {
	case text == "" && names != nil && names[0] == "":
		d.lost("has no server")
	case text == "":
		for _, n := range names {
			d.decide(n, rule{answer: []string{"nxdomain"}})
		}
	case text == "#":
		for _, n := range names {
			d.decide(n, rule{ask: standard})
		}
	default:
		if e, ok := d.upstream(text); ok {
			for _, n := range names {
				d.serve(n, e)
			}
		}
	}
}

// standard stands for the side of the servers for all names until that is known.
const standard = "\x00standard"

// upstream reads ADDRESS[#PORT][@INTERFACE|@SOURCE[#PORT]].
func (d *dnsmasq) upstream(text string) (*entry, bool) {
	at := strings.Split(text, "@")
	host, port, _ := strings.Cut(at[0], "#")
	if len(at) > 1 {
		d.changed("the server is asked on the path of its side: for one behind a tunnel write via = \"wg0\" instead of @%s", at[1])
	}
	return d.reader.server(server("", host, port, ""))
}

// serve adds a server of a name.
func (d *dnsmasq) serve(name string, e *entry) {
	if d.servers[name] == nil {
		d.order = append(d.order, name)
	}
	d.servers[name] = appendNew(d.servers[name], e)
}

// decide adds what is known about a name.
func (d *dnsmasq) decide(name string, x rule) {
	d.carried()
	x.at, x.from, x.match = d.at, d.text, []string{name}
	if name == "" || name == "*" {
		d.last = x
		d.last.match = []string{"*"}
		return
	}
	d.rules = append(d.rules, x)
}

func (d *dnsmasq) revServer(value string) {
	prefix, text, ok := strings.Cut(value, ",")
	p, err := netip.ParsePrefix(prefix)
	if a, e := netip.ParseAddr(prefix); e == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil {
		d.lost("%q is no prefix", clip(prefix))
		return
	}
	m := "reverse:" + p.Masked().String()
	if !ok || text == "" {
		d.decide(m, rule{answer: []string{"nxdomain"}})
	} else if e, ok := d.upstream(text); ok {
		d.serve(m, e)
	}
}

// answer takes address=/NAME/ADDRESS.
func (d *dnsmasq) answer(value string) {
	names, text := d.names(value)
	if len(names) > 0 && names[0] == "" {
		d.lost("has no name: it is written address=/NAME/ADDRESS")
		return
	}
	for _, n := range names {
		switch {
		case text == "":
			d.decide(n, rule{answer: []string{"nxdomain"}})
		case text == "#", text == "0.0.0.0", text == "::":
			d.decide(n, rule{answer: []string{"null"}})
		default:
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				d.lost("%q is no address", clip(text))
				return
			}
			a = a.Unmap()
			if d.answers[n] == nil {
				d.decide(n, rule{})
			}
			if d.carried(); !slices.Contains(d.answers[n], a.String()) {
				d.answers[n] = append(d.answers[n], a.String())
			}
		}
	}
}

// setWhy says what becomes of an ipset or an nftset.
func (r *reader) setWhy() string {
	if t := r.options.tunnels(); len(t) > 0 {
		return fmt.Sprintf("smartdns owns its sets: addresses that are not at home go through %s anyway; for a name that must, whatever its addresses, write via = %q into its line", t[0], t[0])
	}
	return "smartdns owns its sets and rules: name the tunnel with --tunnel, and what is not at home goes through it; for a name that must, write via into its line"
}

func (d *dnsmasq) set(string) { d.lost("%s", d.setWhy()) }

func (d *dnsmasq) rebindOK(value string) {
	if value == "" {
		d.carried()
		return
	}
	for n := range strings.SplitSeq(strings.Trim(value, "/"), "/") {
		if m, ok := d.match(n); ok {
			d.private = appendNew(d.private, d.value(m))
		}
	}
}

func (d *dnsmasq) bogusPriv(string) {
	for _, p := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fd00::/8"} {
		d.decide("reverse:"+p, rule{answer: []string{"nxdomain"}, comment: []string{"bogus-priv: names of private addresses that no record has."}})
	}
}

func (d *dnsmasq) domainNeeded(string) {
	d.decide(unqualified, rule{answer: []string{"nxdomain"}, comment: []string{"domain-needed: names without a dot."}})
}

func (d *dnsmasq) filterAAAA(string) { d.carried(); d.filter.aaaa = "drop" }

func (d *dnsmasq) filterRR(value string) {
	for rr := range strings.SplitSeq(value, ",") {
		switch strings.ToUpper(strings.TrimSpace(rr)) {
		case "AAAA":
			d.carried()
			d.filter.aaaa = "drop"
		case "HTTPS", "SVCB":
			d.carried()
			d.filter.https = "drop"
		default:
			d.lost("only AAAA, HTTPS and SVCB can be left out (aaaa and https of a line)")
		}
	}
}

// addSubnet is EDNS client subnet, for all servers.
func (d *dnsmasq) addSubnet(value string) {
	v4, _, _ := strings.Cut(value, ",")
	ecs := "client"
	if strings.Contains(v4, "/") {
		p, err := netip.ParsePrefix(v4)
		if err != nil {
			d.lost("%q is no prefix", clip(v4))
			return
		}
		ecs = p.Masked().String()
	}
	d.carried()
	d.flags["\x00ecs"+ecs] = d.at
}

func (d *dnsmasq) bogus(value string) {
	p, err := netip.ParsePrefix(value)
	if a, e := netip.ParseAddr(value); e == nil {
		p, err = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	if err != nil {
		d.lost("%q is neither an address nor a prefix", clip(value))
		return
	}
	d.reader.bogusAddress(p.Masked())
}

// finish makes lines of all that was said about each name.
func (d *dnsmasq) finish() {
	sides := map[string]*side{}
	sideOf := func(name string) *side {
		all := d.servers[name]
		texts := make([]string, len(all))
		for i, e := range all {
			texts[i] = e.text
		}
		k := strings.Join(texts, " ")
		if sides[k] == nil {
			wanted := purpose(all)
			if wanted == "office" || wanted == "upstream" && name != "" {
				label, _, _ := strings.Cut(name, ".")
				if !strings.Contains(label, ":") {
					wanted = asWord(label, "servers")
				}
			}
			s := side{servers: all, more: d.choose(all)}
			for _, f := range slices.Sorted(maps.Keys(d.flags)) {
				if ecs, ok := strings.CutPrefix(f, "\x00ecs"); ok {
					s.more = append(s.more, &entryOf{"ecs", quoted(ecs)})
				}
			}
			if name == "" {
				s.comment = "Who is asked about every other name."
			}
			sides[k] = d.newSide(wanted, s)
			d.helper(sides[k])
		}
		return sides[k]
	}
	rest := configs.AskAuto
	if all := d.servers[""]; len(all) > 0 {
		s := sideOf("")
		d.at, d.text = all[0].at, all[0].from
		if d.last.ask == configs.AskAuto {
			d.decideRest(s)
		}
		rest = s.name
	}
	if d.last.ask == standard {
		d.last.ask = rest
	}
	if _, alone := d.flags["no-resolv"]; !alone && len(d.servers[""]) == 0 {
		d.at, d.text = place{d.sources[0], 0}, "/etc/resolv.conf"
		d.changed("dnsmasq asked the servers it names; smartdns asks its own: name yours in [side.domestic] and [side.foreign]")
	}
	rules := d.rules
	for i, x := range rules {
		if addrs := d.answers[x.match[0]]; addrs != nil && x.ask == "" && x.answer == nil {
			rules[i].answer = addrs
		}
		if x.ask == standard {
			rules[i].ask = rest
		}
	}
	if addrs := d.answers["*"]; addrs != nil {
		d.last.answer, d.last.ask = addrs, ""
	}
	decided := map[string]bool{}
	for _, x := range rules {
		decided[x.match[0]] = true
	}
	for _, name := range d.order {
		if name == "" || decided[name] || name == "*" {
			continue
		}
		s := sideOf(name)
		rules = append(rules, rule{match: []string{name}, ask: s.name, at: s.at, from: s.from})
	}
	for i := range rules {
		rules[i].filtered(d.filter)
	}
	d.last.filtered(d.filter)
	d.writer.rules = bySpecificity(firstOfEach(rules))
	if _, no := d.flags["no-hosts"]; !no {
		d.at, d.text = place{d.sources[0], 0}, "/etc/hosts"
		d.hostsFile("/etc/hosts")
	}
	if d.port != 53 || len(d.listen.dns) > 0 {
		d.listenAt()
	}
}

// firstOfEach drops what is said about a name a second time.
func firstOfEach(rules []rule) []rule {
	seen := map[string]bool{}
	return slices.DeleteFunc(rules, func(x rule) bool {
		k := x.match[0]
		defer func() { seen[k] = true }()
		return seen[k]
	})
}

// filtered adds the filters of all lines to a line that asks.
func (x *rule) filtered(f rule) {
	if x.ask == "" {
		return
	}
	if x.aaaa == "" {
		x.aaaa = f.aaaa
	}
	if x.https == "" {
		x.https = f.https
	}
}

// listenAt puts the port behind the addresses.
func (d *dnsmasq) listenAt() {
	if len(d.listen.dns) == 0 {
		d.listen.dns = []*entry{quoted("127.0.0.1"), quoted("::1")}
	}
	var all []*entry
	for _, e := range d.listen.dns {
		text, err := d.address(strings.Trim(e.text, `"`), d.port)
		if err == nil {
			x := *e
			x.text = configs.Quote(text)
			all = appendNew(all, &x)
		}
	}
	d.listen.dns = all
}
