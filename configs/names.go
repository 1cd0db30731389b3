package configs

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

func (c converter) nameRules(raw rules[rawNameRule]) []NameRule {
	if raw.missing() {
		return c.defaultNameRules()
	}
	var (
		all        []NameRule
		places     []place
		matchesAll []bool
	)
	for i, line := range raw.items {
		rule := c.nameRule(line)
		rule.Index = i
		all, places = append(all, rule), append(places, line.place)
		matchesAll = append(matchesAll, rule.Clients.Everybody() && line.body.Clients.missing() && slices.ContainsFunc(rule.Match, func(m NameMatch) bool { return m.Kind == MatchAll }))
	}
	c.checkLast(raw.place, places, matchesAll, `{ match = "*", ask = "auto" }`)
	c.checkLimited(all, places)
	return all
}

// MaxLimited is how many lines of names may be for some clients.
const MaxLimited = 64

// checkLimited says which line for some clients is one too many.
func (c converter) checkLimited(all []NameRule, places []place) {
	n := 0
	for i, rule := range all {
		if rule.Clients.Everybody() {
			continue
		}
		if n++; n > MaxLimited {
			c.addf(places[i].child("clients"), "more than %d lines are for some clients: let one line have all names of the same clients, as match = [\"a.example\", \"b.example\"] or a list", MaxLimited)
			return
		}
	}
}

// defaultNameRules returns the lines of a file without names. The names that are
// part of the program are domestic in their own country alone.
func (c converter) defaultNameRules() []NameRule {
	var all []NameRule
	if c.atEmbeddedHome() || !c.embeddedNames() {
		all = []NameRule{{Match: []NameMatch{{Kind: MatchList, Text: ListCNDomains}}, Ask: SideDomestic, AAAA: AAAAAuto, HTTPS: HTTPSAuto, Text: `"list:cn-domains"`, Pos: defaultPos()}}
	}
	return append(all, NameRule{Index: len(all), Match: []NameMatch{{Kind: MatchAll}}, Ask: AskAuto, AAAA: AAAAAuto, HTTPS: HTTPSAuto, Text: `"*"`, Pos: defaultPos()})
}

func (c converter) nameRule(line table[rawNameRule]) NameRule {
	body := line.body
	rule := NameRule{
		Match:   c.nameMatches(line.place, body.Match),
		Ask:     body.Ask.value,
		Answer:  c.answer(body.Answer),
		Via:     c.via(body.Via, ""),
		AAAA:    word(c, body.AAAA, AAAAAuto, AAAADrop, AAAAKeep),
		HTTPS:   word(c, body.HTTPS, HTTPSAuto, HTTPSStrip, HTTPSDrop),
		Text:    body.Match.text(),
		Clients: c.lineClients(body.Clients),
		Pos:     c.pos(line.place),
	}
	switch {
	case body.Ask.given() && body.Answer.given():
		c.addf(line.place, "ask and answer: a line has one of them")
	case body.Ask.missing() && body.Answer.missing() && !line.bad:
		c.addf(line.place, `neither ask nor answer: write one, e.g. ask = "auto"`)
	case body.Ask.given() && !slices.Contains(c.sideNames(), rule.Ask):
		c.addf(body.Ask.place, "no side %s (%s)", quote(rule.Ask), thereAre(c.sideNames()))
	}
	if body.Clients.given() && body.Via.given() {
		c.addf(body.Via.place, "a line for some clients chooses a side or an answer: an address has one path for all of them")
	}
	if rule.Answer.Kind != AnswerNone && rule.Answer.Kind != AnswerAddress && body.Via.given() {
		c.addf(body.Via.place, "answer = %q has no addresses that could go anywhere", body.Answer.items[0].value)
	}
	for _, shape := range []rawString{body.AAAA, body.HTTPS} {
		if body.Answer.given() && shape.given() {
			c.addf(shape.place, "an answer is given as it is written: aaaa and https go with ask")
		}
	}
	return rule
}

func (c converter) nameMatches(at place, raw rawOneOrMore) []NameMatch {
	if len(raw.items) == 0 && !raw.bad && !at.bad {
		c.addf(at.child("match"), `missing: say what the line matches, e.g. match = "example.com"`)
	}
	c.starIsAlone(raw)
	var all []NameMatch
	for _, item := range raw.items {
		m, err := parseNameMatch(item.value)
		if err != nil {
			c.valuef(item, err)
			continue
		}
		if m.Kind == MatchList {
			c.listOfNames(item.place, m.Text)
		}
		all = append(all, m)
	}
	return all
}

// listOfNames checks a list that names are looked up in.
func (c converter) listOfNames(at place, name string) {
	if !c.listed(at, name) {
		return
	}
	for _, l := range c.raw.List {
		format := ListFormat(l.body.Format.value)
		switch {
		case l.name != name:
		case l.body.Region.value != "":
			c.addf(at, "list %s has a region, so it holds addresses: here stand lists of names", quote(name))
		case format.ofAddresses() || format == ListMMDB:
			c.addf(at, "list %s is written as %s, so it holds addresses: here stand lists of names", quote(name), format)
		}
	}
}

// parseNameMatch reads one entry of a name rule's match.
func parseNameMatch(s string) (NameMatch, error) {
	if s == "*" {
		return NameMatch{Kind: MatchAll}, nil
	}
	kind, value, ok := strings.Cut(s, ":")
	if !ok {
		kind, value = "domain", s
	}
	if _, err := parsePrefix(s); err == nil {
		return NameMatch{}, fmt.Errorf(`is no name: for the names of these addresses write %s`, quote("reverse:"+s))
	}
	switch kind {
	case "domain", "full":
		name, err := parseName(value)
		if err != nil {
			return NameMatch{}, err
		}
		if kind == "full" {
			return NameMatch{Kind: MatchFull, Name: name}, nil
		}
		return NameMatch{Kind: MatchSuffix, Name: name}, nil
	case "keyword":
		if value == "" || !isMadeOf(value, "_.-") {
			return NameMatch{}, errors.New("a keyword is letters, digits and any of _ . - (of an international name: of its xn-- form)")
		}
		return NameMatch{Kind: MatchKeyword, Text: strings.ToLower(value)}, nil
	case "regexp":
		if value == "" {
			return NameMatch{}, errors.New("an empty expression matches everything: that is \"*\"")
		}
		re, err := regexp.Compile(value)
		if err != nil {
			return NameMatch{}, errors.New(strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
		return NameMatch{Kind: MatchRegexp, Regexp: re}, nil
	case "list":
		return NameMatch{Kind: MatchList, Text: value}, nil
	case "reverse":
		prefix, err := parsePrefix(value)
		if err != nil {
			return NameMatch{}, err
		}
		return NameMatch{Kind: MatchReverse, Prefix: prefix}, nil
	}
	return NameMatch{}, fmt.Errorf("no such matcher %s: it is domain:, full:, keyword:, regexp:, reverse: or list:NAME", quote(kind+":"))
}

// answer reads a local answer: a word, "cname:" and a name, an address, or a
// list of addresses.
func (c converter) answer(raw rawOneOrMore) Answer {
	if !raw.given() {
		return Answer{}
	}
	if len(raw.items) == 0 {
		c.addf(raw.place, `no address: for an empty answer write answer = "nodata"`)
		return Answer{}
	}
	if raw.single {
		a, err := parseAnswer(raw.items[0].value)
		if err != nil {
			c.valuef(raw.items[0], err)
		}
		return a
	}
	a := Answer{Kind: AnswerAddress}
	seen := make(map[netip.Addr]bool)
	for _, item := range raw.items {
		addr, err := parseAnswerAddr(item.value)
		if err != nil {
			c.addf(item.place, "%s: a list of answers is a list of addresses", quote(item.value))
			continue
		}
		if seen[addr] {
			c.twice(item)
			continue
		}
		seen[addr] = true
		a.Addrs = append(a.Addrs, addr)
	}
	return a
}

func parseAnswer(s string) (Answer, error) {
	switch kind := AnswerKind(s); kind {
	case AnswerNXDomain, AnswerNoData, AnswerRefused, AnswerBlock, AnswerNull:
		return Answer{Kind: kind}, nil
	}
	if target, ok := strings.CutPrefix(s, "cname:"); ok {
		name, err := parseName(target)
		if err != nil {
			return Answer{}, err
		}
		return Answer{Kind: AnswerCNAME, Target: name}, nil
	}
	addr, err := parseAnswerAddr(s)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Kind: AnswerAddress, Addrs: []netip.Addr{addr}}, nil
}

func parseAnswerAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, errors.New("no such answer: it is nxdomain, nodata, refused, block, null, an address, a list of addresses or cname:NAME")
	}
	return addr.Unmap(), nil
}
