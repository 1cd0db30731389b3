package draft

import (
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"smartdns/configs"
)

// where is the condition of a step: all of it holds.
type where struct {
	names   []string // nil: any
	clients []string // nil: any
	types   []string // nil: any
	judged  bool     // by the addresses of an answer
	none    bool     // cannot be expressed
}

func (w where) always() bool {
	return w.names == nil && w.clients == nil && w.types == nil && !w.judged
}

// call executes a plugin.
func (m *mosdns) call(p *plugin, arg string, w where) (ended bool) {
	at, was := m.at, m.text
	defer func() { m.at, m.text = at, was }()
	if m.depth++; m.depth > 20 {
		m.lost("sequences call each other in a circle")
		return true
	}
	defer func() { m.depth-- }()
	switch p.kind {
	case "sequence":
		m.in(p)
		if p.args != nil {
			for _, step := range resolved(p.args).Content {
				if m.step(p.at.file, resolved(step), w) {
					return true
				}
			}
		}
	case "forward":
		p.used = true
		m.ask(m.forward(p, ""), w)
	case "fallback":
		m.in(p)
		m.fallback(p, w)
	case "cache":
		m.in(p)
		m.cacheOf(p)
	case "hosts":
		m.in(p)
		m.hostsOf(p, w)
	case "redirect":
		m.in(p)
		m.redirect(p)
	case "ecs_handler":
		m.in(p)
		m.ecsOf(p)
	default:
		m.in(p)
		m.word(p.kind, firstOf(arg, "..."), w)
	}
	return false
}

// step is one rule of a sequence.
func (m *mosdns) step(file string, n *yaml.Node, outer where) (ended bool) {
	w := outer
	for _, c := range scalars(child(n, "matches")) {
		m.line(place{file, c.Line}, c.Value)
		m.condition(c.Value, &w)
	}
	for _, x := range scalars(child(n, "exec")) {
		m.line(place{file, x.Line}, x.Value)
		if w.none {
			m.lost("its condition cannot be expressed: a line says whom to ask about a name")
			continue
		}
		if m.exec(strings.TrimSpace(x.Value), w) {
			ended = true
		}
		m.carried()
	}
	return ended && w.always()
}

// condition adds a match to w.
func (m *mosdns) condition(c string, w *where) {
	c = strings.TrimSpace(c)
	word, arg, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(c, "!")), " ")
	not := strings.HasPrefix(c, "!")
	switch {
	case word == "qname" && !not:
		m.carried()
		names := m.expressions(arg)
		if w.names != nil { // both: what one already says is enough where it is the same
			names = slices.DeleteFunc(names, func(s string) bool { return !slices.Contains(w.names, s) })
		}
		if len(names) == 0 {
			w.none = true
			return
		}
		w.names = names
	case word == "client_ip" && !not:
		m.carried()
		w.clients = m.clients(arg)
		w.none = w.none || len(w.clients) == 0
	case word == "qtype" && !not:
		m.carried()
		w.types = strings.Fields(arg)
	case word == "resp_ip":
		m.state.checked = true
		w.judged = true
		for _, tag := range strings.Fields(arg) {
			if p := m.plugins[strings.TrimPrefix(tag, "$")]; p != nil {
				p.used = true
				m.prefixes(p)
			} else if file, ok := strings.CutPrefix(tag, "&"); ok {
				m.homePrefixes(m.absolute(file, ""))
			}
		}
		m.changed("ask = \"auto\" judges answers by the prefixes at home: by these and those that are part of smartdns ([geo] sources)")
	case word == "has_resp", word == "has_wanted_ans", word == "rcode" && !not:
		m.carried()
		w.judged = true
	case word == "_true":
		m.carried()
	default:
		m.lost("a line is chosen by name, list and client alone")
		w.none = true
	}
}

// expressions reads what follows qname.
func (m *mosdns) expressions(arg string) []string {
	var all []string
	for x := range strings.FieldsSeq(arg) {
		switch {
		case x[0] == '$':
			p := m.plugins[x[1:]]
			if p == nil || p.kind != "domain_set" {
				m.lost("there is no set %s", clip(x))
				continue
			}
			p.used = true
			all = append(all, m.domains(p)...)
		case x[0] == '&':
			all = append(all, "list:"+m.list(m.absolute(x[1:], ""), ""))
		default:
			if e, ok := m.match(x); ok {
				all = append(all, e)
			}
		}
	}
	return all
}

func (m *mosdns) clients(arg string) []string {
	var all []string
	for x := range strings.FieldsSeq(arg) {
		if p, err := netip.ParsePrefix(x); err == nil {
			all = append(all, p.Masked().String())
		} else if a, err := netip.ParseAddr(x); err == nil {
			all = append(all, a.Unmap().String())
		} else {
			m.lost("clients are written into the line itself: clients = [...], not %s", clip(x))
		}
	}
	return all
}

// exec does one command, and reports whether the sequence ends with it.
func (m *mosdns) exec(command string, w where) (ended bool) {
	word, arg, _ := strings.Cut(command, " ")
	arg = strings.TrimSpace(arg)
	if tag, ok := strings.CutPrefix(word, "$"); ok {
		p := m.plugins[tag]
		if p == nil {
			m.lost("there is no plugin %s", clip(tag))
			return false
		}
		return m.call(p, arg, w) && w.always()
	}
	switch word {
	case "accept", "return":
		return true
	case "jump", "goto":
		p := m.plugins[strings.TrimPrefix(arg, "$")]
		if p == nil {
			m.lost("there is no sequence %s", clip(arg))
			return false
		}
		m.call(p, "", w)
		return word == "goto"
	case "forward":
		m.ask(m.forward(nil, arg), w)
		return false
	case "reject":
		m.answer(w, map[string]string{"": "refused", "0": "nodata", "3": "nxdomain"}[arg])
		return true
	case "black_hole":
		all := strings.Fields(arg)
		if slices.Equal(all, []string{"0.0.0.0"}) || slices.Equal(all, []string{"0.0.0.0", "::"}) {
			all = []string{"null"}
		}
		m.answer(w, all...)
		return false
	}
	m.word(word, arg, w)
	return false
}

// word does a command that neither asks nor answers.
func (m *mosdns) word(word, arg string, w where) {
	switch word {
	case "ttl":
		low, high, ok := strings.Cut(arg, "-")
		switch {
		case !w.always():
			m.lost("the bounds of TTLs are the same for all names ([cache])")
		case !ok:
			m.ttl("min_ttl", arg, 0, mostMinTTL)
			m.ttl("max_ttl", arg, 1e9, mostTTL)
		default:
			if low != "" && low != "0" {
				m.ttl("min_ttl", low, 0, mostMinTTL)
			}
			if high != "" && high != "0" {
				m.ttl("max_ttl", high, 1e9, mostTTL)
			}
		}
	case "ecs":
		p, err := netip.ParsePrefix(arg)
		if a, e := netip.ParseAddr(arg); e == nil {
			p, err = netip.PrefixFrom(a, 24), nil
		}
		if err != nil || p.Addr().Is6() {
			m.lost("the network that servers are told is an IPv4 prefix or \"client\" ([side.X] ecs)")
			return
		}
		m.carried()
		m.ecs = p.Masked().String()
	case "cache":
		m.cacheSize(firstOf(arg, "1024"))
	case "prefer_ipv4", "prefer_ipv6":
		m.changed("IPv6 addresses are answered where their path has IPv6 (aaaa = \"auto\"); for a line without any write aaaa = \"drop\"")
	case "ipset", "nftset":
		m.lost("%s", m.setWhy())
	case "drop_resp":
		m.carried()
	case "udp_server", "tcp_server":
	case "reverse_lookup":
		m.lost("names of addresses are those of [records], hosts files and servers")
	case "mark", "sleep", "rate_limiter", "arbitrary", "ros_addrlist":
		m.lost("there is nothing like it")
	case "query_summary", "metrics_collector", "debug_print", "forward_edns0opt", "bufsize", "padding", "single_flight", "misc_optm":
		m.idle("is not needed here")
	default:
		m.unsettledWord(word)
	}
}

func (m *mosdns) unsettledWord(word string) {
	m.lost("%s is not understood: whom to ask about a name is a line of [decide] names", clip(word))
}

// ask makes a line of a forwarder, or remembers it for the names of no list.
func (m *mosdns) ask(tag string, w where) {
	switch {
	case tag == "":
	case w.types != nil:
		m.lost("all types of a name are asked at the same servers")
	case w.names != nil || w.clients != nil:
		m.decided(rule{match: w.names, clients: w.clients, ask: tag})
	case m.state.first == "":
		m.state.first = tag
	case tag == m.state.first:
		m.carried()
	case m.state.second == "" && m.state.checked:
		m.state.second = tag
		m.role(m.state.first, configs.SideDomestic)
		m.role(tag, configs.SideForeign)
		m.carried()
	default:
		m.lost("only one side is asked about a name: put the servers into one side, with choose = \"order\", to ask these when those fail")
	}
}

// decided appends a line with the filters that hold here.
func (m *mosdns) decided(x rule) {
	if x.match == nil {
		x.match = []string{"*"}
	}
	m.carried()
	x.at, x.from = m.at, m.text
	x.match = slices.Compact(slices.Clone(x.match))
	x.filtered(m.filter)
	m.rules = append(m.rules, &x)
}

// answer makes a line of a local answer, or a filter of a type.
func (m *mosdns) answer(w where, answer ...string) {
	if len(answer) == 0 || answer[0] == "" {
		m.changed("it is \"refused\" here: an answer is refused, nxdomain, nodata, null or addresses")
		answer = []string{"refused"}
	}
	for _, a := range answer {
		if _, err := netip.ParseAddr(a); err != nil && len(answer) > 1 {
			m.lost("%q is no address", clip(a))
			return
		}
	}
	if slices.Equal(w.types, []string{"12"}) && w.names != nil {
		w.types = nil // names of addresses have no other type
	}
	switch {
	case w.types != nil && w.names == nil && w.clients == nil:
		m.filterTypes(w.types)
	case w.types != nil:
		m.lost("types are left out by aaaa and https of the line that asks")
	case w.names != nil || w.clients != nil:
		m.decided(rule{match: w.names, clients: w.clients, answer: answer})
	case w.judged:
		m.carried()
	case m.state.first == "":
		m.last.answer, m.last.ask = answer, ""
		m.carried()
	}
}

func (m *mosdns) filterTypes(types []string) {
	for _, t := range types {
		switch strings.ToUpper(t) {
		case "28", "AAAA":
			m.carried()
			m.filter.aaaa = "drop"
		case "64", "65", "SVCB", "HTTPS":
			m.carried()
			m.filter.https = "drop"
		default:
			m.lost("of types only AAAA (28), SVCB (64) and HTTPS (65) can be left out: aaaa and https of a line")
		}
	}
}

// fallback is a first way and a second one.
func (m *mosdns) fallback(p *plugin, w where) {
	was := m.state
	m.state = walk{}
	at, line := m.at, m.text
	for _, k := range []string{"primary", "secondary"} {
		if t := text(p.args, k); t != "" {
			if q := m.plugins[t]; q != nil {
				m.call(q, "", where{})
			} else {
				m.lost("there is no plugin %s", clip(t))
			}
		}
	}
	got := m.state
	m.state = was
	m.at, m.text = at, line
	switch {
	case got.first == "":
		m.lost("neither of its ways asks a server")
	case got.second != "" && !w.always():
		m.decided(rule{match: w.names, clients: w.clients, ask: configs.AskAuto})
	case !w.always():
		m.decided(rule{match: w.names, clients: w.clients, ask: got.first})
	default:
		m.state = got
	}
	if got.second != "" && text(p.args, "always_standby") == "true" {
		m.auto = string(configs.Race)
	}
}
