package draft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"smartdns/configs"
)

// name turns what stands between slashes into an entry of ours.
func (p *pymumu) name(text string) (string, bool) {
	switch {
	case text == "." || text == "":
		return "*", true
	case strings.HasPrefix(text, "domain-set:"):
		set := strings.TrimPrefix(text, "domain-set:")
		file := p.sets[set]
		if file == "" {
			p.lost("no domain-set %s before this line", clip(set))
			return "", false
		}
		return "list:" + p.list(file, ""), true
	case strings.HasPrefix(text, "*"):
		return p.match(suffixPattern(text[1:]))
	case strings.HasPrefix(text, "-."):
		return p.match("full:" + text[2:])
	}
	return p.match(strings.Trim(text, "."))
}

// named cuts "/one.example/value" and returns the rule about each name.
func (p *pymumu) named(value string) (rules []*rule, rest string) {
	if !strings.HasPrefix(value, "/") {
		return []*rule{&p.last}, value
	}
	parts := strings.Split(value[1:], "/")
	if len(parts) < 2 {
		p.lost("has no second slash: it is written /NAME/VALUE")
		return nil, ""
	}
	name, ok := p.name(parts[0])
	if !ok {
		return nil, ""
	}
	return []*rule{p.about(name)}, strings.Join(parts[1:], "/")
}

// about returns the rule about one entry.
func (p *pymumu) about(name string) *rule {
	p.carried()
	if name == "*" {
		return &p.last
	}
	i, ok := p.known[name]
	if !ok {
		i = len(p.rules)
		p.known[name] = i
		p.rules = append(p.rules, rule{match: []string{name}, at: p.at, from: p.text})
	}
	return &p.rules[i]
}

// address takes /NAME/ADDRESSES, #, - and their forms for one family.
func (p *pymumu) address(value string) {
	rules, text := p.named(value)
	for _, x := range rules {
		p.answer(x, text)
	}
}

func (p *pymumu) answer(x *rule, text string) {
	p.carried()
	switch text {
	case "#":
		x.answer, x.ask = []string{"nodata"}, ""
	case "#6":
		x.aaaa = "drop"
	case "#4":
		p.lost("IPv4 addresses are always answered: answer = \"nodata\" is no address of either family")
	case "-", "-4", "-6":
		if text == "-6" {
			x.aaaa = "auto"
		}
	default:
		var all []string
		for s := range strings.SplitSeq(text, ",") {
			a, err := netip.ParseAddr(s)
			if err != nil || a.Zone() != "" {
				p.lost("%q is no address", clip(s))
				return
			}
			if s = a.Unmap().String(); !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
		if slices.Equal(all, []string{"0.0.0.0"}) || slices.Equal(all, []string{"0.0.0.0", "::"}) {
			all = []string{"null"}
		}
		x.answer, x.ask = all, ""
	}
}

func (p *pymumu) nameserver(value string) {
	rules, group := p.named(value)
	for _, x := range rules {
		p.askGroup(x, group)
	}
}

func (p *pymumu) askGroup(x *rule, group string) {
	p.carried()
	if group == "-" || group == "default" {
		group = ""
	}
	if len(x.answer) == 0 {
		x.ask = "group:" + group
	}
}

// domainRules takes /NAME/ and what would be lines of their own.
func (p *pymumu) domainRules(values []string) {
	rest, options := p.optionsOf(values)
	if len(rest) == 0 {
		p.lost("has no name")
		return
	}
	name, ok := p.name(strings.Trim(rest[0], "/"))
	if !ok {
		return
	}
	for _, o := range options {
		switch o[0] {
		case "address", "a":
			p.answer(p.about(name), o[1])
		case "nameserver", "n":
			p.askGroup(p.about(name), o[1])
		case "cname":
			p.alias(p.about(name), o[1])
		case "ipset", "p", "nftset", "t":
			p.set("")
		case "speed-check-mode", "c", "dualstack-ip-selection", "d", "response-mode", "r":
			p.lost("-%s: addresses are answered as the server gave them: nothing is pinged on a client's behalf", o[0])
		case "group", "g":
			p.lost("-%s: a rule for some clients is a line with clients = [...]", o[0])
		case "rr-ttl", "rr-ttl-min", "rr-ttl-max", "no-cache", "no-serve-expired":
			p.lost("-%s: the cache is the same for all names ([cache])", o[0])
		default:
			p.lost("-%s: there is nothing like it for one name", clip(o[0]))
		}
	}
	if !p.settled[p.at] {
		p.idle("says nothing about the name")
	}
}

func (p *pymumu) cname(value string) {
	rules, target := p.named(value)
	for _, x := range rules {
		p.alias(x, target)
	}
}

func (p *pymumu) alias(x *rule, target string) {
	if target == "-" {
		p.carried()
		return
	}
	if m, ok := p.match("full:" + target); ok {
		p.carried()
		x.answer, x.ask = []string{"cname:" + strings.TrimPrefix(m, "full:")}, ""
	}
}

// srv takes /NAME/TARGET,PORT,PRIORITY,WEIGHT.
func (p *pymumu) srv(value string) {
	parts := strings.SplitN(strings.TrimPrefix(value, "/"), "/", 2)
	if len(parts) < 2 || parts[1] == "" {
		p.lost("a service without a target: write it into [records] lines")
		return
	}
	all := fields(parts[1])
	n, ok := numbers(all, 1, 3)
	if !ok || !plainWord(all[0]) {
		p.lost("a service is written /NAME/TARGET,PORT,PRIORITY,WEIGHT")
		return
	}
	p.record(parts[0], "SRV", fmt.Sprintf("%s %s %s %s", n[1], n[2], n[0], all[0]))
}

// clientRules takes CLIENT -group GROUP.
func (p *pymumu) clientRules(values []string) {
	rest, options := p.optionsOf(values)
	if len(rest) != 1 || strings.HasPrefix(rest[0], "ip-set:") {
		p.lost("clients are written as addresses, prefixes or MACs: clients = [...] of a line")
		return
	}
	x := rule{match: []string{"*"}, clients: rest, at: p.at, from: p.text}
	for _, o := range options {
		switch o[0] {
		case "group", "g":
			p.askGroup(&x, o[1])
		case "force-aaaa-soa":
			x.aaaa = "drop"
		default:
			p.lost("-%s: a line for some clients says whom to ask or what to answer", clip(o[0]))
		}
	}
	p.forClients(x)
}

// forClients adds a line for some clients, one of them.
func (p *pymumu) forClients(x rule) {
	if x.ask == "" && x.aaaa == "" {
		if !p.settled[p.at] {
			p.idle("says nothing about them")
		}
		return
	}
	p.carried()
	client, err := p.client(x.clients[0])
	if err != nil {
		p.lost("%v", err)
		return
	}
	for i := range p.top {
		if p.top[i].said() == x.said() {
			return
		}
	}
	x.clients = []string{client}
	p.top = append(p.top, x)
}

// client spells a client as our file does.
func (p *pymumu) client(text string) (string, error) {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return prefix.Masked().String(), nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return a.Unmap().String(), nil
	}
	if strings.Count(text, ":") == 5 || strings.Count(text, "-") == 5 {
		return strings.ToLower(text), nil
	}
	return "", fmt.Errorf("%q is no client: an address, a prefix or a MAC", clip(text))
}

func (p *pymumu) groupBegin(name string) {
	p.carried()
	p.inside = name
}

func (p *pymumu) groupEnd([]string) {
	p.carried()
	p.inside = ""
}

// groupMatch says which names or clients a group is for.
func (p *pymumu) groupMatch(values []string) {
	_, options := p.optionsOf(values)
	group := p.inside
	for _, o := range options {
		if o[0] == "group" || o[0] == "g" {
			group = o[1]
		}
	}
	for _, o := range options {
		switch o[0] {
		case "domain":
			if name, ok := p.name(strings.Trim(o[1], "/")); ok {
				p.askGroup(p.about(name), group)
			}
		case "client-ip":
			p.forClients(rule{match: []string{"*"}, clients: []string{o[1]}, ask: "group:" + group, at: p.at, from: p.text})
		}
	}
	if group == "" || group == configs.AskAuto {
		p.lost("names no group")
	}
}
